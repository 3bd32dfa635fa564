"""The README does what it says."""

import codeop
import re
import subprocess
from pathlib import Path

import pytest
import yaml

import optax_ext
from optax_ext import config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def blocks(language):
    return [text for name, text in BLOCKS if name == language]


def test_the_first_block_is_the_two_commands_of_a_newcomer():
    text = blocks("bash")[0]
    lines = text.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("python3 -m venv .venv && .venv/bin/pip install ") for line in lines)
    assert "examples/train_digits.py" in lines[0]
    assert "pytest" in lines[1]
    assert "#" not in text


def test_ci_runs_the_commands_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    extract = script[: script.index("status=0")]
    run = subprocess.run(
        ["bash", "-c", extract + 'echo "$test_command"; echo "$checks"', ROOT / ".ci" / "run"],
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = blocks("bash")
    assert run.stdout == first.splitlines(keepends=True)[1] + second
    assert second == "scripts/check\n"


def test_the_python_examples_run_and_print_what_is_shown(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    namespace = {}
    for text, shown in zip(blocks("python"), blocks("text"), strict=True):
        exec(compile(text, "README.md", "exec"), namespace)
        for line, start in zip(capsys.readouterr().out.splitlines(), shown.splitlines(), strict=True):
            assert line.startswith(start.removesuffix("..."))


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_a_newcomer_may_paste_each_block_into_a_prompt(page):
    """Python 3.11 reads what is pasted line by line: an empty line, and nothing else, ends a statement with a body."""
    compiler = codeop.CommandCompiler()
    for text in re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
        statement: list[str] = []
        for line in text.splitlines():
            statement.append(line)
            if compiler("\n".join(statement), page, "single") is not None:  # it raises where the prompt does
                statement = []


def test_the_yaml_recipe_loads_and_is_made():
    config.from_dict(yaml.safe_load(blocks("yaml")[0])).make()


def rows(text):
    return [
        tuple(cell.strip() for cell in row.strip("|").split("|")) for row in re.findall(r"^\|.*\|$", text, re.MULTILINE)
    ]


def test_the_tables_are_rows_of_the_comparison():
    table = rows((ROOT / "docs" / "comparison.md").read_text())
    shown = rows(README)
    assert len(shown) > 15
    for row in shown:
        assert any(row[: len(whole)] == whole and not any(row[len(whole) :]) for whole in table), row


def test_the_ratios_of_lars_are_those_of_the_comparison():
    table = {row[0]: row for row in rows((ROOT / "docs" / "comparison.md").read_text().partition("\n## LARS")[2])}
    lines = README.replace("\n", " ")
    said = re.search(
        r"LARS takes (\d\.\d) .* cores, and `optax\.lars` (\d\.\d); .* takes (\d\.\d), .* (\d\.\d)\.", lines
    )
    cells = [table[name][column] for name in ("time, two CPU cores", "time, H100") for column in (1, 2)]
    assert [float(ratio) for ratio in said.groups()] == [round(float(cell), 1) for cell in cells]


def test_every_schedule_is_named():
    line = re.search(r"^- \[Schedules\].*?(?=^- )", README, re.MULTILINE | re.DOTALL)[0]
    schedules = {n for n in optax_ext.__all__ if isinstance(getattr(optax_ext, n), type(optax_ext.Schedule))}
    schedules = {n for n in schedules if issubclass(getattr(optax_ext, n), optax_ext.Schedule)} - {"Schedule"}
    assert set(re.findall(r"`(\w+)`", line)) == schedules


def test_the_zoo_is_counted():
    assert f"has {len(list((ROOT / 'examples' / 'configs').iterdir()))} recipes" in README
