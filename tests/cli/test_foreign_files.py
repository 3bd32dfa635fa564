"""What the error of `check` names for a file of Keras or Model Garden does read the file."""

import json
import re

import pytest

from optax_ext import cli, config, interop

KERAS = {"class_name": "Adam", "config": {"learning_rate": 0.1, "beta_1": 0.9}}
RATE = {"learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}}}
WHOLE, INSIDE, ALONE = "convert FILE", "interop.translate", "translate it alone, with interop.from_keras"
GARDEN = "is a recipe of Model Garden"
SGD = {"type": "sgd"}

FOREIGN = [
    ({"name": "Adam", "learning_rate": 0.1, "beta_1": 0.9}, WHOLE, config.Adam(0.1, 0.9)),
    ({"name": "adam", "learning_rate": 0.1}, WHOLE, config.Adam(0.1)),
    ({"name": "SGD", "lr": 0.1}, WHOLE, config.SGD(0.1)),
    ({"name": "SGD", "lr": 0.1, "momentum": 0.9, "nesterov": True}, WHOLE, config.SGD(0.1, 0.9, nesterov=True)),
    ({"name": "CosineDecay", "initial_learning_rate": 0.1, "decay_steps": 9}, WHOLE, None),
    ({"class_name": "SGD"}, WHOLE, config.SGD(0.01)),
    (KERAS, WHOLE, config.Adam(0.1)),
    ({"optimizer_config": KERAS}, INSIDE, config.Adam(0.1)),
    ({"optimizer_config": KERAS, "loss": "mse", "metrics": []}, INSIDE, config.Adam(0.1)),
    ({"optimizer": KERAS}, INSIDE, config.Adam(0.1)),
    ({"optimizer": KERAS, "learning_rate": {"type": "constant"}}, ALONE, config.Adam(0.1)),
    ({"optimizer": KERAS, "optimizer_config": KERAS}, ALONE, config.Adam(0.1)),
    ({"compile_config": {"optimizer": KERAS, "loss": "mse"}}, INSIDE, config.Adam(0.1)),
    ({"modelTopology": {"training_config": {"optimizer_config": KERAS}}}, INSIDE, config.Adam(0.1)),
    ({"training_config": json.dumps({"optimizer_config": KERAS})}, INSIDE, config.Adam(0.1)),
    ({"optimizer": SGD, "learning_rate": {"type": "constant"}}, WHOLE, config.SGD(0.1)),
    ({"optimizer": SGD, "learning_rate": {"type": "constant", "learning_rate": 0.1}}, WHOLE, config.SGD(0.1)),
    ({"optimizer": SGD, "learning_rate": {}}, WHOLE, config.SGD(0.1)),
    ({"optimizer": SGD, "warmup": {"type": "linear", "warmup_steps": 5}}, WHOLE, None),
    ({"optimizer": {"type": "sgd", "sgd": {}}}, WHOLE, config.SGD(0.1)),
    ({"optimizer": {"type": "sgd", "sgd": {}}, **RATE}, WHOLE, config.SGD(0.1)),
    ({"learning_rate": {"type": "cosine", "cosine": {"initial_learning_rate": 0.1, "decay_steps": 9}}}, WHOLE, None),
    ({"warmup": {"type": "linear"}}, WHOLE, None),
    ({"trainer": {"optimizer_config": {"optimizer": SGD}}}, WHOLE, config.SGD(0.1)),
    ({"runtime": {"loss_scale": None}}, WHOLE, config.SGD(0.1)),
]
OURS_OR_NOBODYS = [
    {"optimizer": {"type": "sgd", "learning_rate": 0.1}, "trainer": {"steps": 5}},
    {"optimizer": {"type": "sgd", "learning_rate": 0.1}, "task": "digits", "runtime": {}},
    {"optimizer": {"type": "sgd", "learning_rate": 0.1}, "learning_rate": {"type": "constant"}},
    {"optimizer": SGD, "learning_rate": {"type": "cosine_decay", "initial_learning_rate": 0.1, "decay_steps": 9}},
    {"optimizer": SGD, "learning_rate": 0.1},
    {"optimizer": SGD, "trainer": {}},
    {"task": "digits", "trainer": "me"},
    {"learning_rate": 0.1, "momentum": 0.9},
    {"learning_rate": 0.1, "warmup": 5},
    {"learning_rate": {"type": "constant", "learning_rate": 0.1}},
]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.json").write_text(
        json.dumps({"optimizer": SGD, "warmup": {"linear": {"warmup_steps": 5}}, **RATE})
    )
    return tmp_path


def error_of_check(data, capsys, folder):
    (folder / "FILE.json").write_text(json.dumps(data))
    assert cli.main(["check", "FILE.json"]) == 1
    return capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::optax_ext.interop.TranslationWarning")
@pytest.mark.parametrize(("data", "way", "expected"), FOREIGN, ids=str)
def test_what_the_error_names_reads_the_file(data, way, expected, capsys, in_a_folder):
    error = error_of_check(data, capsys, in_a_folder)
    command = re.search(r"`optax-ext (.*) FILE`", error)
    assert way in error
    told = "model_garden" if GARDEN in error else "keras"
    assert interop.identify_writer(data) == told
    if command is None:
        keys = re.findall(r"^  (\w+): is a config of Keras", error, re.MULTILINE)
        assert [interop.from_keras(data[key]) for key in keys] == [expected] * len(keys)
        assert cli.main(["convert", "FILE.json"]) == 1  # the other way of reading says the same
        assert "alone, with interop.from_keras" in capsys.readouterr().err
    else:
        base = ["--base", "base.json"] if "--base" in error else []
        assert cli.main([*command[1].split(), "FILE.json", "-o", "ours.json", *base]) == 0, capsys.readouterr().err
        loaded = config.load("ours.json")
        assert expected in (None, loaded, getattr(loaded, "optimizer", None))


@pytest.mark.parametrize("data", OURS_OR_NOBODYS, ids=str)
def test_nobody_is_sent_to_what_cannot_read_the_file(data, capsys, in_a_folder):
    error = error_of_check(data, capsys, in_a_folder)
    assert "Keras" not in error
    assert "Model Garden" not in error
    assert interop.identify_writer(data) is None
    assert cli.main(["convert", "FILE.json"]) == 1
    assert capsys.readouterr().err == error
