"""The README does what it says."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from optax_ext import config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def blocks(language):
    return [text for name, text in BLOCKS if name == language]


def test_the_first_block_is_the_two_commands_of_a_newcomer():
    name, text = BLOCKS[0]
    lines = text.splitlines()
    assert (name, len(lines)) == ("bash", 2)
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
    for text in blocks("python"):
        exec(compile(text, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "32768.0 True 0"
    assert printed[1].startswith("{'dense/bias': NonfiniteCounts(nan=")
    for line, shown in zip(printed[2:], blocks("text")[0].splitlines(), strict=True):
        assert line.startswith(shown.removesuffix("..."))


def test_the_yaml_recipe_loads_and_is_made():
    config.from_dict(yaml.safe_load(blocks("yaml")[0])).make()


@pytest.mark.parametrize("target", sorted({t for t in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in t}))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()
