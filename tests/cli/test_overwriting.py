"""optax-ext convert replaces no file without being told, and loses nothing where it does."""

import json
import os
from pathlib import Path

import pytest

from optax_ext import cli, config

GARDEN = {
    "optimizer": {"type": "sgd"},
    "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}},
}
OURS = config.OptimizationConfig(config.SGD(0.1))


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(json.dumps(GARDEN) + "# mine\n")  # JSON is YAML
    os.symlink("recipe.yaml", "link.yaml")
    os.link("recipe.yaml", "hard.yaml")
    Path("folder").mkdir()
    os.symlink("../recipe.yaml", "folder/link.yml")


WAYS = ["recipe.yaml", "./recipe.yaml", "folder/../recipe.yaml", "link.yaml", "hard.yaml", "folder/link.yml"]


@pytest.mark.parametrize("output", [*WAYS, "absolute"])
def test_the_input_is_not_replaced_under_any_name(output, tmp_path, capsys):
    output = str(tmp_path / "recipe.yaml") if output == "absolute" else output
    before = Path("recipe.yaml").read_bytes()
    assert cli.main(["convert", "recipe.yaml", "-o", output]) == 2
    said = f"{output}: is a file that this command reads: give -o another name, or --overwrite to replace it\n"
    assert capsys.readouterr() == ("", said)
    assert Path("recipe.yaml").read_bytes() == before


@pytest.mark.parametrize("output", WAYS)
def test_it_is_replaced_when_told(output):
    assert cli.main(["convert", "recipe.yaml", "-o", output, "--overwrite"]) == 0
    assert config.load(output) == OURS
    assert Path("link.yaml").is_symlink()


def test_another_case_of_the_name_is_the_same_file_where_the_file_system_says_so(monkeypatch, capsys):
    if not Path("RECIPE.YAML").exists():  # as on Linux: let it be so
        os.link("recipe.yaml", "RECIPE.YAML")
    assert cli.main(["convert", "recipe.yaml", "-o", "RECIPE.YAML"]) == 2
    assert "is a file that this command reads" in capsys.readouterr().err


def test_no_other_file_is_replaced_either(capsys):
    config.save(config.SGD(0.5), "mine.yaml")
    assert cli.main(["convert", "recipe.yaml", "-o", "mine.yaml"]) == 2
    said = "mine.yaml: exists: give -o another name, or --overwrite to replace it\n"
    assert capsys.readouterr().err == said
    assert config.load("mine.yaml") == config.SGD(0.5)
    assert cli.main(["convert", "recipe.yaml", "-o", "mine.yaml", "--overwrite"]) == 0
    assert config.load("mine.yaml") == OURS


@pytest.mark.parametrize("option", ["--base", "--params"])
def test_nor_what_else_is_read(option, capsys):
    Path("other.json").write_text(json.dumps({"w": [2]}))
    assert cli.main(["convert", "recipe.yaml", option, "other.json", "-o", "other.json"]) == 2
    assert "other.json: is a file that this command reads" in capsys.readouterr().err


def test_a_link_that_leads_nowhere_is_followed():
    os.symlink("new.yaml", "dangling.yaml")
    assert cli.main(["convert", "recipe.yaml", "-o", "dangling.yaml"]) == 0
    assert config.load("new.yaml") == OURS


@pytest.mark.parametrize(
    ("output", "reason"), [("folder", "must be a file, got a directory"), ("recipe.txt", "must end in .json")]
)
def test_what_cannot_be_written_is_not_said_to_exist(output, reason, capsys):
    Path("recipe.txt").write_text("mine")
    for told in ([], ["--overwrite"]):
        assert cli.main(["convert", "recipe.yaml", "-o", output, *told]) == 1
        err = capsys.readouterr().err
        assert reason in err
        assert "--overwrite" not in err


def test_a_crash_while_writing_leaves_the_old_file(monkeypatch):
    before = Path("recipe.yaml").read_bytes()

    def crash(*_):
        raise KeyboardInterrupt

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, crash)
            with pytest.raises(KeyboardInterrupt):
                cli.main(["convert", "recipe.yaml", "-o", "recipe.yaml", "--overwrite"])
        assert Path("recipe.yaml").read_bytes() == before
        assert not list(Path().glob("*.tmp")) + list(Path().glob(".*.tmp"))


def test_a_recipe_that_is_refused_replaces_nothing():
    Path("bad.json").write_text('{"class_name": "SGD", "config": {"momentum": 3}}')
    before = Path("recipe.yaml").read_bytes()
    assert cli.main(["convert", "bad.json", "-o", "recipe.yaml", "--overwrite"]) == 1
    assert Path("recipe.yaml").read_bytes() == before


def test_the_help_says_so(capsys):
    with pytest.raises(SystemExit):
        cli.main(["convert", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "A file that exists is not replaced without --overwrite" in out
