"""Who wrote a config is told by its keys, for each shape of config that was found in public files."""

import json
from pathlib import Path

import pytest
import yaml

from optax_ext import config, interop
from optax_ext._core.writers import foreign_writer

DATA = Path(__file__).parent / "data"
# One config of each shape in public repositories and model cards; the letter of its id says who wrote it.
FOUND = json.loads((DATA / "keras_writers.json").read_text())
WRITERS = {"k": "keras", "m": "model_garden"}
RECIPES = [record["optimizer_config"] for record in json.loads((DATA / "model_garden.json").read_text())["records"]]


def in_a_file(data, folder, suffix):
    path = folder / f"found{suffix}"
    path.write_text(json.dumps(data) if suffix == ".json" else yaml.safe_dump(data))
    return path


@pytest.mark.parametrize(("name", "data"), FOUND, ids=[name for name, _ in FOUND])
def test_every_shape_found_is_known(tmp_path, name, data):
    for source in (data, in_a_file(data, tmp_path, ".json"), in_a_file(data, tmp_path, ".yaml")):
        if not isinstance(source, str):  # the name of a class, which would be the path of a file
            assert interop.identify_writer(source) == WRITERS[name[0]]


def test_every_recipe_of_model_garden_is_known():
    unknown = [recipe for recipe in RECIPES if interop.identify_writer(recipe) != "model_garden"]
    assert all(recipe.keys() == {"ema"} for recipe in unknown)  # which could be a part of ours
    assert len(unknown) == 1


@pytest.mark.parametrize("data", [data for _, data in FOUND if isinstance(data, dict)])
def test_loading_one_names_a_command_that_knows_it(tmp_path, data):
    with pytest.raises(config.ConfigError) as caught:
        config.load(in_a_file(data, tmp_path, ".yaml"))
    (problem,) = caught.value.problems
    assert "`optax-ext convert FILE`" in problem.message
    assert ("{'class_name': …, 'config': …}" in problem.message) is (foreign_writer(data) == "get_config")


@pytest.mark.parametrize(
    ("data", "writer"),
    [
        ({"name": "my run", "learning_rate": 0.1}, None),
        ({"name": "adam", "epochs": 5}, None),
        ({"learning_rate": 0.1, "beta_1": 0.9}, None),  # one of ours without its type, as much as one of Keras
        ({"learning_rate": 0.1, "is_legacy_optimizer": False}, "get_config"),
        ({"learning_rate": {"class_name": "CosineDecay", "config": {}}}, "get_config"),
        ({"name": "adam_1", "learning_rate": 0.1}, "keras"),
        ({"name": "schedule_free_adamw", "learning_rate": 0.1}, "keras"),
        ({"name": "Polynomial_Decay", "initial_learning_rate": 0.1}, "keras"),
        ({"optimizer": {"class_name": "SGD"}, "average_decay": 0.99}, "keras"),
        ({"optimizer": {"class_name": "SGD"}, "name": "Lookahead", "sync_period": 6}, "keras"),
        ({"optimizer": {"class_name": "SGD"}, "loss": "mse"}, None),  # holds one
        ({"type": "adam", "name": "adam", "learning_rate": 0.1}, None),  # ours, with a field that is not
        ("Adam", "keras"),
        ("my_optimizer", None),
        (["Adam"], None),
    ],
)
def test_the_rules(data, writer):
    assert foreign_writer(data) == writer
