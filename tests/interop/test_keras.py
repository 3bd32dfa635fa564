"""Configs of Keras: each of TensorFlow's imports, returns TensorFlow's values, loses nothing, and goes back."""

import contextlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import optax_ext
from optax_ext import config, interop

DATA = json.loads((Path(__file__).parent / "data" / "configs.json").read_text())
CASES = {case["name"]: case for case in DATA["cases"]}
EXPECTED = ("left out of TensorFlow's get_config", "is read as transformers' AdamWeightDecay")
WITHOUT_CLASS = {"schedule_16_LinearWarmup", "schedule_18_PolynomialWarmUp"}  # of the schedule after the warm-up


def as_arguments(value):
    """Give the arguments of a case as Keras would serialize an object, with nothing left out."""
    if isinstance(value, dict):
        if value.keys() == {"class", "config"}:
            return {"class_name": value["class"], "config": as_arguments(value["config"])}
        return {key: as_arguments(item) for key, item in value.items()}
    return value


def whole(case):
    return {"class_name": case["class"], "config": as_arguments(case["config"])}


def quietly(data, **kwargs):
    """Import; a warning may only be that of a loss of TensorFlow's."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = interop.from_keras(data, **kwargs)
    assert all(any(said in str(warning.message) for said in EXPECTED) for warning in caught)
    return result, len(caught)


def schedule_of(imported):
    return imported if isinstance(imported, optax_ext.Schedule) else imported.learning_rate


@pytest.mark.parametrize("name", CASES)
def test_every_case_imports_and_returns_the_same_values(name):
    case = CASES[name]
    imported = interop.from_keras(whole(case), translate_patterns=False)
    if "values" in case:
        expected = np.array([np.float32(value) for value in case["values"]])
        ours = np.asarray(schedule_of(imported)(np.arange(200)))
        finite = np.isfinite(expected)
        if not finite.all():  # TensorFlow's last piece of a step cosine is NaN for ever; a cycle starts at infinity
            assert case["class"] in ("StepCosineDecayWithOffset", "PolynomialDecayWithOffset")
        np.testing.assert_allclose(ours[finite], expected[finite], rtol=2e-5, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_what_tensorflow_loses_is_kept(name):
    case = CASES[name]
    imported = interop.from_keras(whole(case), translate_patterns=False)
    renamed = {"after_warmup_lr_sched": "after"}
    for argument, value in case["config"].items():
        if argument == "name" or isinstance(value, dict):
            continue
        kept = getattr(imported, renamed.get(argument, argument))
        assert (list(kept) if isinstance(kept, tuple) else kept) == value
    assert config.from_dict(config.to_dict(imported)) == imported
    assert interop.from_keras(interop.to_keras(imported), translate_patterns=False) == imported


@pytest.mark.parametrize("name", sorted(CASES.keys() - WITHOUT_CLASS))
def test_what_tensorflow_writes_imports_but_for_its_losses(name):
    case = CASES[name]
    given = interop.from_keras(whole(case), translate_patterns=False)
    written, warned = quietly(case["serialized"])
    lost = set(case["lost"])
    if isinstance(case["config"].get("learning_rate"), dict):
        lost |= {"offset"} & case["config"]["learning_rate"]["config"].keys()
    if lost:
        assert warned
    else:
        assert written == given
    assert quietly(case["serialized"]["config"], class_name=case["class"], written_by="model_garden")[0] == written


@pytest.mark.parametrize("name", sorted(WITHOUT_CLASS))
def test_a_schedule_without_its_class_cannot_be_rebuilt(name):
    with pytest.raises(config.ConfigError, match="after_warmup_lr_sched: the class cannot be inferred from a bare get"):
        interop.from_keras(CASES[name]["serialized"])


@pytest.mark.parametrize("name", sorted(CASES.keys() - WITHOUT_CLASS))
def test_a_bare_get_config(name):
    case = CASES[name]
    if case["class"] in ("ExponentialDecay", "ExponentialDecayWithOffset", "InverseTimeDecay"):
        with pytest.raises(config.ConfigError, match="its keys fit 'ExponentialDecay', 'InverseTimeDecay'"):
            quietly(case["get_config"])
    else:
        assert quietly(case["get_config"], written_by="model_garden")[0] == quietly(case["serialized"])[0]


def test_lists_that_fall_back_and_texts_for_lists():
    lars = {"class_name": "LARS", "config": {"exclude_from_weight_decay": ["bias"]}}
    lars["config"]["exclude_from_layer_adaptation"] = []
    assert interop.from_keras(lars).exclude_from_layer_adaptation is None
    lars["config"]["exclude_from_weight_decay"] = "bias"
    with pytest.warns(interop.TranslationWarning, match="'bias' is read as a list of one pattern"):
        assert interop.from_keras(lars).exclude_from_weight_decay == ("bias",)


KERAS_3 = {  # besides the class's own fields
    "name": "x",
    "weight_decay": None,
    "clipnorm": None,
    "global_clipnorm": None,
    "clipvalue": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}
TENSOR = {"class_name": "__tensor__", "config": {"value": 0.1, "dtype": "float32"}}


def keras_3(class_name, **fields):
    fields = {**KERAS_3, **fields}
    return {"module": "keras.optimizers", "class_name": class_name, "config": fields, "registered_name": None}


def test_keras_3():
    assert interop.from_keras(keras_3("SGD", learning_rate=0.1, momentum=0.9, nesterov=False)) == config.SGD(0.1, 0.9)
    rate = {"class_name": "CosineDecay", "config": {"initial_learning_rate": 0.1, "decay_steps": 9}}
    adam = interop.from_keras(keras_3("Adam", learning_rate=rate, epsilon=1e-6, jit_compile=True, clipnorm=0))
    assert adam == config.Adam(optax_ext.CosineDecay(0.1, 9), epsilon=1e-6)
    adamw = interop.from_keras(keras_3("AdamW", learning_rate=TENSOR, weight_decay=0.004))
    assert adamw == config.AdamW(0.1, weight_decay_rate=0.004, gradient_clip_norm=0.0)
    assert (
        interop.from_keras(
            keras_3("AdamW", learning_rate=0.1, weight_decay=0.004)["config"]
            | {"beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-7, "amsgrad": False}
        ).weight_decay_rate
        == 0.004
    )
    boundaries = {"class_name": "__tuple__", "items": [1, 2]}
    piecewise = {"class_name": "PiecewiseConstantDecay", "config": {"boundaries": boundaries, "values": [3, 2, 1]}}
    assert interop.from_keras(piecewise) == optax_ext.PiecewiseConstantDecay([1, 2], [3, 2, 1])
    inner = keras_3("SGD", learning_rate=0.1)
    wrapped = keras_3("LossScaleOptimizer", inner_optimizer=inner, initial_scale=8.0, dynamic_growth_steps=5)
    assert interop.from_keras(wrapped).loss_scale == config.DynamicLossScale(8.0, 5)
    assert interop.from_keras(keras_3("RMSprop", learning_rate=0.1)) == config.RMSprop(0.1, epsilon_in_root=True)
    adagrad = interop.from_keras(keras_3("Adagrad", learning_rate=0.1))
    assert adagrad == config.Adagrad(0.1, epsilon_in_root=True)
    with pytest.raises(config.ConfigError, match="epsilon_in_root: Keras's Adagrad has no such argument, got True"):
        interop.to_keras(adagrad, generation="older")


SGD = {"class_name": "SGD", "config": {"learning_rate": 0.1, "momentum": 0.9}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, config.DynamicLossScale()),
        ({"dynamic": True, "initial_scale": 64, "dynamic_growth_steps": 9}, config.DynamicLossScale(64, 9)),
        ({"dynamic": False, "initial_scale": 8.0, "dynamic_growth_steps": None}, config.FixedLossScale(8.0)),
        ({"loss_scale": "dynamic"}, config.DynamicLossScale()),
        ({"loss_scale": 128}, config.FixedLossScale(128)),
        (
            {"loss_scale": {"class_name": "FixedLossScale", "config": {"loss_scale_value": 4.0}}},
            config.FixedLossScale(4.0),
        ),
        (
            {
                "loss_scale": {
                    "class_name": "DynamicLossScale",
                    "config": {"initial_loss_scale": 32.0, "increment_period": 7, "multiplier": 2.0},
                }
            },
            config.DynamicLossScale(32.0, 7),
        ),
    ],
)
@pytest.mark.parametrize("class_name", ["LossScaleOptimizer", "LossScaleOptimizerV3", "LossScaleOptimizerV1", None])
@pytest.mark.parametrize("key", ["inner_optimizer", "optimizer"])
def test_loss_scale_optimizers(fields, expected, class_name, key):
    if class_name is None and key == "optimizer" and "loss_scale" not in fields:
        return  # nothing tells the class
    data = {key: SGD, **fields}
    data = data if class_name is None else {"class_name": class_name, "config": data}
    imported = interop.from_keras(data)
    assert imported == config.OptimizationConfig(config.SGD(0.1, 0.9), loss_scale=expected)
    assert interop.from_keras(interop.to_keras(imported)) == imported


def test_a_moving_average():
    fields = {"name": "ExponentialMovingAverage", "optimizer": SGD, "average_decay": 0.9, "start_step": 3}
    with pytest.warns(interop.TranslationWarning, match="trainable_weights_only is left out"):
        imported = interop.from_keras({"class_name": "ExponentialMovingAverage", "config": fields})
    assert imported == config.OptimizationConfig(config.SGD(0.1, 0.9), ema=config.ParamsEma(0.9, 3))
    both = config.OptimizationConfig(config.SGD(0.1), config.DynamicLossScale(), config.ParamsEma(0.9))
    assert interop.from_keras(interop.to_keras(both)) == both


def test_a_moving_average_of_keras_has_no_debias():
    fields = {"optimizer": SGD, "average_decay": 0.9, "debias": True}
    with pytest.raises(config.ConfigError, match="debias"):
        interop.from_keras({"class_name": "ExponentialMovingAverage", "config": fields})


def nested(**fields):
    return {"class_name": "LossScaleOptimizer", "config": {"inner_optimizer": SGD, **fields}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (7, "must be a mapping with a .class_name. and a .config., got 7"),
        ({}, "class cannot be inferred"),
        ({"class_name": "CosineDecy", "config": {}}, "did you mean 'CosineDecay'"),
        ({"class_name": "Yogi", "config": {}}, "Yogi has no counterpart here"),
        ({"class_name": 3}, "unknown class 3"),
        ({"class_name": None}, "class_name: unknown class None"),
        (
            {"class_name": "SGD", "config": {"learning_rate": {"class_name": None}}},
            "config.learning_rate.class_name: unknown class None",
        ),
        ({"class_name": "SGD", "config": 3}, "config: must be a mapping, got 3"),
        ({"class_name": "SGD", "confg": {}}, "confg: unknown field .did you mean 'config'"),
        ({"class_name": "SGD", "config": {1: 2}}, "must have text for keys"),
        ({"class_name": "LARS", "config": {"epsilon": 1e-7}}, "config.epsilon: unknown field"),
        ({"class_name": "SGD", "config": {"momentm": 0.9}}, "config.momentm: unknown field .did you mean 'momentum'"),
        ({"class_name": "SGD", "config": {"momentum": 2}}, "config.momentum: must be less than or equal to 1, got 2"),
        ({"class_name": "SGD", "config": {"learning_rate": "CosineDecay"}}, "must be a number or a schedule"),
        ({"class_name": "SGD", "config": {"learning_rate": SGD}}, "must be a schedule, got SGD"),
        (
            {"class_name": "SGD", "config": {"use_ema": True, "ema_overwrite_frequency": 10}},
            "ema_overwrite_frequency: cannot be carried over: nothing here overwrites .* got 10",
        ),
        (
            {"class_name": "SGD", "config": {"weight_decay": -0.1}},
            "weight_decay: must be greater than or equal to 0, got -0.1",
        ),
        ({"class_name": "SGD", "config": {"gradient_transformers": [len]}}, "cannot be carried over"),
        ({"class_name": "CosineDecay", "config": {"initial_learning_rate": 1.0}}, "config.decay_steps: is required"),
        ({"class_name": "CosineDecay", "config": {"offset": 3}}, "config.offset: unknown field"),
        ({"class_name": "CosineDecay", "config": {"before_offset": "hold"}}, "before_offset: unknown field"),
        ({"class_name": "LossScaleOptimizer", "config": {}}, "inner_optimizer: is required"),
        (nested(dynamic=3), "config.dynamic: must be true or false"),
        (nested(dynamic=False), "initial_scale: is required when dynamic is false"),
        (nested(dynamic=False, initial_scale=2, dynamic_growth_steps=3), "must be null when dynamic is false"),
        (nested(initial_scale=-1), "config.initial_scale: must be greater than 0, got -1"),
        (nested(dynamic_growth_steps=0), "config.dynamic_growth_steps: must be greater than 0, got 0"),
        (nested(loss_scale="fixed"), "config.loss_scale: must be a number, 'dynamic' or a loss scale, got 'fixed'"),
        (nested(loss_scale=-3), "config.loss_scale: must be greater than 0, got -3"),
        (nested(loss_scale={"class_name": "Other"}), "loss_scale.class_name: unknown class 'Other'"),
        (
            nested(loss_scale={"class_name": "DynamicLossScale", "config": {"multiplier": 3}}),
            "loss_scale.config.multiplier: must be 2, the only",
        ),
        (
            nested(loss_scale={"class_name": "DynamicLossScale", "config": {"period": 3}}),
            "loss_scale.config.period: unknown field",
        ),
        ({"class_name": "LossScaleOptimizer", "config": {"inner_optimizer": nested()}}, "must not wrap another"),
        (
            {
                "class_name": "LossScaleOptimizer",
                "config": {
                    "inner_optimizer": {"class_name": "DirectPowerDecay", "config": {"initial_learning_rate": 1}}
                },
            },
            "must be an optimizer, got DirectPowerDecay",
        ),
        ({"class_name": "ExponentialMovingAverage", "config": {}}, "config.optimizer: is required"),
        (
            {"class_name": "ExponentialMovingAverage", "config": {"optimizer": nested()}},
            "must be an optimizer by itself",
        ),
    ],
)
def test_refusals(data, message):
    with pytest.raises(config.ConfigError, match=message):
        interop.from_keras(data)


def test_all_problems_are_told_at_once():
    with pytest.raises(config.ConfigError) as caught:
        interop.from_keras(nested(initial_scale=0, bogus=1))
    assert [problem.path for problem in caught.value.problems] == ["config.initial_scale", "config.bogus"]


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        (
            optax_ext.CosineDecay(0.1, 9, before_offset="hold"),
            "before_offset: Keras's CosineDecay has no such argument",
        ),
        (optax_ext.CosineDecayRestarts(0.1, 9, offset=3), "offset: Keras's CosineDecayRestarts has no such argument"),
        (optax_ext.Constant(0.1), "Keras has no class for Constant"),
        (optax_ext.LinearWarmup(optax_ext.Constant(0.1), 9), "after: Keras has no class for Constant"),
        (config.LARS(0.1, exclude_from_layer_adaptation=[]), "an empty list means the same as None in TensorFlow"),
        (
            config.LARS(0.1, allow_unmatched=True),
            "allow_unmatched: Keras's LARS has no such argument",
        ),
        (config.LARS(0.1, separate_norms=True), "separate_norms: Keras's LARS has no such argument, got True"),
        (config.LARS(0.1, learning_rate_in_momentum=False), "learning_rate_in_momentum: Keras's LARS has no such arg"),
        (config.LARS(0.1, min_ratio=0.5), "min_ratio: Keras's LARS has no such argument, got 0.5"),
        (config.LARS(0.1, epsilon=1e-7), "epsilon: Keras's LARS has no such argument, got 1e-07"),
        (config.LAMB(0.1, max_ratio=10), "max_ratio: Keras's LAMB has no such argument, got 10"),
        (
            config.OptimizationConfig(config.SGD(0.1, clipnorm=1.0, stacked_axes={"^blocks/": [0, 1]})),
            r"optimizer.stacked_axes: Keras's SGD has no such argument, got {'\^blocks/': \[0, 1\]}",
        ),
        (
            config.LARS(0.1, exclude_from_weight_decay=["bias", "rank <= 1"]),
            "exclude_from_weight_decay: TensorFlow's patterns are of names, not of ranks, got 'rank <= 1'$",
        ),
        (
            config.AdamW(0.1, include_in_weight_decay=["rank <= 1"]),
            "include_in_weight_decay: TensorFlow's patterns are",
        ),
        (
            config.OptimizationConfig(config.SGD(0.1), config.DynamicLossScale(hysteresis=2, max_scale=2.0**20)),
            "loss_scale.hysteresis: a LossScaleOptimizer has no such argument",
        ),
        (
            config.OptimizationConfig(config.SGD(0.1), config.FixedLossScale(2, skip_nonfinite=False)),
            "loss_scale.skip_nonfinite",
        ),
        (config.OptimizationConfig(config.SGD(0.1), ema=config.ParamsEma(initial="params")), "ema.initial"),
        (config.OptimizationConfig(config.SGD(0.1), ema=config.ParamsEma(debias=True)), "ema.debias: Keras keeps the"),
        (
            config.OptimizationConfig(config.SGD(0.1), ema=config.ParamsEma(optax_ext.Constant(0.9))),
            "ema.average_decay: Keras averages with a constant decay",
        ),
        (config.OptimizationConfig(config.SGD(0.1), master_weights=True), "master_weights: Keras has no such option"),
        (3, "must be a schedule or an optimizer"),
    ],
)
def test_what_keras_cannot_express(ours, message):
    with pytest.raises(config.ConfigError, match=message):
        interop.to_keras(ours)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["LARS", "dynamic", "CosineDecay", "__tuple__", "("]),
    st.lists(st.one_of(st.none(), st.integers(-3, 3), st.text(max_size=3)), max_size=3),
    st.dictionaries(
        st.one_of(st.sampled_from(["class_name", "config", "items"]), st.integers(0, 2)), st.integers(0, 3)
    ),
)


def places(node, path=()):
    yield path
    if isinstance(node, dict):
        for key, item in node.items():
            yield from places(item, (*path, key))


@settings(max_examples=200)
@given(st.data())
def test_mutated_configs_import_or_raise_a_config_error(data):
    case = CASES[data.draw(st.sampled_from(sorted(CASES)))]
    source = whole(case)
    if case["name"].startswith("optimizer") and data.draw(st.booleans()):
        source = {"class_name": "LossScaleOptimizer", "config": {"inner_optimizer": source, "loss_scale": "dynamic"}}
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from([place for place in places(source) if place]))
        node = source
        for key in path:
            node = node[key]
        if data.draw(st.booleans()):
            node[last] = data.draw(JUNK)
        else:
            node[data.draw(st.text(max_size=4))] = node.pop(last)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interop.TranslationWarning)
        with contextlib.suppress(config.ConfigError):
            imported = interop.from_keras(source)
            assert config.from_dict(config.to_dict(imported)) == imported


@pytest.mark.parametrize("epsilon", [0, 0.0, None])
@pytest.mark.parametrize("name", ["Adam", "AdamWeightDecay", "LAMB", "RMSprop", "Adagrad"])
@pytest.mark.filterwarnings("ignore:class_name. is read as transformers")
def test_no_epsilon_is_the_one_of_the_backend(name, epsilon):
    optimizer = interop.from_keras({"class_name": name, "config": {"learning_rate": 0.1, "epsilon": epsilon}})
    assert optimizer.epsilon == 1e-7


def test_a_class_of_another_package_is_refused():
    for data in (
        {"class_name": "MyPackage>SGD", "config": {}},
        {"class_name": "SGD", "config": {}, "registered_name": "MyPackage>SGD"},
    ):
        with pytest.raises(config.ConfigError, match="'MyPackage>SGD' is a class of another package"):
            interop.from_keras(data)
    lamb = {"class_name": "Addons>LAMB", "config": {"learning_rate": 0.1}, "registered_name": "Addons>LAMB"}
    assert interop.from_keras(lamb) == config.LAMB(0.1)


def test_an_old_loss_scale_whose_config_is_none_is_refused():
    old = {"class_name": "DynamicLossScale", "config": [1]}
    data = {"class_name": "LossScaleOptimizer", "config": {"optimizer": SGD, "loss_scale": old}}
    with pytest.raises(config.ConfigError, match=r"loss_scale\.config: must be a mapping, got \[1\]"):
        interop.from_keras(data)


def test_an_adamw_in_a_loss_scale_clips_and_says_so():
    adamw = {"class_name": "AdamWeightDecay", "config": {"learning_rate": 0.1, "gradient_clip_norm": 1.0}}
    data = {"class_name": "LossScaleOptimizer", "config": {"inner_optimizer": adamw}}
    with pytest.warns(interop.TranslationWarning, match="gradient_clip_norm: also applies inside loss scaling"):
        assert interop.from_keras(data).optimizer.gradient_clip_norm == 1.0


def test_newer_optimizers_clip_and_add_epsilon_as_they_do():
    with pytest.warns(interop.TranslationWarning, match="clipvalue: is ignored because clipnorm is set"):
        sgd = interop.from_keras(keras_3("SGD", learning_rate=0.1, clipnorm=1.0, clipvalue=0.1))
    assert sgd == config.SGD(0.1, clipnorm=1.0)
    with pytest.raises(config.ConfigError, match="epsilon: must be greater than 0, got 0"):
        interop.from_keras(keras_3("Adam", learning_rate=0.1, epsilon=0))


def test_what_is_no_plain_data_is_a_config_error_too():
    itself = {"class_name": "LinearWarmup", "config": {"warmup_steps": 5}}
    itself["config"]["after_warmup_lr_sched"] = itself
    with pytest.raises(config.ConfigError, match="at most 32 levels"):
        interop.from_keras(itself)
    for field in ("exclude_from_layer_adaptation", "exclude_from_weight_decay"):
        lars = {"class_name": "LARS", "config": {"learning_rate": 0.1, field: np.array(["a", "b"])}}
        assert getattr(interop.from_keras(lars), field) == ("a", "b")
    sgd = {"class_name": "SGD", "config": {"learning_rate": 0.1, "weight_decay": np.array([0.0, 1.0])}}
    with pytest.raises(config.ConfigError, match="weight_decay: must be a number"):
        interop.from_keras(sgd)
