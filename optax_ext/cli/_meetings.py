"""Where the learning rate of a run jumps when its recipe changes, and where two rates meet, in words."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_ext._core.field_types import INT32_MAX

_MOST_STEPS = 2**22  # that are looked at one by one
_MOST_PLACES = 4  # where two rates meet; more are only counted
_ROUNDING = 1e-6  # of a rate, or a tenth of that of the highest


def evaluate(rate: Callable[[Any], Any], steps: np.ndarray) -> np.ndarray:
    """Return a rate at steps, in float32, by one compiled program."""
    at_steps = jnp.asarray(np.minimum(steps, INT32_MAX), jnp.int32)
    return np.asarray(jax.jit(jax.vmap(rate))(at_steps), np.float32)


def jump_in_words(before: float, after: float, step: int, peak: float) -> str:
    """Say how the rate goes on at a step, where the old recipe would have taken ``before``, the new one ``after``."""
    if is_same(np.float32(before), np.float32(after), peak):
        return f"the rate goes on without a jump at step {step:,}"
    ratio = f", x {after / before:.4g}" if before != 0 and np.isfinite([before, after]).all() else ""
    return f"the rate jumps from {before:.6g} to {after:.6g}{ratio}, at step {step:,}"


def is_same(first: Any, second: Any, peak: float) -> Any:
    """Return where rates are the same but for the rounding of float32; a rate of 0 is the same as no other."""
    return np.isclose(first, second, rtol=_ROUNDING, atol=_ROUNDING / 10 * peak) & ((first == 0) == (second == 0))


def meetings_in_words(
    old: Callable[[Any], Any], new: Callable[[Any], Any], at: int, last: int, peak: float
) -> tuple[list[str], int | None, int | None]:
    """Say where two rates meet from a step on, and from which step on each of them is 0.

    Args:
      old: The one rate.
      new: The other one.
      at: The first step to look at.
      last: The last one.
      peak: The highest rate.

    Returns:
      Sentences; and the first step from which ``old``, and ``new``, is 0 to the last step, or None.
    """
    shown = min(last, at + _MOST_STEPS - 1)
    steps = np.arange(at, max(shown, at) + 1, dtype=np.int64)
    olds, news = evaluate(old, steps), evaluate(new, steps)
    zeros = _zero_from(olds, at), _zero_from(news, at)
    found = list(_places(olds, news, at, peak, shown))
    if not found:
        found = [f"they do not meet from step {at:,} to step {steps[-1]:,}"]
    elif len(found) > _MOST_PLACES:
        found = [*found[:_MOST_PLACES], f"they meet {len(found) - _MOST_PLACES} more times up to step {steps[-1]:,}"]
    if shown < last:
        found.append(f"steps after {shown:,} were not looked at")
    return found, *zeros


def _places(olds: np.ndarray, news: np.ndarray, at: int, peak: float, last: int) -> Iterator[str]:
    """Say of each stretch of steps where both are equal, and of each crossing, where it is."""
    same = is_same(olds, news, peak)
    side = np.where(same, 0, np.sign(np.nan_to_num(news) - np.nan_to_num(olds)))
    edges = np.flatnonzero(np.diff(side)) + 1
    for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), len(side)], strict=True):
        first, final = at + begin, at + end - 1
        if same[begin]:
            both = "both are 0" if not (olds[begin:end].any() or news[begin:end].any()) else "both are equal"
            if final == last and end - begin > 1:
                yield f"{both} from step {first:,} on"
            else:
                yield f"{both} at step {first:,}" if first == final else f"{both} from step {first:,} to {final:,}"
        elif begin > 0 and side[begin] == -side[begin - 1]:
            above = "above" if side[begin] > 0 else "below"
            yield f"they cross between steps {first - 1:,} and {first:,}, the new one {above} the old one from there on"


def _zero_from(rates: np.ndarray, at: int) -> int | None:
    """Return the step from which a rate stays 0; None if its last value is not 0."""
    moving = np.flatnonzero(rates != 0)
    first = at if len(moving) == 0 else at + int(moving[-1]) + 1
    return first if first < at + len(rates) else None
