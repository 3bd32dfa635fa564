"""docs/importing.md: its files, commands and code give what it shows."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from optax_ext import interop
from optax_ext.cli import main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "importing.md"
TEXT = PAGE.read_text()
FILES = re.findall(r"`([\w.]+)`[^`]*?\n\n```(?:yaml|json)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [
    re.split(r"^\$ optax-ext ", block, flags=re.MULTILINE)[1:]
    for block in re.findall(r"^```console\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
]
# Every piece of code goes on from the one before.
CODE = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("importing")
    for name, text in FILES:
        (folder / name).write_text(text)
    return folder


def test_the_page_has_the_files_that_it_names():
    names = ["experiment.yaml", "override.yaml", "adam.json", "shapes.json", "args.json", "misplaced.yaml"]
    assert [name for name, _ in FILES] == names
    assert len(CODE) == 6
    assert len(COMMANDS) == 6


def test_commands_print_what_is_shown(folder, tmp_path, monkeypatch, capsys):
    for name, text in FILES:
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for commands in COMMANDS:
        Path("recipe.yaml").unlink(missing_ok=True)
        for block in commands:
            command, _, shown = block.partition("\n")
            main(command.split())
            printed, errors = capsys.readouterr()
            if "..." in shown:
                for part in shown.split("...\n"):
                    assert part in printed
            else:
                assert (printed or "".join(line for line in errors.splitlines(True) if "warning:" not in line)) == shown


def test_the_code_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    _save_a_model("model.h5")
    names = {}
    for code in CODE:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", interop.TranslationWarning)
            exec(compile(code, PAGE.name, "exec"), names)
    names["recipe"].make()


def _save_a_model(path):
    """Write what Keras writes of a model with an SGD, after five steps."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        sgd = '{"class_name": "SGD", "config": {"name": "SGD", "learning_rate": 0.1, "momentum": 0.9}}'
        file.attrs["training_config"] = '{"optimizer_config": ' + sgd + "}"
        file.attrs["model_config"] = '{"class_name": "Sequential", "config": {"layers": []}}'
        weights = file.create_group("optimizer_weights")
        names = ["SGD/iter:0", "SGD/dense/kernel/momentum:0", "SGD/dense/bias/momentum:0"]
        weights.attrs["weight_names"] = names
        for name, value in zip(names, [5, np.ones((2, 3)), np.ones(3)], strict=True):
            weights[name] = value


def test_weight_decay_in_the_loss_is_that_of_a_kernel():
    names = {}
    (code,) = [code for code in CODE if "def l2_loss" in code]
    exec(compile(code, PAGE.name, "exec"), names)
    params = {"Dense_0": {"kernel": np.float32([[1.0, 2.0]]), "bias": np.float32([5.0, 5.0])}}
    grads = names["jax"].grad(names["l2_loss"])(params, 0.1)
    np.testing.assert_allclose(grads["Dense_0"]["kernel"], [[0.1, 0.2]], rtol=1e-6)
    assert not grads["Dense_0"]["bias"].any()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", TEXT))))
def test_links_lead_somewhere(target):
    assert (PAGE.parent / target).exists()
