"""A plot as a picture, drawn by matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from optax_ext.cli._curves import Curve
from optax_ext.cli._errors import CommandError, need
from optax_ext.cli._scale import number_in_words, scale_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.")
_GAPS = (0, (4, 4))
_ABOVE = 8  # curves whose names have room above them
_IN_A_ROW = 80  # characters of names beside each other
_SIZE = (7.6, 4.2)  # inches, with 200 pixels each


class Theme(NamedTuple):
    """The colors of a picture.

    Attributes:
      ink: Of text.
      paper: Behind all.
      lines: Behind curves.
      colors: Of curves; color-blind people can tell them apart. The light ones are Okabe and Ito's.
    """

    ink: str
    paper: str
    lines: str
    colors: tuple[str, ...]

    def settings(self) -> dict[Any, Any]:
        """Return the colors, and the sizes of text, as settings of matplotlib."""
        from cycler import cycler

        inked = ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor", "legend.labelcolor")
        lined = ("axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
        return (
            dict.fromkeys(inked, self.ink)
            | dict.fromkeys(lined, self.lines)
            | dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), self.paper)
            | {
                "axes.axisbelow": True,
                "axes.labelsize": 9.5,
                "axes.prop_cycle": cycler(color=self.colors),
                "axes.spines.right": False,
                "axes.spines.top": False,
                "axes.titlelocation": "left",
                "axes.titlesize": 10.5,
                "axes.titleweight": "bold",
                "figure.constrained_layout.use": True,
                "figure.constrained_layout.w_pad": 0.08,
                "figure.constrained_layout.h_pad": 0.06,
                "figure.dpi": 200,
                "font.size": 10,
                "grid.linewidth": 0.6,
                "legend.fontsize": 9,
                "legend.frameon": False,
                "lines.linewidth": 1.8,
                "savefig.dpi": "figure",
                "xtick.labelsize": 9,
                "ytick.labelsize": 9,
            }
        )


LIGHT = Theme("#24292f", "#ffffff", "#d8dee4", ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"))
DARK = Theme("#c9d1d9", "#0d1117", "#30363d", ("#58a6ff", "#ff9e64", "#2fc49a", "#e39ac6", "#f0c54c", "#a5d3f5"))


def save_picture(
    curves: Sequence[Curve], output: str, *, command: str = "plot", mark: int | None = None, dark: bool = False
) -> None:
    """Draw curves over each other and save the picture in the format of its suffix, or as PNG without one.

    Args:
      curves: At least one.
      output: The name of the file.
      command: The command that draws, for errors.
      mark: A step at which to draw a vertical line; None for none.
      dark: Whether the picture is for a dark page.
    """
    need(f"{command} -o", "matplotlib")
    if Path(output).is_dir():
        example = Path(output) / "rates.png"
        raise CommandError(f"{output}: is a folder; give the name of a file, such as {example}", status=2)
    try:
        draw_curves(curves, mark=mark, dark=dark).savefig(output)
    except OSError as error:
        raise CommandError(f"{output}: cannot be written: {error.strerror}") from None
    except ValueError as error:  # a suffix that is not a picture format
        raise CommandError(f"{output}: {error}", status=2) from None


def draw_curves(
    curves: Sequence[Curve], *, mark: int | None = None, dark: bool = False, size: tuple[float, float] = _SIZE
) -> "Figure":
    """Draw curves over each other, with their names above them, or beside them where they are many.

    Args:
      curves: At least one.
      mark: A step at which to draw a vertical line; None for none.
      dark: Whether the picture is for a dark page.
      size: Width and height in inches; more of both where names need it.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    theme = DARK if dark else LIGHT
    width, height = size
    is_beside = len(curves) > _ABOVE
    columns = max(_IN_A_ROW // max(len(_label(curve)) for curve in curves), 1)
    rows = -(-len(curves) // columns)
    columns = -(-len(curves) // rows)  # as few as these rows need
    if is_beside:
        width, height = 1.5 * width, max(height, 0.2 * len(curves) + 0.5)
    else:
        height += 0.2 * (rows - 1)
    with rc_context(theme.settings()):
        figure = Figure(figsize=(width, height))
        axes = figure.add_subplot()
        for number, curve in enumerate(curves):
            color = theme.colors[number % len(theme.colors)]
            style = _STYLES[number // len(theme.colors) % len(_STYLES)]
            if any(curve.is_on(earlier) for earlier in curves[:number]):
                style = _GAPS  # which show the one below
            finite = np.where(np.isfinite(curve.rates), curve.rates, np.nan)
            marker = "o" if np.isfinite(finite).sum() == 1 else None  # no line goes through one point
            # Not clipped, so that a rate of 0 is as thick as any other.
            look: dict[str, Any] = {"linestyle": style, "marker": marker, "color": color, "clip_on": False, "zorder": 3}
            axes.plot(curve.steps, finite, label=_label(curve), **look)
        if len(curves) == 1:
            axes.set_title(_label(curves[0]))
        elif is_beside:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        else:
            figure.legend(loc="outside upper left", ncols=columns)
        _set_axes(axes, curves, mark)
        if mark is not None:
            axes.axvline(mark, color=theme.ink, linewidth=1, linestyle=(0, (2, 2)), zorder=2)
            place = (mark, 1), (4, -2)
            axes.annotate(
                f"step {mark:,}",
                *place,
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                fontsize=9,
                va="top",
            )
    return figure


def _set_axes(axes: "Axes", curves: Sequence[Curve], mark: int | None) -> None:
    """Set limits and ticks: the steps from 0 to the last one of all, and the rates from 0."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    end = max(int(curve.steps[-1]) for curve in curves) + 1  # how many steps there are, often a round number
    scale = scale_of(curves)
    room = 1.15 if mark is not None and scale.low is None else 1.05
    lowest = min(float(curve.rates[np.isfinite(curve.rates)].min(initial=0.0)) for curve in curves)
    axes.set_xlim(0, end)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("step")
    if scale.low is None:
        axes.set_ylim(room * lowest, room * scale.top)
        axes.set_ylabel("learning rate")
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    else:
        axes.set_yscale("symlog", linthresh=scale.low, linscale=scale.linear_decades * 0.9)  # 0.9 = 1 - 1 / base
        axes.set_ylim(0, scale.top * 1.3)
        axes.set_ylabel("learning rate, logarithmic")
        axes.yaxis.set_major_locator(FixedLocator(scale.decades()))
        axes.yaxis.set_minor_locator(NullLocator())
    smallest = 1e-3 if scale.low is not None or scale.top < 1e-3 else 0.0  # ticks of one axis are written alike
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: number_in_words(rate, smallest)))
    axes.grid(visible=True)


def _label(curve: Curve) -> str:
    return f"{curve.name}, peak {number_in_words(curve.peak)}"
