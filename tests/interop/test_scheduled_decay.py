"""A schedule for the weight decay: read from AdamW and SGDW of tensorflow_addons with their numbers, else refused."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config, interop
from tests.parity import golden_data

GOLDEN = golden_data.loads((Path(__file__).parent / "data" / "scheduled_decay.json").read_text())
DECAY = {"class_name": "PolynomialDecay", "config": {"initial_learning_rate": 0.25, "decay_steps": 2}}
COSINE = optax_ext.CosineDecay(0.25, 10)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["config"]["class_name"])
def test_steps_are_those_of_tensorflow_addons(case):
    recipe = interop.from_keras(case["config"], translate_patterns=False)
    assert isinstance(recipe.weight_decay_rate, optax_ext.Schedule)
    tx, params = recipe.make(), {name: jnp.asarray(value) for name, value in GOLDEN["params"].items()}
    state = tx.init(params)
    for step in range(3):
        grads = {name: jnp.asarray(values[step]) for name, values in GOLDEN["grads"].items()}
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for name, expected in case["params"].items():
            np.testing.assert_allclose(params[name], expected[step], rtol=2e-6, atol=2e-7, err_msg=f"{name} {step}")


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["config"]["class_name"])
def test_they_are_written_and_read_again(case):
    recipe = interop.from_keras(case["config"], translate_patterns=False)
    written = interop.to_keras(recipe)
    assert (written["class_name"], "module" in written) == (case["config"]["class_name"], False)
    assert written["config"]["weight_decay"]["class_name"] == case["config"]["config"]["weight_decay"]["class_name"]
    assert interop.from_keras(written, translate_patterns=False) == recipe
    assert config.from_dict(config.to_dict(recipe)) == recipe


def test_an_adamw_that_does_not_say_whose_it_is_is_told_by_the_schedule():
    bare = {"class_name": "AdamW", "config": {"learning_rate": 0.25, "weight_decay": DECAY}}
    assert interop.from_keras(bare).weight_decay_times_learning_rate is False
    assert interop.from_keras({**bare, "config": {**bare["config"], "weight_decay": 0.25}}) == config.AdamW(
        0.25, weight_decay_rate=0.25, gradient_clip_norm=0.0
    )


@pytest.mark.parametrize(
    ("class_name", "field", "module"),
    [
        ("Muon", "adam_weight_decay", "keras.optimizers"),
        ("AdamW", "weight_decay", "keras.optimizers"),
        ("SGD", "weight_decay", "keras.optimizers"),
        ("LAMB", "weight_decay_rate", "official.nlp.optimization"),
        ("LAMB", "weight_decay", "tensorflow_addons.optimizers"),
        ("AdamWeightDecay", "weight_decay_rate", "transformers"),
    ],
)
def test_what_takes_none_refuses_it(class_name, field, module):
    data = {"class_name": class_name, "config": {"learning_rate": 0.25, field: DECAY}, "module": module}
    with pytest.raises(
        config.ConfigError, match=f"config.{field}: must be a number, since only AdamW and SGDW of tens"
    ):
        interop.from_keras(data)


def test_a_recipe_of_model_garden_takes_none_in_our_words():
    decay = config.to_dict(COSINE)
    rate = {"type": "constant", "constant": {"learning_rate": 0.1}}
    recipe = {"optimizer": {"type": "lars", "lars": {"weight_decay_rate": decay}}, "learning_rate": rate}
    with pytest.raises(config.ConfigError, match=r"optimizer.lars.weight_decay_rate: must be a number, since only"):
        interop.from_model_garden(recipe)


def test_problems_of_the_schedule_have_their_path():
    data = {"class_name": "Addons>SGDW", "config": {"weight_decay": {**DECAY, "config": {"decay_steps": -1}}}}
    with pytest.raises(config.ConfigError, match=r"config.weight_decay.config.initial_learning_rate: is required"):
        interop.from_keras(data)
    adam = {"class_name": "Addons>SGDW", "config": {"weight_decay": {"class_name": "Adam", "config": {}}}}
    with pytest.raises(config.ConfigError, match=r"config.weight_decay.class_name: must be a schedule, got Adam"):
        interop.from_keras(adam)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            config.AdamW(0.1, weight_decay_rate=COSINE),
            "Keras's AdamWeightDecay takes no schedule for it, got CosineDecay",
        ),
        (config.SGD(0.1, weight_decay_rate=COSINE), "Keras's SGD has no such argument"),
        (config.LARS(0.1, weight_decay_rate=COSINE), "Keras's LARS takes no schedule for it"),
        (config.Lion(0.1, weight_decay_rate=COSINE), "Keras's Lion takes no schedule for it"),
    ],
    ids=lambda value: getattr(value, "type", ""),
)
def test_what_keras_cannot_say_is_not_written(optimizer, message):
    with pytest.raises(config.ConfigError, match=f"weight_decay_rate: {message}"):
        interop.to_keras(optimizer)
