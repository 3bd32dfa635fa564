"""What docs/trust.md and the benchmarks' results point at is there, and what they show runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRUST = ROOT / "docs" / "trust.md"


@pytest.mark.parametrize("page", [TRUST, ROOT / "benchmarks" / "RESULTS.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


def test_every_row_of_the_table_has_its_proof():
    table = TRUST.read_text().split("\n## ")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")][1:]
    assert len(rows) >= 10
    assert all(row.endswith((") |", "the same |")) for row in rows)


def test_the_example_reports_what_it_says(capsys):
    (example,) = re.findall(r"^```python\n(.*?)^```$", TRUST.read_text(), re.MULTILINE | re.DOTALL)
    exec(compile(example, str(TRUST), "exec"), {})
    assert f"# {capsys.readouterr().out.strip()}" in example
