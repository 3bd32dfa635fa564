"""The picture of docs/study_batch_size.md, of the numbers in studies/results/batch_size.json."""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from docs.draw.style import WIDTH, colors
from studies.batch_size import TITLES
from studies.results import mean_and_interval

RESULTS = Path(__file__).parents[2] / "studies" / "results" / "batch_size.json"
MARKERS = "os^Dv"


def draw(dark: bool) -> Figure:
    """Draw the mean test accuracy of each optimizer with its interval, and each seed as a dot."""
    cells = json.loads(RESULTS.read_text())["cells"]
    batches = sorted({int(cell.split()[1]) for cell in cells})
    figure = Figure(figsize=(WIDTH, 4.8))
    panel = figure.subplots()
    for place, (name, title) in enumerate(TITLES.items()):
        shift = 2 ** (0.14 * (place - 2))  # so that optimizers at the same batch size stand beside each other
        tests = [cells[f"{name} {batch}"]["test"] for batch in batches]
        means, half_widths = np.transpose([mean_and_interval(test) for test in tests])
        x, color = np.array(batches) * shift, colors(dark).colors[place]
        bars = {"capsize": 3, "elinewidth": 1.2, "linewidth": 0.9, "markersize": 5}
        ends = means - np.maximum(means - half_widths, 0.01), np.minimum(means + half_widths, 0.999) - means
        panel.errorbar(x, means, ends, marker=MARKERS[place], color=color, label=title, **bars)
        for position, test in zip(x, tests, strict=True):
            panel.plot([position] * len(test), test, ".", color=color, alpha=0.5, markersize=5, markeredgewidth=0)
    panel.set_xscale("log", base=2)
    panel.set_xticks(batches, [f"{batch:,}" for batch in batches])
    panel.minorticks_off()
    panel.set_xlabel("batch size, of 16,384 examples")
    panel.set_yscale("logit")
    panel.set_ylim(0.085, 0.978)
    panel.set_yticks([0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.97])
    panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panel.minorticks_off()
    panel.set_title("Test accuracy after 10 epochs: mean, 95 % interval, and each of 8 seeds")
    panel.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
