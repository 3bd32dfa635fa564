"""Classes of the same name in Keras, transformers, Model Garden and tensorflow_addons: told apart, each as its own."""

import warnings

import numpy as np
import pytest

import optax_ext
from optax_ext import config, interop

ADAMW = {"learning_rate": 0.25, "weight_decay_rate": 0.01}
DECAY = {"class_name": "PolynomialDecay", "config": {"initial_learning_rate": 0.5, "decay_steps": 10}}
DECAY["config"] |= {"end_learning_rate": 0.0, "power": 1.0, "cycle": False}
WARM_UP = {"initial_learning_rate": 0.5, "decay_schedule_fn": DECAY, "warmup_steps": 4, "power": 1.0, "name": None}


def quietly(data, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interop.TranslationWarning)
        return interop.from_keras(data, **kwargs)


@pytest.mark.parametrize(
    ("envelope", "clips"),
    [
        ({"module": "transformers.optimization_tf"}, 0.0),
        ({"module": "official.nlp.optimization"}, 1.0),
        ({"module": "official.modeling.optimization.legacy_adamw", "registered_name": "AdamWeightDecay"}, 1.0),
        ({"module_name": "transformers"}, 0.0),
        ({}, 0.0),
    ],
)
def test_adam_weight_decay_is_told_by_its_module(envelope, clips):
    data = {"class_name": "AdamWeightDecay", "config": ADAMW, **envelope}
    expected = config.AdamW(0.25, weight_decay_rate=0.01, gradient_clip_norm=clips)
    if envelope:
        assert interop.from_keras(data) == expected
        assert interop.from_keras(data, written_by="tensorflow_addons") == expected
    else:
        text = "read as transformers' AdamWeightDecay, which never clips .* written_by='model_garden'"
        with pytest.warns(interop.TranslationWarning, match=text):
            assert interop.from_keras(data) == expected
    assert quietly(data["config"], class_name="AdamWeightDecay", written_by="model_garden").gradient_clip_norm == 1.0
    assert interop.translate(data, written_by="transformers").config.gradient_clip_norm == clips


def test_a_field_that_only_one_package_has_tells_it():
    data = {"class_name": "AdamWeightDecay", "config": {**ADAMW, "gradient_clip_norm": 0.5}}
    assert interop.from_keras(data).gradient_clip_norm == 0.5  # without a warning
    with pytest.raises(config.ConfigError, match="config.gradient_clip_norm: unknown field"):
        interop.from_keras({**data, "module": "transformers.optimization_tf"})


def test_what_create_optimizer_does_not_write_is_said():
    bare = {"name": "AdamWeightDecay", "decay": 0.0, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, **ADAMW}
    with pytest.warns(interop.TranslationWarning) as caught:
        interop.from_keras(bare)
    assert len(caught) == 2
    assert "create_optimizer excludes ['LayerNorm', 'layer_norm', 'bias']" in str(caught[1].message)
    with pytest.warns(interop.TranslationWarning) as caught:
        interop.from_keras({**bare, "weight_decay_rate": 0.0})  # nothing decays
    assert len(caught) == 1
    assert interop.translate(bare).written_by == "transformers"


def rates(schedule, steps):
    return np.asarray(schedule(np.asarray(steps)))


def test_warm_ups_of_the_two_packages():
    steps = np.arange(20)
    rising = 0.5 * steps / 4
    data = {"class_name": "WarmUp", "config": WARM_UP}
    with pytest.warns(interop.TranslationWarning, match="Model Garden's starts it at step 0"):
        ours = interop.from_keras(data)
    decayed = 0.5 * (1 - np.clip((steps - 4) / 10, 0, 1))
    np.testing.assert_allclose(rates(ours, steps), np.where(steps < 4, rising, decayed), rtol=1e-6)
    assert ours == optax_ext.LinearWarmup(optax_ext.PolynomialDecay(0.5, 10, 0.0, offset=4), 4)
    garden = interop.from_keras(data, written_by="model_garden")
    decayed = 0.5 * (1 - np.clip(steps / 10, 0, 1))
    np.testing.assert_allclose(rates(garden, steps), np.where(steps < 4, rising, decayed), rtol=1e-6)
    assert interop.from_keras({**data, "module": "official.nlp.optimization"}) == garden
    assert interop.from_keras({**data, "module": "transformers.optimization_tf"}) == ours
    assert quietly(WARM_UP) == ours  # a bare get_config


@pytest.mark.parametrize(
    ("fields", "first", "last"),
    [
        ({"power": 2.0}, [0.0, 0.5 / 16, 0.5 / 4], 0.5),
        ({"initial_learning_rate": 1.0}, [0.0, 0.25, 0.5], 0.5),
        ({"power": 0.5, "initial_learning_rate": 1.0}, [0.0, 0.5, 0.5**0.5], 0.5),
        ({"warmup_steps": 0}, [0.5, 0.45, 0.4], 0.3),
    ],
)
def test_other_powers_and_targets(fields, first, last):
    schedule = quietly({"class_name": "WarmUp", "config": WARM_UP | fields})
    np.testing.assert_allclose(rates(schedule, [0, 1, 2]), first, rtol=1e-6)
    np.testing.assert_allclose(schedule(4), last, rtol=1e-6)
    assert config.from_dict(config.to_dict(schedule)) == schedule


@pytest.mark.parametrize("steps", [4.0, np.float32(4), np.int64(4), np.array(4)])
def test_steps_that_are_not_an_int_move_the_schedule_as_well(steps):
    data = {"class_name": "WarmUp", "config": WARM_UP}
    assert quietly({**data, "config": WARM_UP | {"warmup_steps": steps}}) == quietly(data)


def test_the_schedule_of_an_optimizer_tells_whose_it_is():
    warm_up = {"class_name": "WarmUp", "config": WARM_UP}
    for schedule, clips in (
        ({**warm_up, "module": "transformers.optimization_tf"}, 0.0),
        ({**warm_up, "module": "official.nlp.optimization"}, 1.0),
        ({"class_name": "LinearWarmup", "config": {"after_warmup_lr_sched": 0.5, "warmup_steps": 4}}, 1.0),
    ):
        fields = {"learning_rate": schedule, "weight_decay_rate": 0.01}
        data = {"class_name": "AdamWeightDecay", "config": fields}
        assert interop.from_keras(data).gradient_clip_norm == clips  # without a warning
        assert quietly(data, written_by="transformers").gradient_clip_norm == 0.0
    keras = {"class_name": "AdamWeightDecay", "config": {"learning_rate": DECAY}}
    with pytest.warns(interop.TranslationWarning, match="is read as transformers' AdamWeightDecay"):
        interop.from_keras(keras)


def test_a_decay_of_no_length():
    decay = {**DECAY, "config": DECAY["config"] | {"decay_steps": 0, "end_learning_rate": 0.25}}
    data = {"class_name": "WarmUp", "config": WARM_UP | {"decay_schedule_fn": decay}}
    with pytest.warns(interop.TranslationWarning, match="decay_steps: is 0, for which TensorFlow returns NaN after"):
        schedule = interop.from_keras(data, written_by="transformers")
    np.testing.assert_allclose(rates(schedule, [0, 3, 4, 5]), [0.0, 0.375, 0.25, 0.25], rtol=1e-6)
    fields = {"initial_learning_rate": 0.5, "decay_steps": -5}
    assert quietly({"class_name": "PolynomialDecay", "config": fields}) == optax_ext.Constant(1e-4)  # the default
    for refused in (decay, {**data, "config": data["config"] | {"warmup_steps": 0}}):
        with pytest.raises(config.ConfigError, match="decay_steps: must be greater than 0, got 0"):
            quietly(refused)
    for fields in ({"end_learning_rate": "abc"}, {"initial_learning_rate": -1}):
        with pytest.raises(config.ConfigError, match=f"config.{next(iter(fields))}: must be"):
            quietly({**DECAY, "config": DECAY["config"] | {"decay_steps": -5} | fields})


def test_a_decay_of_negative_length():
    decay = {**DECAY, "config": DECAY["config"] | {"decay_steps": -922}}
    with pytest.warns(interop.TranslationWarning, match=r"decay_steps: is negative \(-922\), for which TensorFlow"):
        schedule = interop.from_keras(
            {"class_name": "WarmUp", "config": WARM_UP | {"decay_schedule_fn": decay}}, written_by="transformers"
        )
    np.testing.assert_allclose(rates(schedule, [0, 3, 4, 5, 100]), [0.0, 0.375, 0.0, 0.0, 0.0], rtol=1e-6)
    assert quietly(decay) == optax_ext.Constant(0.0)
    with pytest.raises(config.ConfigError, match="decay_steps: must be greater than 0, got -922"):
        interop.from_keras({**decay, "config": decay["config"] | {"cycle": True}})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warmup_steps": 312.5}, "config.warmup_steps: must be an integer, got 312.5: round it"),
        ({"warmup_steps": -4}, "config.warmup_steps: must be greater than or equal to 0, got -4"),
        ({"initial_learning_rate": -1}, "config.initial_learning_rate: must be"),
        ({"power": -1}, "config.power: needs a power of at least 0, got -1"),
        ({"decay_schedule_fn": "cosine"}, "config.decay_schedule_fn.class_name: unknown class 'cosine'"),
        ({"steps": 3}, "config.steps: unknown field, accepted: initial_learning_rate, decay_schedule_fn"),
        ({"decay_schedule_fn": {"class_name": "WarmUp", "config": WARM_UP}}, "a LinearWarmup cannot start at the end"),
    ],
)
def test_warm_ups_that_are_refused(fields, message):
    with pytest.raises(config.ConfigError, match=message):
        quietly({"class_name": "WarmUp", "config": WARM_UP | fields})
    for name in ("initial_learning_rate", "warmup_steps", "decay_schedule_fn"):
        left = {key: value for key, value in WARM_UP.items() if key != name}
        with pytest.raises(config.ConfigError, match=f"config.{name}: is required"):
            quietly({"class_name": "WarmUp", "config": left})


def test_adamw_of_tensorflow_addons():
    fields = {"learning_rate": 0.25, "weight_decay": 0.01}
    ours = config.AdamW(0.25, weight_decay_rate=0.01, gradient_clip_norm=0.0, weight_decay_times_learning_rate=False)
    kept = {**fields, "decay": 0.0, "exclude_from_weight_decay": None}  # as its get_config writes them
    for data in (
        {"class_name": "Addons>AdamW", "config": fields},
        {"class_name": "AdamW", "config": fields, "registered_name": "Addons>AdamW", "module": None},
        {"class_name": "AdamW", "config": fields, "module": "tensorflow_addons.optimizers"},
        {"class_name": "AdamW", "config": kept},
        {"name": "AdamW", **kept, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False},
    ):
        assert interop.from_keras(data) == ours
        assert interop.translate(data, written_by="keras").config == ours
    assert interop.from_keras({"class_name": "AdamW", "config": fields}, written_by="tensorflow_addons") == ours
    keras = interop.from_keras({"class_name": "AdamW", "config": fields})
    assert keras == config.AdamW(0.25, weight_decay_rate=0.01, gradient_clip_norm=0.0)
    assert interop.from_keras(interop.to_keras(ours), written_by="tensorflow_addons") == ours
    with pytest.raises(config.ConfigError, match="config.weight_decay: is required"):
        interop.from_keras({"class_name": "Addons>AdamW", "config": {"learning_rate": 0.25}})


def test_adamw_of_tensorflow_addons_is_of_the_older_generation():
    # It clips by each limit that is given, takes 1e-7 for an epsilon of 0, and rounds betas first.
    fields = {"weight_decay": 0.01, "clipnorm": 1.0, "clipvalue": 0.5, "epsilon": 0.0, "beta_2": 0.9999}
    adamw = interop.from_keras({"class_name": "Addons>AdamW", "config": fields})  # without a warning
    assert (adamw.clipnorm, adamw.clipvalue, adamw.epsilon, adamw.round_betas) == (1.0, 0.5, 1e-7, True)


def test_others_of_tensorflow_addons():
    sgdw = interop.from_keras({"class_name": "Addons>SGDW", "config": {"weight_decay": 0.1, "momentum": 0.5}})
    expected = config.SGD(0.001, 0.5, weight_decay_rate=0.1, weight_decay_times_learning_rate=False)
    assert sgdw == expected
    fields = {"weight_decay": 0.1, "momentum": 0.5, "exclude_from_weight_decay": None}  # as its get_config writes it
    assert interop.from_keras({"class_name": "Addons>SGDW", "config": fields}) == expected
    with pytest.warns(interop.TranslationWarning, match="updates every row of an embedding"):
        assert interop.from_keras({"class_name": "Addons>LazyAdam", "config": {}}) == config.Adam(0.001)
    lamb = {"class_name": "Addons>LAMB", "config": {"weight_decay": 0.1, "exclude_from_weight_decay": ["bias"]}}
    same = {"class_name": "LAMB", "config": {"weight_decay_rate": 0.1, "exclude_from_weight_decay": ["bias"]}}
    assert interop.from_keras(lamb) == interop.from_keras(same)
    average = {"class_name": "Addons>MovingAverage", "config": {"optimizer": same, "num_updates": 3}}
    with pytest.raises(config.ConfigError, match="num_updates: cannot be carried over"):
        interop.from_keras(average)


def test_a_moving_average_does_not_let_its_optimizer_clip():
    for clipped, plain, field in (
        ({"class_name": "SGD", "config": {"clipnorm": 0.5}}, config.SGD(0.01), "clipnorm"),
        (
            {"class_name": "AdamWeightDecay", "config": {}, "module": "official.nlp.optimization"},
            config.AdamW(0.001, gradient_clip_norm=0.0),
            "gradient_clip_norm",
        ),
    ):
        with pytest.warns(interop.TranslationWarning, match=f"optimizer.config.{field}: is ignored, as in tensorflow_"):
            average = interop.from_keras({"class_name": "MovingAverage", "config": {"optimizer": clipped}})
        assert average.optimizer == plain


@pytest.mark.parametrize("name", ["SWA", "RectifiedAdam", "Lookahead", "Yogi", "NovoGrad", "COCOB", "MultiOptimizer"])
def test_what_has_no_counterpart_is_refused_by_name(name):
    with pytest.raises(config.ConfigError, match=f"class_name: {name} has no counterpart here"):
        interop.from_keras({"class_name": f"Addons>{name}", "config": {"optimizer": "adam"}})
    if name in ("SWA", "Lookahead"):
        with pytest.raises(config.ConfigError, match=f"{name} has no counterpart here: read its `optimizer`"):
            interop.from_keras({"name": name, "optimizer": "adam", "sync_period": 6})


@pytest.mark.parametrize(
    ("envelope", "message"),
    [
        ({"module": "my_project.optimizers"}, "'SGD' is a class of the module 'my_project.optimizers': what it"),
        ({"module": "__main__"}, "'SGD' is a class of the module '__main__'"),
        ({"registered_name": "mine>SGD"}, "'mine>SGD' is a class of another package"),
        ({"class_name": "__lambda__"}, "class_name: is Python code, which is not read"),
        ({"clas": 3}, "clas: unknown field"),
    ],
)
def test_classes_of_nobody_here(envelope, message):
    with pytest.raises(config.ConfigError, match=message):
        interop.from_keras({"class_name": "SGD", "config": {}, **envelope})


def test_what_keras_writes_around_a_class_is_read():
    data = {"class_name": "Custom>Adam", "config": {"learning_rate": 0.5, "use_ema": False}, "shared_object_id": 3}
    assert interop.from_keras(data) == config.Adam(0.5)
    nested = {**DECAY, "__passive_serialization__": True, "shared_object_id": 7, "build_config": None}
    sgd = {"class_name": "SGD", "config": {"learning_rate": nested}, "module_name": "keras_core.optimizers"}
    assert interop.from_keras(sgd).learning_rate == optax_ext.PolynomialDecay(0.5, 10, 0.0)


def test_the_momentum_decay_of_the_older_nadam():
    legacy = {"class_name": "Nadam", "config": {"learning_rate": 0.5, "decay": 0.004}}
    assert interop.from_keras(legacy) == config.Nadam(0.5, momentum_decay=0.004)
    older = {"class_name": "Nadam", "config": {"lr": 0.5, "schedule_decay": 0.01}}
    assert interop.from_keras(older) == config.Nadam(0.5, momentum_decay=0.01)
    with pytest.warns(interop.TranslationWarning, match="decay: 0.1 is ignored, as in TensorFlow"):
        assert interop.from_keras({**legacy, "config": {"decay": 0.1}}) == config.Nadam(0.001, momentum_decay=0.004)
    newer = {"class_name": "Nadam", "config": {"learning_rate": 0.5, "weight_decay": None}}
    assert interop.from_keras(newer) == config.Nadam(0.5)
    assert interop.to_keras(config.Nadam(0.5, momentum_decay=0.01))["config"]["schedule_decay"] == 0.01


def test_wrong_writers():
    with pytest.raises(ValueError, match="written_by must be one of 'keras', 'transformers'"):
        interop.from_keras(DECAY, written_by="pytorch")
