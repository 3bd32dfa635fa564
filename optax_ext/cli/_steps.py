"""The steps worth looking at in a learning rate: where it starts, turns, jumps and ends."""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from optax_ext.cli._rate import LAST_STEP, decay_of, rates, schedule_of
from optax_ext.schedules import (
    Constant,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    PolynomialDecay,
    PowerAndLinearDecay,
    Schedule,
)

_MAX_ROWS = 12
_REPETITIONS = 4  # how many repetitions of an endless schedule to show
_OPEN_END = 1000  # how far to follow a schedule without steps of its own


class TellingStep(NamedTuple):
    """A step at which to look at the learning rate, and why."""

    step: int
    reason: str


def telling_steps(loaded: object, run_steps: int | None = None) -> list[TellingStep]:
    """Return at most a dozen steps at which to look at the learning rate of a config.

    Args:
      loaded: A config with a learning rate.
      run_steps: Number of steps of the run, whose last step is the last one returned; None if unknown.

    Returns:
      Steps in order: those the schedule names, first and last, half-way, and their neighbors where the rate turns.
    """
    reasons: dict[int, list[str]] = {0: ["first step"], 1: []}
    for step, reason in _named_steps(loaded):
        if 0 <= step < (run_steps or LAST_STEP):
            reasons.setdefault(step, []).append(reason)
    if run_steps is not None:
        reasons.setdefault(run_steps - 1, []).append("last step")
    named = _thin_out(sorted(step for step in reasons if run_steps is None or step < run_steps))

    before, after = max(itertools.pairwise(named), key=lambda pair: pair[1] - pair[0], default=(0, 0))
    if after - before > 2 and len(named) < _MAX_ROWS:
        reasons[(before + after) // 2] = ["half-way"]
        named.append((before + after) // 2)

    neighbors = [step for step in _neighbors(loaded, named) if run_steps is None or step < run_steps]
    shown = sorted({*named, *neighbors[: _MAX_ROWS - len(named)]})
    return [TellingStep(step, ", ".join(reasons.get(step, []))) for step in shown]


def horizon(loaded: object) -> int:
    """Return how many steps to plot: up to the last named step, and a twentieth more."""
    last = max((step for step, _ in _named_steps(loaded)), default=_OPEN_END)
    return min(math.ceil(max(last, 1) * 1.05) + 1, LAST_STEP)


def _named_steps(loaded: object) -> Iterator[tuple[int, str]]:
    schedule, decay = schedule_of(loaded), decay_of(loaded)
    if decay > 0:
        yield min(round(1 / decay), LAST_STEP), "half, by decay"
    found = list(_steps_of(schedule)) if isinstance(schedule, Schedule) else []
    yield from found or ([] if decay > 0 else [(_OPEN_END, "")])


def _steps_of(schedule: Schedule) -> Iterator[tuple[int, str]]:
    """Find the steps in the fields of a schedule, ours or not, and of those inside it."""
    fields = {field.name: getattr(schedule, field.name) for field in dataclasses.fields(schedule)}
    start = fields.get("offset", 0)
    if start:
        yield start, f"offset of {schedule.type}"
    yield from _repetitions(schedule, start)
    if fields.get("warmup_steps") and fields.get("warmup_target", True) is not None:
        start += fields["warmup_steps"]  # what follows starts when it ends
        yield start, "end of warmup_steps"
    has_end = False
    for name, value in fields.items():
        if isinstance(value, Schedule):
            yield from _steps_of(value)
        elif name == "boundaries":
            yield from ((start + boundary, "boundary") for boundary in value)
        elif name.endswith("steps") and name != "warmup_steps" and isinstance(value, int | float) and value > 0:
            yield start + math.ceil(value), f"end of {name}"
        else:
            continue
        has_end = True
    if not has_end and not isinstance(schedule, Constant) and "after" not in fields:
        yield start + _OPEN_END, ""


def _repetitions(schedule: Schedule, start: int) -> Iterator[tuple[int, str]]:
    """Find the steps of repeating schedules that no field names."""
    numbers = range(2, _REPETITIONS + 1)
    match schedule:
        case ExponentialDecay() | InverseTimeDecay():
            yield from ((start + math.ceil(n * schedule.decay_steps), f"{n} x decay_steps") for n in numbers)
        case PolynomialDecay(cycle=True):
            yield from ((start + n * schedule.decay_steps, f"end of cycle {n}") for n in numbers)
        case CosineDecayRestarts():
            for n in numbers:
                periods = sum(schedule.t_mul**i for i in range(n))  # in units of the first
                yield start + math.ceil(periods * schedule.first_decay_steps), f"end of period {n}"
        case PowerAndLinearDecay(linear_decay_fraction=fraction) if 0 < fraction < 1:
            yield start + math.ceil((1 - fraction) * schedule.total_decay_steps), "start of the linear fall"
        case _:
            pass


def _thin_out(steps: list[int]) -> list[int]:
    """Leave out steps evenly, except the first two and the last, if there are more steps than rows."""
    if len(steps) <= _MAX_ROWS:
        return steps
    chosen = np.linspace(2, len(steps) - 1, _MAX_ROWS - 2).round().astype(int)
    return [*steps[:2], *(steps[index] for index in chosen)]


def _neighbors(loaded: object, steps: list[int]) -> list[int]:
    """Return the neighbors of steps at which the rate turns or jumps, if their rate differs."""
    middle = np.asarray([step for step in steps if 1 < step < LAST_STEP], np.int64)
    before, at, after = rates(loaded, np.concatenate([middle - 1, middle, middle + 1])).astype(float).reshape(3, -1)
    with np.errstate(invalid="ignore"):  # a schedule may be infinite
        turns = np.abs((after - at) - (at - before)) > 0.1 * np.maximum(np.abs(after - at), np.abs(at - before))
    found: list[int] = []
    for step, turn, earlier, now, later in zip(middle.tolist(), turns, before, at, after, strict=True):
        if turn:
            found += [step - 1] * bool(earlier != now) + [step + 1] * bool(later != now)
    return [step for step in found if step not in steps]
