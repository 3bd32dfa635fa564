"""docs/benchmarks.md: its numbers, and those of its chart, are those of benchmarks/RESULTS.md."""

import re
from pathlib import Path

import pytest

from docs.draw import benchmarks as drawn

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
TEXT = re.sub(r"\s+", " ", PAGE.read_text())
CPU, H100, BFLOAT16 = drawn.COLUMNS


def ratio(column, base, name):
    return f"{drawn.ratios(column, base)[name][0]:.1f}"


@pytest.mark.parametrize("column", drawn.COLUMNS)
@pytest.mark.parametrize("base", drawn.FAMILIES)
def test_ratios_are_those_of_the_results(column, base):
    """RESULTS.md has ratios of its own, of medians that are not rounded, and of another row for what wraps LARS."""
    found = [
        line for line in drawn.RESULTS.read_text().splitlines() if line.startswith("| ") and f" of {base} |" in line
    ]
    stated = {(line.split(" | ")[0].strip("| "), float(line.split(" | ")[3].split()[0])) for line in found}
    rows = {name: row for name, row in drawn.ratios(column, base).items() if row is not None}
    assert len(rows) >= 2
    for name, (value, copies) in rows.items():
        if name in {of for of, _ in stated}:
            assert any(of == name and value == pytest.approx(said, abs=0.01) for of, said in stated), name
        assert 0 <= copies < 5


def test_only_bfloat16_on_a_gpu_has_rows_that_were_not_measured():
    for base in drawn.FAMILIES:
        assert None not in [*drawn.ratios(CPU, base).values(), *drawn.ratios(H100, base).values()]


def test_the_page_says_these_numbers():
    adamw, sgd = drawn.FAMILIES
    scaled, checked = "loss-scaled optax.adamw", "apply_if_finite(optax.adamw)"
    others = [value for name, value in drawn.ratios(CPU, adamw).items() if name != scaled]
    times, copies = ([f"{pick(row[part] for row in others):.1f}" for pick in (min, max)] for part in (0, 1))
    wrapped, lars, theirs = (
        [ratio(column, base, name) for column in (H100, BFLOAT16)]
        for base, name in ((adamw, scaled), (sgd, "optax_ext.lars"), (sgd, "optax.lars"))
    )
    for words in (
        f"loss scaling takes {ratio(CPU, adamw, scaled)} of the time of `optax.adamw`",
        f"takes {times[0]} to {times[1]} and keeps {copies[0]} to {copies[1]} copies",
        f"LARS takes {ratio(CPU, sgd, 'optax_ext.lars')} of the time of `optax.sgd` with momentum, "
        f"and that of Optax {ratio(CPU, sgd, 'optax.lars')}.",
        f"{lars[0]} to {theirs[0]}.",
        f"{wrapped[0]} of `optax.adamw` in float32, where they take {ratio(H100, adamw, checked)}",
        f"{wrapped[1]} in bfloat16, where `apply_if_finite` takes {ratio(BFLOAT16, adamw, checked)}",
        f"loss-scaled AdamW takes {wrapped[0]} in float32 and {wrapped[1]} in bfloat16",
        f"LARS takes {lars[0]} and {lars[1]} here, {theirs[0]} and {theirs[1]} in Optax",
    ):
        assert words in TEXT
    extra = {
        column: next(table[scaled].time - table[adamw].time for table in drawn.tables(*drawn.COLUMNS[column]))
        for column in (H100, BFLOAT16)
    }
    assert f"{extra[H100]:.1f} ms a step in float32 and {extra[BFLOAT16]:.1f} ms in bfloat16" in TEXT


def test_the_chart_has_a_bar_for_each_row():
    figure = drawn.draw(False)
    bars = [bar.get_width() for axes in figure.axes for bar in axes.patches]
    rows = [row for base in drawn.FAMILIES for column in drawn.COLUMNS for row in drawn.ratios(column, base).values()]
    assert bars == [row[0] for row in rows if row is not None]
