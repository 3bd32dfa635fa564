"""docs/replanning.md: its recipes, commands and code give what it shows."""

import re
from pathlib import Path

import optax
import pytest

from optax_ext.cli import main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "replanning.md"
TEXT = PAGE.read_text()
FOUND = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [(said, FOUND[number + 1][1]) for number, (language, said) in enumerate(FOUND) if language == "console"]


@pytest.fixture(autouse=True)
def _recipes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for language, text in FOUND:
        if language == "yaml":
            Path(text.splitlines()[0].removeprefix("# ")).write_text(text)


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=range(len(COMMANDS)))
def test_the_command_prints_what_is_shown(command, shown, capsys):
    program, *arguments = command.removeprefix("$ ").split()
    assert program == "optax-ext"
    assert main(arguments) == 0
    assert capsys.readouterr().out == shown
    assert Path(arguments[arguments.index("-o") + 1]).stat().st_size > 10_000


def test_three_commands_and_two_blocks_of_code():
    assert len(COMMANDS) == 3
    assert [language for language, _ in FOUND].count("python") == 2


def test_the_code_sets_the_counts():
    names = {}
    first, second = (text for language, text in FOUND if language == "python")
    exec(compile(first, PAGE.name, "exec"), names)
    by_place = {repr(path): int(count) for path, count in names["counts"]}
    assert sorted(by_place.values()) == [0, 1, 8000]  # of the average, which is new, of the moments, and of the rate
    exec(compile(second, PAGE.name, "exec"), names)
    counts = [int(count) for _, count in optax.tree.get_all_with_path(names["state"], "count")]
    assert sorted(counts) == [1, 2, 6001]
    assert names["updates"]["dense"]["kernel"].shape == (4, 2)


def test_the_picture_is_small_and_the_page_is_linked():
    assert (PAGE.parent / "replanning.png").stat().st_size < 60_000
    assert "docs/replanning.md)" in (ROOT / "README.md").read_text()
