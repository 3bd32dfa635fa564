"""docs/zoo.md: every recipe of examples/configs is on it, with its own batch and length, and its curves are drawn."""

import re
from pathlib import Path

import pytest
import yaml

from docs.draw import zoo

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "zoo.md"
TEXT = PAGE.read_text()
ROWS = [line.strip("| ").split(" | ") for line in TEXT.splitlines() if line.startswith("| [")]
TARGETS = sorted({target for target in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in target})


def test_every_recipe_is_there_once_and_nothing_else():
    linked = [re.fullmatch(r"\[(.*)\]\(\.\./examples/configs/(.*)\.yaml\)", row[0]).groups() for row in ROWS]
    assert all(shown == stem for shown, stem in linked)
    assert sorted(stem for _, stem in linked) == sorted(path.stem for path in (ROOT / "examples/configs").iterdir())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][1:].split("]")[0])
def test_batch_length_and_result_are_those_of_the_recipe(row):
    link, batch, length, result = row
    (target,) = re.findall(r"\((.*)\)", link)
    recipe = (PAGE.parent / target).read_text()
    run = yaml.safe_load(recipe)["run"]
    assert batch == f"{run['batch_size']:,}"
    assert length == (f"{run['epochs']:,} epochs" if "epochs" in run else f"{run['steps']:,} steps")
    comment = re.match(r"(#.*\n)+", recipe)[0]
    assert result == "none is given" or re.findall(r"\d[\d.,]*", result)
    assert all(number in comment for number in re.findall(r"\d[\d.,]*\d|\d", result))


@pytest.mark.parametrize("target", TARGETS)
def test_links_lead_somewhere(target):
    assert (PAGE.parent / target).exists()


def test_each_picture_is_shown_and_compares_recipes():
    shown = re.findall(r"^!\[.*\]\(images/(.*)\.png#gh-light-mode-only\)$", TEXT, re.MULTILINE)
    assert list(zoo.PICTURES) == shown
    for recipes in zoo.RECIPES.values():
        assert len(recipes) > 1
        assert all((zoo.CONFIGS / f"{recipe}.yaml").exists() for recipe in recipes)


def test_the_python_example_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for block in re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), {})
    decay, rate = capsys.readouterr().out.split()
    assert float(decay) == 0.05
    assert float(rate) == pytest.approx(1.5e-4 * 4096 / 256)
