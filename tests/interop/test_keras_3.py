"""Keras 3: all that it serializes is read, and written again as it was."""

import json
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext import config, interop

CONFIGS = json.loads((Path(__file__).parent / "data" / "keras_3.json").read_text())["configs"]
SGD = {"class_name": "SGD", "config": {"learning_rate": 0.5, "loss_scale_factor": None}}


def without_names(value):
    if isinstance(value, dict):
        return {key: without_names(item) for key, item in value.items() if key != "name"}
    return value


SCHEDULE_FREE = pytest.mark.filterwarnings("ignore:config. is read as Keras computes it with JAX")


@SCHEDULE_FREE
@pytest.mark.parametrize("name", CONFIGS)
def test_every_class_comes_back_as_it_was(name):
    ours = interop.from_keras(CONFIGS[name], translate_patterns=False)
    expected = without_names(CONFIGS[name])
    if name == "Adam, other arguments":  # with weight decay, it is AdamW by another name
        expected["class_name"] = "AdamW"
    written = interop.to_keras(ours, generation="newer")
    if "module" not in written:  # a schedule by itself, which both generations have
        written = {"module": "keras.optimizers.schedules", **written, "registered_name": None}
    assert written == expected
    assert interop.from_keras(interop.to_keras(ours), translate_patterns=False) == ours
    assert config.from_dict(config.to_dict(ours)) == ours


def test_none_is_written_where_it_is_not_the_default():
    muon = config.Muon(0.5, rms_rate=None)
    written = interop.to_keras(muon)
    assert written["config"]["rms_rate"] is None
    assert interop.from_keras(written) == muon


def test_the_data_has_all_classes():
    names = {name.partition(",")[0] for name in CONFIGS}
    assert len({config["class_name"] for config in CONFIGS.values() if config["module"] == "keras.optimizers"}) == 15
    assert {"Adafactor", "Muon", "ScheduleFreeAdamW", "LossScaleOptimizer", "CosineDecay"} <= names


@pytest.mark.parametrize("fields", [{"use_ema": False}, {"jit_compile": True}, {"weight_decay": 0.25}])
@pytest.mark.parametrize("name", ["RMSprop", "Adagrad"])
def test_the_newer_generation_is_written_where_the_older_one_computes_something_else(name, fields):
    imported = interop.from_keras({"class_name": name, "config": {"learning_rate": 0.01, **fields}})
    written = interop.to_keras(imported)
    assert written["class_name"] == name
    assert written["config"]["weight_decay"] == fields.get("weight_decay")
    assert interop.from_keras(written) == imported


@SCHEDULE_FREE
@pytest.mark.parametrize("name", ["adam", "Adam", "sgd", "rmsprop", "schedulefreeadamw", "LAMB", "lamb"])
def test_a_name_is_an_optimizer_with_its_defaults(name):
    expected = {"adam": "Adam", "sgd": "SGD", "rmsprop": "RMSprop", "lamb": "Lamb"}.get(name, name)
    expected = "ScheduleFreeAdamW" if name.startswith("sch") else expected
    data = {"module": "keras.optimizers", "class_name": expected, "config": {}}
    assert interop.from_keras(name) == interop.from_keras(data)
    assert interop.from_keras({**data, "class_name": name}) == interop.from_keras(data)


def test_accumulation_and_a_scale_are_around_the_optimizer():
    sgd = {**SGD, "config": {**SGD["config"], "gradient_accumulation_steps": 2, "loss_scale_factor": 8}}
    imported = interop.from_keras(sgd)
    assert imported == config.OptimizationConfig(config.SGD(0.5), config.FixedLossScale(8), accumulate_steps=2)
    tx = imported.make()
    params = {"w": jnp.ones(2)}
    state = tx.init(params)
    moved = []
    for gradient in (1.0, 3.0, 2.0):
        updates, state = tx.update({"w": jnp.full(2, 8 * gradient)}, state, params)
        moved.append(float(updates["w"][0]))
    assert moved == [0.0, -1.0, 0.0]


def test_a_step_that_overflows_is_none_of_the_accumulated():
    tx = config.OptimizationConfig(config.SGD(0.5), config.DynamicLossScale(8.0), accumulate_steps=2).make()
    params = {"w": jnp.ones(1)}
    state = tx.init(params)
    for gradient in (1.0, np.inf, 3.0):
        updates, state = tx.update({"w": jnp.array([gradient]) * state.loss_scale}, state, params)
    assert float(updates["w"][0]) == -1.0
    assert int(state.skipped_steps) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gradient_accumulation_steps": 1}, "gradient_accumulation_steps: must be an integer of at least 2 or null"),
        ({"gradient_accumulation_steps": 2.5}, "at least 2 or null, got 2.5"),
        ({"gradient_accumulation_steps": float("nan")}, "at least 2 or null, got nan"),
        ({"gradient_accumulation_steps": float("inf")}, "at least 2 or null, got inf"),
        ({"learning_rate": 0.5, "lr": 0.25}, "lr: is another name of learning_rate: give one of them"),
        ({"gradient_accumulation_steps": 2, "use_ema": True}, "cannot be carried over with use_ema"),
        ({"use_ema": "yes"}, "use_ema: must be true or false, got 'yes'"),
        ({"use_ema": True, "ema_momentum": 2}, "ema_momentum: must be"),
        ({"loss_scale_factor": 0}, "loss_scale_factor: must be greater than 0, got 0"),
        ({"decay": 0.1}, "decay: cannot be carried over, got 0.1"),
    ],
)
def test_what_is_refused(fields, message):
    with pytest.raises(config.ConfigError, match=message):
        interop.from_keras({**SGD, "config": {**SGD["config"], **fields}})


def test_a_loss_scale_optimizer_takes_nothing_for_its_inner_one():
    fields = {"inner_optimizer": SGD, "use_ema": True}
    with pytest.raises(config.ConfigError, match="use_ema, .* are for the inner optimizer"):
        interop.from_keras({"module": "keras.optimizers", "class_name": "LossScaleOptimizer", "config": fields})


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (config.OptimizationConfig(config.SGD(0.1), ema=config.ParamsEma()), "ema: Keras 3 averages from the second"),
        (config.OptimizationConfig(config.SGD(0.1, decay=0.5)), "optimizer.decay: Keras's SGD has no such argument"),
        (config.OptimizationConfig(config.LARS(0.1)), "optimizer: Keras has no class for LARS"),
        (
            config.OptimizationConfig(
                config.SGD(0.1), ema=config.ParamsEma(start_step=2, dynamic_decay=False), accumulate_steps=2
            ),
            "accumulate_steps: Keras 3 averages at each step",
        ),
    ],
)
def test_what_the_newer_generation_cannot_express(recipe, message):
    with pytest.raises(config.ConfigError, match=message):
        interop.to_keras(recipe, generation="newer")


def test_what_the_older_generation_cannot_express():
    recipe = config.OptimizationConfig(config.SGD(0.1), accumulate_steps=2)
    with pytest.raises(config.ConfigError, match="accumulate_steps: Keras's older optimizers do not"):
        interop.to_keras(recipe, generation="older")
    assert interop.to_keras(recipe)["config"]["gradient_accumulation_steps"] == 2
    with pytest.raises(ValueError, match="generation must be 'older', 'newer' or None, got 3"):
        interop.to_keras(recipe, generation=3)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_betas_that_the_newer_generation_does_not_round(name):
    data = {"class_name": name, "config": {"beta_2": 0.9999, "epsilon": 1e-12, "weight_decay": 0.0}}
    if name == "Adam":
        data["config"]["use_ema"] = False
    imported = interop.from_keras(data)
    assert not imported.round_betas
    assert interop.from_keras(interop.to_keras(imported)) == imported
    assert "round_betas is false" in str(interop.translate(data).notes[-1])
    # In float32, 0.9999 is 0.99989998, so that the first update is larger by the root of 1.000166.
    tx = imported.make()
    updates, _ = tx.update({"w": jnp.ones(1)}, tx.init({"w": jnp.zeros(1)}), {"w": jnp.zeros(1)})
    np.testing.assert_allclose(updates["w"], -0.001 * (1 - np.float32(0.9999)) ** 0.5 / 1e-4**0.5, rtol=1e-5)
    assert interop.from_keras({"class_name": name, "config": {"beta_2": 0.999}}).round_betas
    legacy = {"module": "keras.optimizers.legacy", "class_name": "Adam", "config": {"beta_2": 0.9999}}
    assert interop.from_keras(legacy).round_betas


@SCHEDULE_FREE
def test_defaults_that_differ_from_those_of_our_schemas():
    def defaults(name):
        return interop.from_keras({"module": "keras.optimizers", "class_name": name, "config": {}})

    lamb = config.LAMB(0.001, epsilon=1e-7, decoupled_weight_decay=True, exclude_from_layer_adaptation=[])
    assert defaults("Lamb") == lamb
    assert defaults("SGD") == config.SGD(0.01)
    assert defaults("AdamW") == config.AdamW(0.001, weight_decay_rate=0.004, gradient_clip_norm=0.0)
    assert defaults("ScheduleFreeAdamW") == config.ScheduleFreeAdamW(0.0025)
    assert defaults("Nadam") == config.Nadam(0.001)


def test_no_weight_decay():
    fields = {"weight_decay": None, "adam_weight_decay": None}
    assert interop.from_keras({"class_name": "Muon", "config": fields}) == config.Muon(
        0.001, weight_decay_rate=0.0, adam_weight_decay=0.0
    )


def test_the_moving_average_is_said_to_be_beside_the_parameters():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        translation = interop.translate({"class_name": "SGD", "config": {"use_ema": True}})
    assert [note.path for note in translation.notes] == ["config.use_ema"]


AVERAGES = json.loads((Path(__file__).parent / "data" / "averages.json").read_text())
GRADS = AVERAGES.pop("grads")


@pytest.mark.parametrize(
    ("config", "averages"),
    [
        pytest.param(case["config"], case["averages"], id=f"{by}-{index}")
        for by, cases in AVERAGES.items()
        for index, case in enumerate(cases)
    ],
)
def test_averages_are_those_of_each_package(config, averages):
    tx = interop.from_keras(config).make()
    params = {"w": jnp.ones(1)}
    state = tx.init(params)
    for grad, average in zip(GRADS, averages, strict=True):
        updates, state = tx.update({"w": jnp.array([grad])}, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(optax.tree.get(state, "ema")["w"], average, rtol=1e-6)


def test_a_bare_get_config_with_fields_of_keras_3_is_of_keras():
    bare = {"name": "lamb_1", "learning_rate": 0.5, "weight_decay": None, "loss_scale_factor": None, "use_ema": False}
    bare |= {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    assert interop.from_keras(bare) == interop.from_keras({"class_name": "Lamb", "config": {"learning_rate": 0.5}})
