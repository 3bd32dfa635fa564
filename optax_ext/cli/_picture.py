"""A plot as a picture, drawn by matplotlib."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from optax_ext.cli._curves import Curve, extent
from optax_ext.cli._errors import CommandError, need

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's: color-blind safe
_STYLES = ("-", "--", ":", "-.")
_INSIDE = 8  # curves whose names leave room for them
_INK, _PALE = "#333333", "#dddddd"


def save_picture(curves: Sequence[Curve], output: str, *, command: str = "plot", mark: int | None = None) -> None:
    """Draw curves over each other and save the picture in the format of its suffix, or as PNG without one.

    Args:
      curves: At least one.
      output: The name of the file.
      command: The command that draws, for errors.
      mark: A step at which to draw a vertical line; None for none.
    """
    need(f"{command} -o", "matplotlib")
    if Path(output).is_dir():
        example = Path(output) / "rates.png"
        raise CommandError(f"{output}: is a folder; give the name of a file, such as {example}", status=2)
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    is_beside = len(curves) > _INSIDE
    figure = Figure(figsize=(12, max(4.5, 0.22 * len(curves) + 0.5)) if is_beside else (8, 4.5), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    axes = figure.add_subplot()
    for number, curve in enumerate(curves):
        color, style = _COLORS[number % len(_COLORS)], _STYLES[number // len(_COLORS) % len(_STYLES)]
        finite = np.where(np.isfinite(curve.rates), curve.rates, np.nan)
        # Not clipped, so that a rate of 0 is as thick as any other.
        axes.plot(curve.steps, finite, style, color=color, linewidth=1.8, label=_label(curve), clip_on=False, zorder=3)
    if len(curves) == 1:
        axes.set_title(_label(curves[0]), loc="left", color=_INK)
    else:
        legend = axes.legend(labelcolor=_INK, facecolor="white", framealpha=1, edgecolor="none")
        if is_beside:
            legend.set_loc("upper left")
            legend.set_bbox_to_anchor((1, 1), axes.transAxes)

    last, top = extent(curves)
    if mark is not None:
        axes.axvline(mark, color=_INK, linewidth=1, linestyle=(0, (2, 2)), zorder=2)
        axes.annotate(
            f"step {mark:,}", (mark, 1.05 * top), (3, -3), textcoords="offset points", color=_INK, fontsize=9, va="top"
        )
    axes.set_xlim(0, last)
    axes.set_ylim(0, 1.05 * top)
    axes.set_xlabel("step", color=_INK)
    axes.set_ylabel("learning rate", color=_INK)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(color=_PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_PALE)
    axes.tick_params(color=_PALE, labelcolor=_INK)
    try:
        figure.savefig(output)
    except OSError as error:
        raise CommandError(f"{output}: cannot be written: {error.strerror}") from None
    except ValueError as error:  # a suffix that is not a picture format
        raise CommandError(f"{output}: {error}", status=2) from None


def _label(curve: Curve) -> str:
    return f"{curve.name}, peak {curve.peak:.4g}"
