"""A plot in the terminal, made of plain characters."""

from collections.abc import Sequence

import numpy as np

from optax_ext.cli._curves import Curve, extent
from optax_ext.cli._scale import Scale, number_in_words, scale_of

_MARKS = "*o+x#@"
_LINE = ":"
_HEIGHT = 16  # rows of the plot itself


def text_plot(curves: Sequence[Curve], width: int, *, mark: int | None = None) -> str:
    """Draw curves as text of about 20 lines.

    Args:
      curves: At least one.
      width: Number of columns, including labels.
      mark: A step at which to draw a vertical line behind the curves; None for none.

    Returns:
      Lines that each end in a newline, without trailing blanks.
    """
    last, _ = extent(curves)
    scale = scale_of(curves)
    labels = {round(_HEIGHT * (1 - at)): rate for rate, at in _labelled(scale)} | {0: scale.top}
    labels = {row: number_in_words(rate) for row, rate in labels.items()}
    margin = max(map(len, labels.values()))
    columns = max(min(width - margin - 2, last + 1), 2)
    canvas = [[" "] * columns for _ in range(_HEIGHT + 1)]
    if mark is not None:
        for cells in canvas:
            cells[round(mark / last * (columns - 1))] = _LINE
    for number, (_, steps, rates) in enumerate(curves):
        _draw(canvas, steps / last, scale.fraction(rates), _MARKS[number % len(_MARKS)])

    lines = [f"{labels.get(row, ''):>{margin}} |{''.join(cells)}" for row, cells in enumerate(canvas)]
    end = f"{last:,}"
    lines.append(f"{'':>{margin}} +{'-' * columns}")
    lines.append(f"{'':>{margin}}  0{end:>{max(columns - 1, len(end) + 1)}}")
    if len(curves) > 1:
        lines += [f"{_MARKS[number % len(_MARKS)]:>{margin}}  {name}" for number, (name, _, _) in enumerate(curves)]
        lines += [] if mark is None else [f"{_LINE:>{margin}}  step {mark:,}"]
    title = "learning rate over steps" + (", logarithmic" if scale.low is not None else "")
    if len(curves) == 1 or scale.low is not None:
        name = f"{curves[0].name}: " if len(curves) == 1 else ""
        lines.insert(0, f"{'':>{margin}}  {name}{title}")
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _labelled(scale: Scale) -> list[tuple[float, float]]:
    """Return rates to write beside the axis, and where they are on it."""
    if scale.low is None:
        return [(scale.top / 2, 0.5), (0.0, 0.0)]
    return [(rate, float(scale.fraction(np.asarray(rate)))) for rate in scale.decades()]


def _draw(canvas: list[list[str]], x: np.ndarray, y: np.ndarray, mark: str) -> None:
    """Put a mark into each cell that the line through the points crosses; x and y are in [0, 1]."""
    shown = np.isfinite(y)
    columns = np.rint(x[shown] * (len(canvas[0]) - 1)).astype(int).tolist()
    rows = np.rint((1 - y[shown].clip(0, 1)) * (len(canvas) - 1)).astype(int).tolist()
    previous = rows[0] if rows else 0
    for column, row in zip(columns, rows, strict=True):
        low, high = sorted((row, previous))
        for between in range(low, high + 1):  # all the way from the point before, so that a jump is a line
            if between != previous or low == high:
                canvas[between][column] = mark
        previous = row
