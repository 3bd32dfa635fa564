"""The vertical axis of a plot: linear, or logarithmic where much of it would be flat at the bottom otherwise."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from optax_ext.cli._curves import Curve, extent

_LOW = 0.02  # of the highest rate; a curve below it cannot be told from 0 on a linear axis
_MUCH = 0.25  # of the steps of a curve
_END = 0.02  # of the steps of a curve, which may be lower than the axis shows apart: a decay to 0 passes all decades
_MOST_DECADES = 12
_ZERO = 0.5  # of a decade, between 0 and the lowest power of ten


class Scale(NamedTuple):
    """Where rates are on the vertical axis.

    Attributes:
      top: The highest rate; positive.
      low: The power of ten from which on the axis is logarithmic, and linear down to 0; None for a linear axis.
    """

    top: float
    low: float | None

    def fraction(self, rates: np.ndarray) -> np.ndarray:
        """Return where rates are, from 0 at the bottom to 1 at the highest rate."""
        if self.low is None:
            return rates / self.top
        above = np.log10(np.maximum(rates, self.low) / self.low) + _ZERO
        decades = math.log10(self.top / self.low) + _ZERO
        return np.where(rates < self.low, rates / self.low * _ZERO, above) / decades

    def decades(self) -> list[float]:
        """Return 0 and the powers of ten on a logarithmic axis, every second one or fewer where they are many."""
        if self.low is None:
            return []
        first, last = round(math.log10(self.low)), math.floor(math.log10(self.top * 1.01))
        return [0.0, *(10.0**power for power in range(first, last + 1, 1 + (last - first) // 7))]

    @property
    def linear_decades(self) -> float:
        """How long the linear part of a logarithmic axis is."""
        return _ZERO


def scale_of(curves: Sequence[Curve]) -> Scale:
    """Return the axis that shows all curves.

    It is logarithmic where some curve spends a quarter of its steps or more at positive rates that are less than a
    fiftieth of the highest rate of all.
    """
    _, top = extent(curves)
    lows: list[float] = []
    is_logarithmic = False
    for curve in curves:
        # By steps, of which the points of a curve are few, and more where it turns.
        every = np.linspace(0, curve.steps[-1], 1000)
        rates = np.interp(every, curve.steps, np.nan_to_num(curve.rates, nan=0.0, posinf=0.0, neginf=0.0))
        positive = rates[rates > 0]
        if (rates < 0).any():
            return Scale(top, None)
        if len(positive):
            is_logarithmic |= bool(((rates > 0) & (rates < _LOW * top)).mean() >= _MUCH)
            lows.append(float(np.quantile(positive, _END)))
    if not is_logarithmic:
        return Scale(top, None)
    decade = max(math.floor(math.log10(min(lows)) + 1e-6), math.ceil(math.log10(top)) - _MOST_DECADES)
    return Scale(top, 10.0**decade)


def number_in_words(number: float, smallest: float = 1e-3) -> str:
    """Return a number as recipes have it: 0.001, but 5e-5 rather than 0.00005 or 5e-05.

    Args:
      number: The number.
      smallest: From which size on it is written without an exponent.
    """
    number = float(f"{number:.4g}")  # of 0.001 in float32, 0.001
    if number == 0 or smallest <= abs(number) < 1e6:
        return f"{number:,.0f}" if abs(number) >= 1e3 else np.format_float_positional(number, trim="-")
    mantissa, exponent = f"{number:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
