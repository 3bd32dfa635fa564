"""optax-ext convert: files of Model Garden and Keras, with comments on what was changed."""

import json

import pytest
import yaml

from optax_ext import cli, config, interop

RECIPE = {
    "runtime": {"mixed_precision_dtype": "float16"},
    "trainer": {
        "optimizer_config": {
            "optimizer": {"type": "adamw", "adamw": {"exclude_from_weight_decay": ["LayerNorm", "layer_norm", "bias"]}},
            "learning_rate": {"type": "cosine", "cosine": {"initial_learning_rate": 0.1, "decay_steps": 100}},
        }
    },
}
SHAPES = {"LayerNorm_0": {"scale": [4], "bias": [4]}, "Dense_0": {"kernel": [4, 4], "bias": [4]}}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "shapes.json").write_text(json.dumps(SHAPES))
    return tmp_path


@pytest.mark.parametrize("told", [[], ["--from", "model-garden"]])
def test_our_yaml_with_comments(files, capsys, told):
    assert cli.main(["convert", f"{files}/recipe.yaml", *told]) == 0
    text = capsys.readouterr().out
    with pytest.warns(interop.TranslationWarning):
        assert config.from_dict(yaml.safe_load(text)) == interop.from_model_garden(RECIPE)
    comments = " ".join(line.strip(" #") for line in text.splitlines() if line.strip().startswith("#"))
    for said in (
        "Converted from recipe.yaml.",
        "'layer_norm' and 'LayerNorm' are the same",
        "is dynamic, as in TensorFlow",
    ):
        assert said in comments


def test_into_files(files, capsys):
    assert cli.main(["convert", f"{files}/recipe.yaml", "-o", f"{files}/ours.yaml"]) == 0
    assert cli.main(["convert", f"{files}/recipe.yaml", "-o", f"{files}/ours.json"]) == 0
    assert "Converted from" in capsys.readouterr().err
    assert config.load(files / "ours.yaml") == config.load(files / "ours.json")
    assert cli.main(["convert", f"{files}/ours.yaml", "--to", "json"]) == 0  # ours is known for ours
    assert cli.main(["convert", f"{files}/ours.yaml", "--from", "optax-ext"]) == 0


def test_patterns_against_shapes(files, capsys):
    arguments = ["convert", f"{files}/recipe.yaml", "--params", f"{files}/shapes.json"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "'bias' matches Dense_0/bias, LayerNorm_0/bias" in out
    assert "exclude_from_weight_decay: 3 of 4 parameters in all" in out
    (files / "shapes.json").write_text(json.dumps({"Dense_0": {"kernel": [2]}}))
    assert cli.main(arguments) == 1
    captured = capsys.readouterr()
    assert "'bias' matches NOTHING" in captured.out
    assert "the pattern 'bias' matches none" in captured.err


def test_wrong_usage(files, capsys):
    ours, schedule = files / "ours.yaml", files / "schedule.json"
    config.save(config.SGD(0.1), ours)
    schedule.write_text('{"class_name": "CosineDecay", "config": {"initial_learning_rate": 0.1, "decay_steps": 9}}')
    shapes = ["--params", f"{files}/shapes.json"]
    for arguments, message in (
        ([ours, *shapes], "--params is for files of other software: use describe --params"),
        ([schedule, *shapes], "schedule.json: --params is for optimizers, and this is a schedule"),
        ([schedule, "--base", ours], "--base is for files of Model Garden"),
        ([schedule, "--to", "yaml", "-o", "out.json"], "--to yaml and -o out.json are two formats"),
    ):
        assert cli.main(["convert", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err


def test_the_name_of_the_output_tells_the_format(files, capsys):
    assert cli.main(["convert", f"{files}/recipe.yaml", "-o", f"{files}/ours.txt"]) == 1
    assert "the file's name must end in .json, .yaml or .yml, got '.txt'" in capsys.readouterr().err
    assert not (files / "ours.txt").exists()


def test_problems_name_the_file(files, capsys):
    (files / "keras.json").write_text('{"class_name": "SGD", "config": {"momentum": 3}}')
    assert cli.main(["convert", f"{files}/keras.json"]) == 1
    assert capsys.readouterr().err.startswith(f"{files}/keras.json: 1 problem\n  config.momentum: must be ")


def test_a_base(files, capsys):
    (files / "over.yaml").write_text("learning_rate: {cosine: {decay_steps: 7}}")
    assert cli.main(["convert", f"{files}/over.yaml"]) == 1
    assert "optimizer.type: is missing" in capsys.readouterr().err
    assert cli.main(["convert", f"{files}/over.yaml", "--base", f"{files}/recipe.yaml"]) == 0
    assert "decay_steps: 7" in capsys.readouterr().out
    assert cli.main(["convert", f"{files}/over.yaml", "--from", "keras", "--base", f"{files}/recipe.yaml"]) == 2


def test_keras(files, capsys):
    serialized = {"class_name": "LARS", "config": {"name": "LARS", "learning_rate": 0.1}}
    (files / "keras.json").write_text(json.dumps(serialized))
    assert cli.main(["convert", f"{files}/keras.json"]) == 0
    out = capsys.readouterr().out
    assert yaml.safe_load(out) == {"type": "lars", "learning_rate": 0.1}
    assert "left out of TensorFlow's get_config" in out.replace("\n#   ", " ")
