"""The picture at the top of the README: the training of examples/train_digits.py, with skipped steps and without."""

import functools
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from docs.draw.style import LIGHT

PIXELS, PIXELS_PER_INCH = (1200, 780), 150
CARD, BORDER, FAINT = "#fcfcfd", "#d0d7de", "#59636e"
OURS, THEIRS = LIGHT.colors[:2]
AT = 115  # the step whose batch is NaN
NAN_LEVEL = 30.0  # where a loss of NaN is drawn, above all others


@functools.cache
def _runs() -> tuple[Any, Any]:
    from examples import train_digits  # imports much

    data = train_digits.load_data()
    run = functools.partial(train_digits.train, data, nan_steps=[AT])
    return tuple(run(*train_digits.load_optimizer(train_digits.RECIPE, skip=skip)) for skip in (True, False))


def draw(dark: bool) -> Figure:
    """Train twice, and draw the loss of both and the loss scale, on a card that stands out on any page."""
    del dark
    ours, theirs = _runs()
    steps = np.arange(len(ours.history.loss))

    figure = Figure(figsize=[pixels / PIXELS_PER_INCH for pixels in PIXELS], dpi=PIXELS_PER_INCH, layout="none")
    figure.set_facecolor("none")
    _draw_card(figure)
    loss, scale = figure.subplots(2, sharex=True, height_ratios=[3.1, 1])
    figure.subplots_adjust(left=0.105, right=0.965, top=0.795, bottom=0.105, hspace=0.3)
    figure.text(0.035, 0.945, "One batch of NaN in float16 training", fontsize=14, weight="bold", va="top")
    what = (
        f"Handwritten digits, LARS, {len(steps)} steps; the batch of step {AT} is NaN. Accuracy is on 360 test images."
    )
    figure.text(0.035, 0.885, what, fontsize=10, color=FAINT, va="top")

    _draw_loss(loss, ours, theirs, steps)
    _draw_scale(scale, ours, steps)
    for panel in (loss, scale):
        panel.set_facecolor(CARD)
        panel.set_xlim(0, len(steps))
        panel.minorticks_off()
        panel.grid(axis="y")
        panel.tick_params(length=0)
        panel.axvline(AT, color=FAINT, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
    return figure


def _draw_card(figure: Figure) -> None:
    """Draw a sheet with round corners over the whole figure, whose corners stay transparent."""
    width, height = PIXELS
    card = FancyBboxPatch(
        (3, 3), width - 6, height - 6, boxstyle="round,pad=0,rounding_size=22", facecolor=CARD, edgecolor=BORDER
    )
    card.set(transform=None, linewidth=1.5)  # in pixels
    figure.add_artist(card)
    card.set_zorder(-1)


def _draw_loss(panel: Any, ours: Any, theirs: Any, steps: Any) -> None:
    of_theirs = np.where(np.isfinite(theirs.history.loss), theirs.history.loss, NAN_LEVEL)
    panel.semilogy(steps, of_theirs, color=THEIRS, linewidth=2.6, alpha=0.75, solid_joinstyle="round")
    panel.semilogy(steps, ours.history.loss, color=OURS, linewidth=1.7)
    panel.plot([AT], [NAN_LEVEL], "o", color=OURS, markersize=6, markeredgecolor=CARD, zorder=4)
    panel.set_ylim(1.5e-4, NAN_LEVEL * 1.5)
    panel.set_yticks([1e-3, 1e-2, 1e-1, 1, NAN_LEVEL], ["0.001", "0.01", "0.1", "1", "NaN"])
    panel.set_title("training loss", fontsize=10)
    bold = {"fontsize": 10, "weight": "bold"}
    right = {"ha": "right", "va": "top"}
    accuracy = [f"{result.test_accuracies[-1]:.1%}".replace("%", " %") for result in (ours, theirs)]
    panel.text(218, NAN_LEVEL * 0.5, "fixed loss scale, nothing skipped", color=THEIRS, **bold, **right)
    panel.text(218, NAN_LEVEL * 0.18, f"NaN from there on, accuracy {accuracy[1]}", color=THEIRS, fontsize=9.5, **right)
    panel.text(218, 0.75, "dynamic_loss_scaling", color=OURS, **bold, **right)
    panel.text(218, 0.27, f"skips one step and goes on, accuracy {accuracy[0]}", color=OURS, fontsize=9.5, **right)


def _draw_scale(panel: Any, ours: Any, steps: Any) -> None:
    scales = ours.history.loss_scale
    panel.step(steps, scales, where="post", color=OURS, linewidth=1.7)
    panel.plot([AT], scales[[AT]], "o", color=OURS, markersize=6, markeredgecolor=CARD, zorder=4)
    overflows = ours.overflow_skips
    panel.plot(overflows, scales[overflows], "o", color=CARD, markersize=5, markeredgecolor=OURS, zorder=4)
    panel.set_yscale("log", base=2)
    panel.set_ylim(2.0**14, 2.0**22.5)
    panel.set_yticks([2.0**15, 2.0**18, 2.0**21])
    panel.set_title("loss scale: doubles while steps are finite, halves at each skip (circles)", fontsize=10)
    panel.set_xlabel("step")
