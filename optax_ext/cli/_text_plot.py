"""A plot in the terminal, made of plain characters."""

from collections.abc import Sequence

import numpy as np

from optax_ext.cli._curves import Curve, extent
from optax_ext.cli._scale import number_in_words, scale_of

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
    labelled = (0, _HEIGHT // 2, _HEIGHT) if scale.low is None else range(0, _HEIGHT + 1, _HEIGHT // 4)
    labels = {row: number_in_words(float(f"{scale.rate(1 - row / _HEIGHT):.2g}")) for row in labelled}
    labels[0] = number_in_words(scale.top)
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
    else:
        lines.insert(0, f"{'':>{margin}}  {curves[0].name}: learning rate over steps")
    return "".join(f"{line.rstrip()}\n" for line in lines)


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
