"""Which steps to show of a learning rate: its milestones, as many as fit, and the steps beside where it turns."""

import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from optax_ext.cli._rate import LAST_STEP, Config, GroupRate, rates
from optax_ext.config import LossScale
from optax_ext.schedules import Milestone

_MAX_ROWS = 12
_OPEN_END = Milestone(1000, "")  # how far to follow a constant


class TellingStep(NamedTuple):
    """A step at which to look at the learning rate, why, and the rate there."""

    step: int
    reason: str
    rate: float


def telling_steps(loaded: Config | GroupRate, run_steps: int | None = None) -> list[TellingStep]:
    """Return at most a dozen steps at which to look at the learning rate of a config.

    Args:
      loaded: A config with a learning rate.
      run_steps: Number of steps of the run, whose last step is the last one returned; None if unknown.

    Returns:
      Steps in order: milestones, first and last, half-way, and their neighbors where the rate turns.
    """
    reasons: dict[int, list[str]] = {0: ["first step"], 1: []}
    for step, reason in milestones(loaded):
        if 0 <= step < (run_steps or LAST_STEP):
            reasons.setdefault(step, []).append(reason)
    if run_steps is not None:
        reasons.setdefault(run_steps - 1, []).append("last step")
    named = _thin_out(sorted(step for step in reasons if run_steps is None or step < run_steps))

    before, after = max(itertools.pairwise(named), key=lambda pair: pair[1] - pair[0], default=(0, 0))
    if after - before > 2 and len(named) < _MAX_ROWS:
        reasons[(before + after) // 2] = ["half-way"]
        named.append((before + after) // 2)

    looked_at = sorted({*named, *beside(named)})
    rate_at = dict(zip(looked_at, rates(loaded, looked_at).astype(float).tolist(), strict=True))
    neighbors = [step for step in _where_it_turns(named, rate_at) if run_steps is None or step < run_steps]
    shown = sorted({*named, *neighbors[: _MAX_ROWS - len(named)]})
    return [TellingStep(step, ", ".join(reasons.get(step, [])), rate_at[step]) for step in shown]


def milestones(loaded: Config | GroupRate) -> tuple[Milestone, ...]:
    """Return the milestones of a config with a learning rate; one step far from the start for a constant."""
    found = () if isinstance(loaded, LossScale) else loaded.milestones()
    return found or (_OPEN_END,)


def horizon(loaded: Config | GroupRate) -> int:
    """Return how many steps to plot: up to the last milestone, and a twentieth more."""
    last = max(step for step, _ in milestones(loaded))
    return min(math.ceil(max(last, 1) * 1.05) + 1, LAST_STEP)


def beside(steps: Iterable[int]) -> list[int]:
    """Return the steps before and after each step, except the first two steps and the last possible one."""
    return [step + way for step in steps if 1 < step < LAST_STEP for way in (-1, 1)]


def _thin_out(steps: list[int]) -> list[int]:
    """Leave out steps evenly, except the first two and the last, if there are more steps than rows."""
    if len(steps) <= _MAX_ROWS:
        return steps
    chosen = np.linspace(2, len(steps) - 1, _MAX_ROWS - 2).round().astype(int)
    return [*steps[:2], *(steps[index] for index in chosen)]


def _where_it_turns(steps: list[int], rate_at: dict[int, float]) -> list[int]:
    """Return the neighbors of steps at which the rate turns or jumps, if their rate differs."""
    found: list[int] = []
    for step in steps:
        if not 1 < step < LAST_STEP:
            continue
        before, at, after = (rate_at[step + way] for way in (-1, 0, 1))
        rise, next_rise = at - before, after - at
        if abs(next_rise - rise) > 0.1 * max(abs(next_rise), abs(rise)):  # False where a schedule is infinite
            found += [step - 1] * (before != at) + [step + 1] * (after != at)
    return [step for step in found if step not in steps]
