"""The schedules of transformers, by the names that ``lr_scheduler_type`` has for them.

Each takes ``warmup_steps``, the steps of the whole training and ``lr_scheduler_kwargs``, and is a schedule here that
gives the same rate at every step of the training. What depends on the loss is no function of the step.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from optax_ext._core.errors import did_you_mean, join_words, shorten
from optax_ext.interop._report import PLACEHOLDER_RATE, Report
from optax_ext.interop.pytorch._arguments import is_finite
from optax_ext.schedules import (
    CosineDecay,
    CosineDecayRestarts,
    LinearWarmup,
    PolynomialDecay,
    PowerDecay,
    Schedule,
    StepCosineDecay,
    WarmupStableDecay,
)

_KWARGS = "lr_scheduler_kwargs"
_MAX_CYCLES = 10_000
_NO_STEPS_AFTER = "gives a rate that depends on the {}, which no function of the step can: choose another"
REFUSED = {
    "reduce_lr_on_plateau": _NO_STEPS_AFTER.format("evaluation"),
    "greedy": _NO_STEPS_AFTER.format("training loss"),
}


@dataclasses.dataclass
class Asked:
    """What a schedule is asked for.

    Args:
      peak: The learning rate after the warm-up.
      warmup_steps: Number of steps of the warm-up.
      total_steps: Number of steps of the training; None where it is not known.
      kwargs: The schedule's own arguments.
      report: What collects problems and notes.
    """

    peak: float
    warmup_steps: int
    total_steps: int | None
    kwargs: Mapping[str, Any]
    report: Report

    @property
    def steps_after(self) -> int:
        """Number of steps after the warm-up, at least 1 as in transformers."""
        return max(1, (self.total_steps or 0) - self.warmup_steps)

    def number(self, name: str, default: float | None = None) -> Any:
        """Return one of the schedule's own arguments."""
        value = self.kwargs.get(name)
        if value is None or is_finite(value):
            return default if value is None else value
        self.problem(name, f"must be a number, got {shorten(value)}")
        return default

    def problem(self, name: str, text: str) -> None:
        """Add a reason to refuse one of the schedule's own arguments."""
        self.report.problem(f"{_KWARGS}.{name}", text)

    def build(self, schema: Callable[..., Schedule], names: Mapping[str, str], **fields: Any) -> Schedule | None:
        """Construct a schedule, whose fields have other names in the arguments."""
        given = {"initial_learning_rate": "learning_rate", "learning_rate": "learning_rate", **names}
        return self.report.build(schema, fields, "", given)  # pyright: ignore[reportArgumentType] # a class

    def warm_up(self, after: Schedule | float | None, start: float = 0.0, steps: int | None = None) -> Any:
        """Return a schedule with the warm-up before it."""
        steps = self.warmup_steps if steps is None else steps
        if after is None or steps <= 0:
            return after
        return self.build(LinearWarmup, {}, after=after, warmup_steps=steps, warmup_learning_rate=start)


def _linear(asked: Asked) -> Any:
    return asked.warm_up(
        asked.build(
            PolynomialDecay,
            {},
            initial_learning_rate=asked.peak,
            decay_steps=asked.steps_after,
            end_learning_rate=0.0,
            offset=asked.warmup_steps,
        )
    )


def _cosine(asked: Asked) -> Any:
    return asked.warm_up(_waves(asked, asked.steps_after, asked.warmup_steps, 0.0))


def _waves(asked: Asked, steps: int, offset: int, lowest: float) -> Schedule | None:
    """Return a cosine of ``num_cycles`` waves, each of which falls to a part of the peak and rises again."""
    cycles = asked.number("num_cycles", 0.5)
    if not 0 < cycles <= _MAX_CYCLES:
        asked.problem("num_cycles", f"must be greater than 0, and at most {_MAX_CYCLES}, got {shorten(cycles)}")
        return None
    half = _whole(steps / (2 * cycles))
    if half is None:
        text = f"makes each half wave {steps / (2 * cycles):.10g} of the {steps} steps after the warm-up long, which is"
        asked.problem("num_cycles", f"{text} not a whole number: choose another number of steps or of cycles")
        return None
    names = {"alpha": f"{_KWARGS}.min_lr_rate"}
    if half >= steps:
        fields = {"initial_learning_rate": asked.peak, "decay_steps": half, "alpha": lowest, "offset": offset}
        return asked.build(CosineDecay, names, **fields)
    turns = range(math.ceil(steps / half) + 1)
    values = [asked.peak * (lowest if turn % 2 else 1) for turn in turns]
    return asked.build(StepCosineDecay, {}, boundaries=[half * turn for turn in turns], values=values, offset=offset)


def _cosine_with_restarts(asked: Asked) -> Any:
    cycles = asked.number("num_cycles", 1)
    steps, offset = asked.steps_after, asked.warmup_steps
    period = _whole(steps / cycles) if 0 < cycles <= _MAX_CYCLES else None
    if period is None:
        text = f"must divide the {steps} steps after the warm-up into periods of whole steps, got {shorten(cycles)}"
        asked.problem("num_cycles", f"{text}: choose another number of steps or of cycles")
        return None
    if period >= steps:
        fields = {"initial_learning_rate": asked.peak, "decay_steps": period, "offset": offset}
        return asked.warm_up(asked.build(CosineDecay, {}, **fields))
    late = [start for start in range(period, steps, period) if (cycles * (start / steps)) % 1.0 > 0.5]
    if late:
        places = join_words(str(offset + start) for start in late)
        text = f"rounding makes the rate 0 in transformers at the first steps of periods {places}; here it restarts"
        asked.report.note(f"{_KWARGS}.num_cycles", text, surprising=True)
    fields = {"initial_learning_rate": asked.peak, "first_decay_steps": period, "t_mul": 1.0, "offset": offset}
    return asked.warm_up(asked.build(CosineDecayRestarts, {}, **fields))


def _polynomial(asked: Asked) -> Any:
    end, power = asked.number("lr_end", 1e-7), asked.number("power", 1.0)
    if not end < asked.peak:
        asked.problem("lr_end", f"must be less than learning_rate = {asked.peak}, got {end}, as in transformers")
        return None
    names = {"end_learning_rate": f"{_KWARGS}.lr_end", "power": f"{_KWARGS}.power"}
    fields = {"initial_learning_rate": asked.peak, "decay_steps": asked.steps_after, "offset": asked.warmup_steps}
    return asked.warm_up(asked.build(PolynomialDecay, names, **fields, end_learning_rate=end, power=power))


def _constant(asked: Asked) -> Any:
    if asked.warmup_steps > 0:
        text = f"has no effect, as in transformers: {asked.warmup_steps} steps of warm-up need 'constant_with_warmup'"
        asked.report.note("warmup_steps", text, surprising=True)
    return asked.peak


def _constant_with_warmup(asked: Asked) -> Any:
    return asked.warm_up(asked.peak)


def _inverse_sqrt(asked: Asked) -> Any:
    timescale = asked.number("timescale", asked.warmup_steps or 10_000)
    if timescale < 1 or timescale != int(timescale):
        asked.problem("timescale", f"must be a whole number of steps, at least 1, got {shorten(timescale)}")
        return None
    fields = {
        "initial_learning_rate": asked.peak * math.sqrt(timescale),
        "power": -0.5,
        "offset": asked.warmup_steps - int(timescale),
        "pre_offset_learning_rate": asked.peak,
    }
    return asked.warm_up(asked.build(PowerDecay, {}, **fields))


def _lowest_rate(asked: Asked) -> float | None:
    """Return the lowest rate as a part of the peak, which one of two arguments gives."""
    rate, ratio = asked.number("min_lr"), asked.number("min_lr_rate")
    if (rate is None) == (ratio is None):
        asked.problem("min_lr", "exactly one of min_lr and min_lr_rate must be given, as in transformers")
        return None
    ratio = ratio if rate is None else rate / asked.peak if asked.peak else 0.0
    if not 0 <= ratio <= 1:
        asked.problem("min_lr", f"must be between 0 and learning_rate = {asked.peak}, got {ratio * asked.peak:.10g}")
        return None
    return ratio


def _cosine_with_min_lr(asked: Asked) -> Any:
    lowest = _lowest_rate(asked)
    return None if lowest is None else asked.warm_up(_waves(asked, asked.steps_after, asked.warmup_steps, lowest))


def _cosine_warmup_with_min_lr(asked: Asked) -> Any:
    """Return a warm-up and a cosine that are both one step ahead of the others'."""
    lowest, start = _lowest_rate(asked), asked.number("warmup_lr_rate")
    if lowest is None:
        return None
    after = _waves(asked, asked.steps_after, asked.warmup_steps - 1, lowest)
    steps = asked.warmup_steps
    if start is None:
        return asked.warm_up(after, asked.peak / max(steps, 1), steps - 1)
    return asked.warm_up(after, asked.peak * start, max(steps - 1, 1) if steps else 0)


def _warmup_stable_decay(asked: Asked) -> Any:
    decay, ratio = asked.number("num_decay_steps"), asked.number("min_lr_ratio", 0.0)
    kinds = {name: asked.kwargs.get(name) or kind for name, kind in _WSD_KINDS.items()}
    if decay is None:
        asked.problem("num_decay_steps", "is missing")
        return None
    stable = asked.number("num_stable_steps", (asked.total_steps or 0) - asked.warmup_steps - decay)
    if stable < 0:
        asked.problem("num_decay_steps", f"must leave steps after the {asked.warmup_steps} of warm-up, got {decay}")
    for name, kind in kinds.items():
        known = ("linear", "cosine") if name == "warmup_type" else ("linear", "cosine", "1-sqrt")
        if kind not in known:
            asked.problem(name, f"must be one of {join_words(known)}, got {shorten(kind)}, which no schedule here has")
    if asked.number("num_cycles", 0.5) != 0.5:
        asked.problem("num_cycles", "must be 0.5, one fall: the rate would jump at the end of the decay")
    if asked.report.problems:
        return None
    start, peak, names = asked.warmup_steps, asked.peak, _WSD_NAMES
    if ratio > 0 and start > 0:
        text = "the warm-up starts at this part of learning_rate, as in transformers 5; before, it started at 0"
        asked.report.note(f"{_KWARGS}.min_lr_ratio", text, surprising=True)
    if kinds["warmup_type"] == "cosine" and start > 0:
        if kinds["decay_type"] != "cosine":
            asked.problem("warmup_type", "'cosine' can be had with a decay_type of 'cosine' only")
            return None
        steps = {0: ratio * peak, start: peak, start + stable: peak, start + stable + decay: ratio * peak}
        return asked.build(StepCosineDecay, names, boundaries=list(steps), values=list(steps.values()))
    return asked.build(
        WarmupStableDecay,
        names,
        learning_rate=peak,
        warmup_steps=start,
        stable_steps=stable,
        decay_steps=decay,
        decay_type=kinds["decay_type"],
        warmup_learning_rate=ratio * peak if start > 0 else 0.0,
        end_learning_rate=ratio * peak,
    )


_WSD_KINDS = {"warmup_type": "linear", "decay_type": "cosine"}
_WSD_NAMES = {
    "decay_steps": f"{_KWARGS}.num_decay_steps",
    "decay_type": f"{_KWARGS}.decay_type",
    "end_learning_rate": f"{_KWARGS}.min_lr_ratio",
    "stable_steps": f"{_KWARGS}.num_stable_steps",
    "warmup_learning_rate": f"{_KWARGS}.min_lr_ratio",
}


@dataclasses.dataclass(frozen=True)
class _Kind:
    build: Callable[[Asked], Any]
    kwargs: tuple[str, ...] = ()
    needs_total: bool = True


KINDS: dict[str, _Kind] = {
    "linear": _Kind(_linear),
    "cosine": _Kind(_cosine, ("num_cycles",)),
    "cosine_with_restarts": _Kind(_cosine_with_restarts, ("num_cycles",)),
    "polynomial": _Kind(_polynomial, ("lr_end", "power")),
    "constant": _Kind(_constant, needs_total=False),
    "constant_with_warmup": _Kind(_constant_with_warmup, needs_total=False),
    "inverse_sqrt": _Kind(_inverse_sqrt, ("timescale",), needs_total=False),
    "cosine_with_min_lr": _Kind(_cosine_with_min_lr, ("num_cycles", "min_lr", "min_lr_rate")),
    "cosine_warmup_with_min_lr": _Kind(
        _cosine_warmup_with_min_lr, ("num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate")
    ),
    "warmup_stable_decay": _Kind(
        _warmup_stable_decay, ("num_decay_steps", "num_stable_steps", "min_lr_ratio", "num_cycles", *_WSD_KINDS)
    ),
}


def build_schedule(name: str, asked: Asked) -> Schedule | float:
    """Return the schedule of a name, with its warm-up; a placeholder where there is a problem.

    Args:
      name: One of `KINDS`.
      asked: What it is asked for.

    Returns:
      A schedule, or the rate if it is constant.
    """
    kind = KINDS[name]
    if asked.kwargs and name in ("constant", "constant_with_warmup"):  # which transformers does not give any
        asked.report.note(_KWARGS, f"has no effect on {name!r}, as in transformers", surprising=True)
        asked = dataclasses.replace(asked, kwargs={})
    for given in asked.kwargs:
        if given not in kind.kwargs:
            accepted = f", accepted: {join_words(kind.kwargs)}" if kind.kwargs else ", which takes none"
            asked.problem(given, f"is not an argument of {name!r}{did_you_mean(given, kind.kwargs)}{accepted}")
    if asked.report.problems:
        return PLACEHOLDER_RATE
    rate = kind.build(asked)
    return PLACEHOLDER_RATE if rate is None else rate


def _whole(steps: float) -> int | None:
    """Return a number of steps that is whole but for rounding."""
    nearest = round(steps)
    return nearest if nearest > 0 and abs(steps - nearest) <= 1e-9 * nearest else None
