"""docs/stacked_layers.md: its recipe, shapes and code give what it shows."""

import re
from pathlib import Path

import yaml

from optax_ext import config
from optax_ext.cli import main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "stacked_layers.md"
FOUND = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
BLOCKS = dict(FOUND)


def test_describe_prints_what_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    Path("recipe.yaml").write_text(BLOCKS["yaml"])
    Path("shapes.json").write_text(BLOCKS["json"])
    program, *arguments = BLOCKS["console"].removeprefix("$ ").split()
    assert program == "optax-ext"
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for table in BLOCKS["text"].split("...\n"):
        assert table.strip() in printed


def test_the_code_says_what_the_recipe_says():
    names = {}
    for code in [text for language, text in FOUND if language == "python"]:
        exec(compile(code, PAGE.name, "exec"), names)
    assert config.from_dict(yaml.safe_load(BLOCKS["yaml"])).optimizer.layer_axes() == names["axes"]
