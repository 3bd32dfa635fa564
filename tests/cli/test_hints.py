"""What an error of the command line advises works: what is typed, what it says, what is typed then."""

import json
import sys
from pathlib import Path

import pytest

import optax_ext
from optax_ext import cli, config

COSINE = {"initial_learning_rate": 0.1, "decay_steps": 100}
RATE = {"learning_rate": {"type": "cosine", "cosine": COSINE}}
GARDEN = {"optimizer": {"type": "sgd"}, **RATE}
SHAPES = {"Dense_0": {"kernel": [2, 2], "bias": [2]}}


@pytest.fixture
def _files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    files = {
        "garden.json": GARDEN,
        "over.json": {"learning_rate": {"cosine": {"decay_steps": 7}}},
        "patterns.json": {"optimizer": {"type": "lars", "lars": {"exclude_from_weight_decay": ["bais"]}}, **RATE},
        "ours.json": config.to_dict(config.SGD(0.1)),
        "rate.json": config.to_dict(optax_ext.Constant(0.1)),
        "keras_rate.json": {
            "class_name": "ExponentialDecay",
            "config": {"initial_learning_rate": 0.1, "decay_steps": 9, "decay_rate": 0.5},
        },
        "shapes.json": SHAPES,
        "no_shapes.json": {},
    }
    for name, data in files.items():
        Path(name).write_text(json.dumps(data))
    Path("mine.py").write_text("")


TYPED = [
    ("check garden.json", "`optax-ext convert FILE`", "convert garden.json"),
    ("convert over.json --from model-garden", "as --base to optax-ext convert", "convert over.json --base garden.json"),
    ("convert ours.json --base garden.json", "--base is for files of Model Garden", "convert ours.json"),
    ("convert ours.json --params shapes.json", "use describe --params", "describe ours.json --params shapes.json"),
    ("convert keras_rate.json --params shapes.json", "--params is for optimizers", "convert keras_rate.json"),
    ("describe rate.json --params shapes.json", "--params is for optimizers", "describe rate.json"),
    ("convert ours.json -o a.json --to yaml", "give one of them", "convert ours.json -o a.json"),
    ("convert ours.json -o a.json --to yaml", "give one of them", "convert ours.json --to yaml"),
    ("convert ours.json -o ours.json", "give -o another name", "convert ours.json -o b.json"),
    ("convert ours.json -o ours.json", "or --overwrite to replace it", "convert ours.json -o ours.json --overwrite"),
    ("convert ours.json -o a.txt", "must end in .json, .yaml or .yml", "convert ours.json -o a.yml"),
    (
        "convert garden.json --params no_shapes.json",
        "must map parameter names to shapes",
        "convert garden.json --params shapes.json",
    ),
    ("describe ours.json --steps 0", "an integer from 1 to", "describe ours.json --steps 1"),
    ("check --import mine.py ours.json", "(its name is 'mine')", "check --import mine ours.json"),
    ("describe our.json", "did you mean 'ours.json'?", "describe ours.json"),
]


@pytest.mark.usefixtures("_files")
@pytest.mark.filterwarnings("ignore::optax_ext.interop.TranslationWarning")
@pytest.mark.parametrize(("typed", "advice", "then"), TYPED, ids=[entry[0] + ": " + entry[1] for entry in TYPED])
def test_who_types_what_the_command_line_advises_gets_there(typed, advice, then, capsys):
    assert run(typed) in (1, 2)
    captured = capsys.readouterr()
    assert advice in captured.out + captured.err
    assert run(then) == 0, capsys.readouterr().err


def run(line):
    try:
        return cli.main(line.split())
    except SystemExit as error:
        return error.code
