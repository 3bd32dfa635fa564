"""docs/units.md: its recipe and its blocks run, and print what it says."""

import re
from pathlib import Path

import pytest

from optax_ext import config

PAGE = (Path(__file__).parents[2] / "docs" / "units.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_prints_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names, printed = {}, ""
    for language, text in BLOCKS:
        if language == "yaml":
            (tmp_path / "recipe.yaml").write_text(text)
        elif language == "python":
            exec(compile(text, "units.md", "exec"), names)
            printed = capsys.readouterr().out
        else:
            assert printed == text
    assert [language for language, _ in BLOCKS].count("text") == 3


def test_the_table_is_right():
    run = config.Run(examples=1_281_167, batch_size=4096, epochs=90)
    assert (run.total_steps(), run.in_steps("5 epochs")) == (28151, 1564)
    assert (run.in_steps("7 epochs"), run.in_steps("83 epochs")) == (2189, 25961)
    assert run.in_steps("7 epochs") + run.in_steps("100% - 7 epochs") == 28151
    for row in re.findall(r"^\| (`.*?) \| .* \| .* \|$", PAGE, re.MULTILINE):
        for words in re.findall(r"`([^`]+)`", row):
            assert run.in_steps(int(words) if words.isdigit() else words) > 0


@pytest.mark.parametrize(
    ("needs", "words"),
    [({"batch_size": 5}, "300k examples"), ({"steps_per_epoch": 3}, "5 epochs"), ({"steps": 50}, "10%")],
)
def test_what_a_duration_needs_is_enough(needs, words):
    assert config.Run(**needs).in_steps(words) > 0
