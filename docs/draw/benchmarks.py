"""The chart of docs/benchmarks.md, of the numbers in benchmarks/RESULTS.md."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from docs.draw.style import WIDTH, colors

RESULTS = Path(__file__).parents[2] / "benchmarks" / "RESULTS.md"
COLUMNS = {  # the section of RESULTS.md, and how the titles of its tables begin
    "2 CPU cores, float32": ("CPU", "ResNet-50, float32"),
    "H100, float32": ("H100", "ResNet-50, float32"),
    "H100, bfloat16": ("H100", "ResNet-50, bfloat16"),
}
FAMILIES = {  # the bare optimizer, and what is held against it
    "optax.adamw": [
        "loss-scaled optax.adamw",
        "apply_if_finite(optax.adamw)",
        "mpx + optax.adamw",
        "jmp + optax.adamw",
        "DynamicScale + optax.adamw",
    ],
    "optax.sgd": [
        "optax_ext.lars",
        "optax.lars",
        "loss-scaled optax_ext.lars",
        "apply_if_finite(optax.lars)",
        "DynamicScale + optax.lars",
    ],
}
OURS = ("loss-scaled", "optax_ext")


class Row(NamedTuple):
    """A row of a table: the median time of a step in milliseconds, and how many copies of the parameters are kept."""

    time: float
    copies: float


def tables(section: str, title: str) -> list[dict[str, Row]]:
    """Return the rows of each table of a section of RESULTS.md by their names, of the tables whose titles begin so."""
    (text,) = re.findall(rf"^## {section}\n(.*?)^## ", RESULTS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    found = []
    for table in text.split("\n\n"):
        if not table.startswith(f"| {title}"):
            continue
        head, _, *lines = ([cell.strip() for cell in line.split(" | ")] for line in table.strip().splitlines())
        place = next(place for place, name in enumerate(head) if name.startswith("temporaries"))
        found.append({line[0].strip("| "): Row(float(line[1]), float(line[place])) for line in lines})
    return found


def ratios(column: str, base: str) -> dict[str, tuple[float, float] | None]:
    """Return the time of each row of a family over that of the bare optimizer in the same table, and its copies."""
    result: dict[str, tuple[float, float] | None] = {}
    for name in FAMILIES[base]:
        pairs = [(table[name], table[base]) for table in tables(*COLUMNS[column]) if {name, base} <= table.keys()]
        result[name] = (pairs[0][0].time / pairs[0][1].time, pairs[0][0].copies) if pairs else None
    return result


def draw(dark: bool) -> Figure:
    """Draw bars: how many times as long a step takes as one of the bare optimizer."""
    theme = colors(dark)
    others = "#8c959f" if not dark else "#6e7681"
    figure = Figure(figsize=(WIDTH, 4.4))
    grid = figure.subplots(2, 3, sharex="col", sharey="row", width_ratios=[1.5, 1.05, 0.95])
    for panels, base in zip(grid, FAMILIES, strict=True):
        for panel, column in zip(panels, COLUMNS, strict=True):
            rows = ratios(column, base)
            for place, (name, row) in enumerate(rows.items()):
                if row is None:
                    panel.text(1.15, place, "not measured", va="center", fontsize=8.5, alpha=0.7)
                    continue
                ratio, copies = row
                is_ours = name.startswith(OURS)
                panel.barh(place, ratio, height=0.62, color=theme.colors[0] if is_ours else others)
                kept = f"  + {copies:.1f} copies" if copies >= 0.05 else ""
                weight = "bold" if is_ours else "normal"
                panel.text(ratio + 0.1, place, f"{ratio:.1f}{kept}", va="center", fontsize=8.5, weight=weight)
            _set_axes(panel, list(rows), base, theme)
    for panel, column in zip(grid[0], COLUMNS, strict=True):
        panel.set_title(column, fontsize=10)
    figure.supxlabel(
        "time of an optimizer step over that of the bare optimizer (dashed), and copies of parameters kept; ResNet-50",
        fontsize=9,
    )
    figure.align_ylabels(grid[:, 0])
    return figure


def _set_axes(panel: Any, names: list[str], base: str, theme: Any) -> None:
    panel.axvline(1, color=theme.ink, linewidth=1, linestyle=(0, (3, 2)), zorder=3)
    panel.set_yticks(range(len(names)), [name.replace("loss-scaled ", "loss-scaled\n") for name in names])
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.set_xlim(0, 8.4 if panel.get_subplotspec().is_first_col() else 5.4)
    panel.set_xticks([])
    panel.tick_params(length=0)
    panel.spines[["left", "bottom"]].set_visible(False)
    if panel.get_subplotspec().is_first_col():
        panel.set_ylabel(f"over {base}", fontsize=9)
