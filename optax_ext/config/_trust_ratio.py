"""The fields `min_ratio`, `max_ratio` and `record`: what is wrong with them, and what they mean in words."""

import pydantic

from optax_ext._core.schema import problem


def check_max_ratio(max_ratio: float | None, info: pydantic.ValidationInfo) -> float | None:
    """Return the largest ratio; raise, inside a validator, if it is below the smallest one."""
    min_ratio = info.data.get("min_ratio", 0.0)  # missing if it has a problem itself
    if max_ratio is not None and max_ratio < min_ratio:
        raise problem(f"must be at least min_ratio = {min_ratio:.10g}, got {max_ratio:.10g}")
    return max_ratio


def make_max_ratio(max_ratio: float | None) -> float:
    """Return the largest ratio as transformations take it, which may be infinite."""
    return float("inf") if max_ratio is None else max_ratio


def limits_in_words(min_ratio: float, max_ratio: float | None) -> str:
    """Say in which limits a ratio is held, as the end of a sentence; nothing where it has none."""
    limits = [f"at least {min_ratio:.10g}"] if min_ratio > 0 else []
    limits += [] if max_ratio is None else [f"at most {max_ratio:.10g}"]
    return f", but {' and '.join(limits)}" if limits else ""


def record_in_words(record: bool) -> str:
    """Say that ratios are kept, as the end of a sentence; nothing where they are not."""
    return "; each ratio is kept in the state" if record else ""
