"""The picture of docs/study_float16.md, of the numbers in studies/results/float16.json."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from docs.draw.style import WIDTH, colors
from studies.float16 import LAYERS, PARTS, Arm
from studies.results import mean_and_interval

RESULTS = Path(__file__).parents[2] / "studies" / "results" / "float16.json"


def draw(dark: bool) -> Figure:
    """Draw the shares that underflow, the accuracy beside them, and the loss scale over the steps."""
    theme, found = colors(dark), json.loads(RESULTS.read_text())
    figure = Figure(figsize=(WIDTH, 7.6))
    shares, accuracy, scale = figure.subplots(3, height_ratios=[1.1, 1, 1])
    _draw_shares(shares, found, theme)
    _draw_accuracy(accuracy, found, theme)
    _draw_scale(scale, found, theme)
    return figure


def _behind(theme: Any) -> dict[str, Any]:
    """Return arguments of a legend that hides the grid behind it."""
    return {"frameon": True, "facecolor": theme.paper, "edgecolor": "none", "framealpha": 1.0}


def _set_terms(panel: Any, found: dict[str, Any]) -> None:
    terms = [found["size"]["batch_size"] * parts for parts in PARTS]
    panel.set_xscale("log", base=2)
    panel.set_xticks(terms, [f"$2^{{{round(np.log2(number))}}}$" for number in terms])
    panel.minorticks_off()
    panel.set_xlabel("terms in the mean that is the loss")
    panel.yaxis.set_major_formatter(PercentFormatter(1))
    panel.grid(axis="y")


def _draw_shares(panel: Any, found: dict[str, Any], theme: Any) -> None:
    last, size = found["size"]["epochs"], found["size"]["batch_size"]
    for kind, color, label in (
        ("outputs", theme.colors[0], "outputs of layers"),
        ("kernel", theme.colors[1], "kernels"),
    ):
        for layer in LAYERS:
            rows = {row["factor"]: row for row in found["underflow"] if row["epoch"] == last}
            values = [rows[1 / parts]["layers"][layer][kind]["zero"] for parts in PARTS]
            name = f"gradients of {label}, a line a layer" if layer == LAYERS[0] else None
            panel.plot(size * np.array(PARTS), values, ".-", color=color, linewidth=1.2, label=name)
    panel.set_title("Share of gradients that float16 makes 0 without a loss scale, at the end of training")
    panel.set_ylim(-0.03, 1.03)
    _set_terms(panel, found)
    panel.legend(loc="upper left", **_behind(theme))


def _draw_accuracy(panel: Any, found: dict[str, Any], theme: Any) -> None:
    size = found["size"]["batch_size"]
    mean, half_width = mean_and_interval(found["arms"][Arm("float32", parts=1).name]["test"])
    panel.axhspan(mean - half_width, mean + half_width, color=theme.ink, alpha=0.12, linewidth=0)
    panel.axhline(mean, color=theme.ink, linewidth=1, linestyle="--", label="float32, and its 95 % interval")
    for scaled, color, label in ((False, theme.colors[1], "without"), (True, theme.colors[2], "with")):
        arms = [arm for arm in map(_arm, found["arms"].values()) if _is_swept(arm, scaled)]
        tests = [mean_and_interval(found["arms"][arm.name]["test"]) for arm in arms]
        x = [size * arm.parts * (1.12 if scaled else 1 / 1.12) for arm in arms]
        means, half_widths = np.transpose(tests)
        bars = {"capsize": 3, "elinewidth": 1.2, "linewidth": 1.2, "markersize": 5}
        panel.errorbar(x, means, half_widths, marker="o", color=color, label=f"float16 {label} loss scaling", **bars)
    panel.set_title("Test accuracy, with parameters in float32")
    panel.set_ylim(0, 1)
    _set_terms(panel, found)
    panel.legend(loc="lower left", **_behind(theme))


def _arm(kept: dict[str, Any]) -> Arm:
    return Arm(**kept["arm"])


def _is_swept(arm: Arm, scaled: bool) -> bool:
    return (arm.compute, arm.params, arm.scaled) == ("float16", "float32", scaled)


def _draw_scale(panel: Any, found: dict[str, Any], theme: Any) -> None:
    size = found["size"]["batch_size"]
    last_step = found["size"]["epochs"] * (found["size"]["train"] // size) - 1
    arms = [arm for arm in map(_arm, found["arms"].values()) if _is_swept(arm, True)]
    for arm, color in zip(arms, (theme.colors[0], theme.colors[3]), strict=False):
        for seed, changes in enumerate(found["arms"][arm.name]["loss_scale"]):
            name = f"$2^{{{round(np.log2(size * arm.parts))}}}$ terms, a line a seed" if seed == 0 else None
            steps, exponents = np.transpose([*changes, (last_step, changes[-1][1])])
            panel.step(steps, 2.0**exponents, where="post", color=color, linewidth=1.1, alpha=0.8, label=name)
    panel.set_yscale("log", base=2)
    panel.minorticks_off()
    panel.set_title("Loss scale")
    panel.set_xlabel("step")
    panel.margins(x=0.01)
    panel.grid(axis="y")
    panel.legend(loc="upper left", **_behind(theme))
