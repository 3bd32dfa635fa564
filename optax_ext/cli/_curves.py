"""The data of a plot: steps and their learning rates."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from optax_ext.cli._rate import Config, GroupRate, rates
from optax_ext.cli._steps import beside, milestones

_POINTS = 5000  # some for each column of a picture, so that a hundred restarts are all as high


class Curve(NamedTuple):
    """The learning rate of one config over the steps.

    Attributes:
      name: The label of the curve.
      steps: Ascending integers of shape (points,).
      rates: The learning rate at each step; float32 of the same shape.
    """

    name: str
    steps: np.ndarray
    rates: np.ndarray

    @property
    def peak(self) -> float:
        """The highest finite rate; 0 if there is none."""
        return float(self.rates[np.isfinite(self.rates)].max(initial=0.0))

    def is_on(self, other: "Curve") -> bool:
        """Return whether more than half of this curve lies on another one."""
        rates = np.interp(self.steps, other.steps, other.rates, right=np.nan)
        return bool((np.abs(rates - self.rates) <= 0.005 * max(self.peak, other.peak)).mean() > 0.5)


def curve(name: str, loaded: Config | GroupRate, run_steps: int) -> Curve:
    """Return the learning rate of a config over a run: at even intervals, and wherever it may turn or jump."""
    evenly = np.linspace(0, run_steps - 1, min(run_steps, _POINTS)).round().astype(np.int64)
    named = [step for step, _ in milestones(loaded)]
    telling = [step for step in (1, *named, *beside(named)) if 0 <= step < run_steps]
    steps = np.union1d(evenly, np.asarray(telling, np.int64))
    return Curve(name, steps, rates(loaded, steps))


def extent(curves: Sequence[Curve]) -> tuple[int, float]:
    """Return the last step and the highest rate of all curves, each replaced by 1 if it is 0."""
    return max(int(curve.steps[-1]) for curve in curves) or 1, max(curve.peak for curve in curves) or 1.0
