"""The packages of optax_ext and what each imports, read from the source, for docs/inside.md."""

import ast
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from docs.draw.style import WIDTH, colors

PACKAGE = Path(__file__).parents[2] / "optax_ext"
ROOMS = {  # from the ground up: left, bottom, width, and what is in it
    "_core": (0, 0, 12, "errors, field types, exact arithmetic, trees"),
    "schedules": (0, 2, 3.6, "rates of the step"),
    "masks": (4.2, 2, 3.6, "patterns on paths"),
    "loss_scaling": (8.4, 2, 3.6, "scale, check, skip"),
    "transforms": (4.2, 4, 3.6, "LARS, LAMB, stages"),
    "config": (0, 6, 12, "recipes: one schema an optimizer, files, units"),
    "telemetry": (0, 8, 5.7, "metrics of the last step"),
    "interop": (6.3, 8, 5.7, "Keras, Model Garden, PyTorch"),
    "cli": (6.3, 10, 5.7, "optax-ext: only prints"),
}
HEIGHT = 1.3


def imports() -> dict[str, set[str]]:
    """Return the packages that each package imports."""
    found: dict[str, set[str]] = {name: set() for name in ROOMS}
    for name, names in found.items():
        for file in (PACKAGE / name).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("optax_ext"):
                    paths = [f"{node.module}.{alias.name}".split(".") for alias in node.names]
                    names |= {path[1] for path in paths if path[1] in ROOMS} - {name}
    return found


def arrows(below: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the imports that do not follow from others."""

    def reaches(start: str, end: str, without: str) -> bool:
        return any(step == end or reaches(step, end, "") for step in below[start] if step != without)

    return [(start, end) for start in below for end in below[start] if not reaches(start, end, end)]


def draw(dark: bool) -> Figure:
    """Draw a box for each package, and an arrow down to what it imports."""
    theme = colors(dark)
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(-0.2, 12.2)
    axes.set_ylim(-0.2, 11.5)
    for name, (left, bottom, width, content) in ROOMS.items():
        style = "round,pad=0,rounding_size=0.18"
        box = FancyBboxPatch((left, bottom), width, HEIGHT, style, facecolor=theme.paper, edgecolor=theme.ink)
        axes.add_patch(box)
        middle = left + width / 2
        axes.text(middle, bottom + 0.86, name, ha="center", va="center", weight="bold", family="monospace")
        axes.text(middle, bottom + 0.38, content, ha="center", va="center", size="small")
    for start, end in arrows(imports()):
        left, bottom, width, _ = min(ROOMS[start], ROOMS[end], key=lambda room: room[2])
        x = left + width / 2
        ends = (x, ROOMS[start][1] - 0.05), (x, ROOMS[end][1] + HEIGHT + 0.05)
        axes.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=11, color=theme.colors[0], lw=1.4))
    return figure
