"""Real recipes of Model Garden: each loads or is refused with a reason, and learning rates are TensorFlow's."""

import collections
import copy
import json
import warnings
from pathlib import Path

import ml_collections
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import optax_ext
from optax_ext import config, interop
from optax_ext.interop._report import Report
from optax_ext.interop.model_garden._overrides import read_recipe
from optax_ext.interop.model_garden._recipe import read_learning_rate
from optax_ext.interop.model_garden._sections import MEMBERS, SECTIONS

RECORDS = json.loads((Path(__file__).parent / "data" / "model_garden.json").read_text())["records"]
BASES = {record["experiment"]: record for record in RECORDS if record["source"] == "python" and "experiment" in record}


def experiment(record):
    runtime = {key: record[key] for key in ("mixed_precision_dtype", "loss_scale") if key in record}
    return {"runtime": runtime, "task": {}, "trainer": {"optimizer_config": record["optimizer_config"]}}


def load(source, base=None, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interop.TranslationWarning)
        return interop.from_model_garden(source, base, **kwargs)


def base_of(record):
    """Return the Python experiment where the corpus has it, and what TensorFlow made of the record where not."""
    if record["source"] == "yaml" and record.get("experiment") in BASES:
        return BASES[record["experiment"]]["optimizer_config"]
    return record.get("tensorflow", {}).get("effective")


def reason(record, base=None):
    """Return "loads", or why not: what is missing, foreign or wrong."""
    try:
        load(experiment(record), base)
    except config.ConfigError as error:
        texts = [str(problem) for problem in error.problems]
        for foreign in ("sgd_torch", "vit_adamw", "scaled_sgd", "sgd_dymow", "sgd_dymo", "sgd_accum", "cosine_epoch"):
            if any(f"type: {foreign!r} is not one of Model Garden's own types" in text for text in texts):
                return "foreign type"
        if any("is missing" in text for text in texts):
            return "partial"
        return min(texts)
    return "loads"


def test_the_adafactor_of_keras():
    optimizer = {"type": "adafactor_keras", "adafactor_keras": {"relative_step": False, "clip_threshold": 2.0}}
    rate = {"type": "constant", "constant": {"learning_rate": 0.5}}
    recipe = interop.from_model_garden({"optimizer": optimizer, "learning_rate": rate})
    assert recipe.optimizer == config.Adafactor(0.5, relative_step=False, clip_threshold=2.0)


def test_every_record_loads_or_is_refused_with_a_reason():
    assert len(RECORDS) == 133
    counts = collections.Counter(reason(record) for record in RECORDS)
    assert counts == ALONE
    assert collections.Counter(reason(record, base_of(record)) for record in RECORDS) == WITH_BASE


RMSPROP_DECAY = (
    "optimizer.rmsprop.decay: unknown field, accepted: "
    "clipnorm, clipvalue, global_clipnorm, name, rho, momentum, epsilon, centered"
)
UNRESOLVED = "learning_rate.cosine.decay_steps: must be an integer, got '<unresolved: train_epochs * steps_per_epoch>'"
ALONE = {"loads": 79, "partial": 39, "foreign type": 13, RMSPROP_DECAY: 1, UNRESOLVED: 1}
WITH_BASE = {"loads": 84, "partial": 31, "foreign type": 16, RMSPROP_DECAY: 1, UNRESOLVED: 1}


def test_whatever_model_garden_builds_of_its_own_types_loads():
    for record in RECORDS:
        outcome = reason(record, base_of(record))
        assert outcome == "loads" or outcome == "foreign type" or "optimizer" not in record["tensorflow"]


def rates(learning_rate, steps):
    if isinstance(learning_rate, float):
        return np.full(len(steps), learning_rate, np.float32)
    return np.asarray(learning_rate(np.array(steps)))


@pytest.mark.parametrize(
    "record", [r for r in RECORDS if "lr_values" in r["tensorflow"]], ids=lambda r: r["path"][-30:]
)
def test_learning_rates_are_those_that_tensorflow_recorded(record):
    tensorflow = record["tensorflow"]
    expected = tensorflow["lr_values"]
    steps = [int(step) for step in expected]
    sources = [(tensorflow["effective"], None), (experiment(record), base_of(record))]
    if reason(record) == "loads":
        sources.append((experiment(record), None))
    for source, base in sources:
        if "sgd_torch" in json.dumps(tensorflow["effective"]["optimizer"]):  # refused, but for its rate
            report = Report()
            rate = read_learning_rate(read_recipe(source, base, report), report)
            assert not report.problems
        else:
            rate = load(source, base).optimizer.learning_rate
        np.testing.assert_allclose(rates(rate, steps), list(expected.values()), rtol=2e-5)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["path"][-30:])
def test_what_loads_can_be_saved_and_made(record):
    if reason(record, base_of(record)) == "loads":
        recipe = load(experiment(record), base_of(record))
        assert config.from_dict(json.loads(json.dumps(config.to_dict(recipe)))) == recipe
        recipe.make()
        float16 = record.get("mixed_precision_dtype") == "float16"
        assert (recipe.loss_scale is not None) == float16


# ---------------------------------------------------------------------------------------------------------
# Semantics, one by one

COSINE = {"type": "cosine", "cosine": {"initial_learning_rate": 0.1, "decay_steps": 100}}
SGD = {"optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}}, "learning_rate": COSINE}
TRAINER = {"trainer": {"optimizer_config": SGD}}
ADAMW = {"optimizer": {"type": "adamw"}, "learning_rate": COSINE}


def with_(recipe, **sections):
    return {**recipe, **sections}


def adamw(**fields):
    return with_(ADAMW, optimizer={"type": "adamw", "adamw": fields})


def test_a_type_selects_and_other_members_are_ignored_but_valid():
    recipe = with_(SGD, optimizer={"type": "sgd", "adamw": {"weight_decay_rate": 0.5}})
    assert load(recipe).optimizer == config.SGD(optax_ext.CosineDecay(0.1, 100))
    recipe["optimizer"]["adamw"] = {"weight_decay": 0.5}
    with pytest.raises(config.ConfigError, match=r"optimizer.adamw.weight_decay: unknown field .*weight_decay_rate"):
        load(recipe)


def test_a_partial_file_needs_its_base():
    partial = {"learning_rate": {"cosine": {"decay_steps": 7}}, "warmup": {"linear": {"warmup_steps": 3}}}
    with pytest.raises(config.ConfigError) as caught:
        load(partial)
    missing = [problem.path for problem in caught.value.problems]
    rate = ["learning_rate.cosine.initial_learning_rate", "learning_rate.type"]
    assert sorted(missing) == ["base", *rate, "optimizer.type", "warmup.type"]
    base = with_(SGD, warmup={"type": "linear", "linear": {"warmup_steps": 1, "warmup_learning_rate": 0.01}})
    recipe = load(partial, base)
    assert recipe.optimizer.momentum == 0.9
    assert recipe.optimizer.learning_rate == optax_ext.LinearWarmup(optax_ext.CosineDecay(0.1, 7), 3, 0.01)


def test_lists_are_replaced_whole_and_leaves_one_by_one():
    stepwise = {"type": "stepwise", "stepwise": {"boundaries": [1, 2], "values": [3.0, 2.0, 1.0]}}
    over = {"learning_rate": {"stepwise": {"boundaries": [5, 6]}}}
    rate = load(over, with_(SGD, learning_rate=stepwise)).optimizer.learning_rate
    assert rate == optax_ext.PiecewiseConstantDecay([5, 6], [3.0, 2.0, 1.0])


def test_switching_the_type_keeps_what_the_base_set_for_the_other_member():
    base = with_(SGD, optimizer={"type": "sgd", "adamw": {"gradient_clip_norm": 0.0}})
    assert load({"optimizer": {"type": "adamw"}}, base).optimizer.gradient_clip_norm == 0.0


@pytest.mark.parametrize("warmup", [{"type": None}, {"type": "linear", "linear": {"warmup_steps": 0}}, {}])
def test_no_warmup(warmup):
    base = with_(SGD, ema={"average_decay": 0.9})
    recipe = load({"warmup": warmup, "ema": None}, base)
    assert recipe.optimizer.learning_rate == optax_ext.CosineDecay(0.1, 100)
    assert recipe.ema is None
    assert load(base).ema == config.ParamsEma(0.9)
    assert load(with_(SGD, ema={})).ema == config.ParamsEma()


def test_a_null_warmup_is_none_with_a_warning():
    with pytest.warns(interop.TranslationWarning, match="warmup: null is read as no warm-up"):
        interop.from_model_garden(with_(SGD, warmup=None))


def test_a_block_that_no_type_selects_is_ignored_over_a_base_with_a_warning():
    with pytest.warns(interop.TranslationWarning, match="since no type selects it: there is no warm-up"):
        recipe = interop.from_model_garden({"warmup": {"linear": {"warmup_steps": 3}}}, SGD)
    assert recipe.optimizer.learning_rate == optax_ext.CosineDecay(0.1, 100)


def test_clipping():
    assert load(ADAMW).optimizer.gradient_clip_norm == 1.0
    assert load(adamw(gradient_clip_norm=0)).optimizer.gradient_clip_norm == 0
    assert load(adamw(gradient_clip_norm=-1)).optimizer.gradient_clip_norm == 0
    assert load(adamw(clipnorm=None, global_clipnorm=None)).optimizer.clipnorm is None
    sgd = {"type": "sgd", "sgd": {"global_clipnorm": -1.0, "clipvalue": 2}}
    assert load(with_(SGD, optimizer=sgd)).optimizer == config.SGD(optax_ext.CosineDecay(0.1, 100), clipvalue=2)
    experimental = {"type": "adamw_experimental", "adamw_experimental": {"weight_decay": 0.05}}
    optimizer = load(with_(SGD, optimizer=experimental)).optimizer
    assert optimizer == config.AdamW(
        optax_ext.CosineDecay(0.1, 100), weight_decay_rate=0.05, gradient_clip_norm=0.0, global_clipnorm=1.0
    )
    experimental["adamw_experimental"]["global_clipnorm"] = 0
    assert load(with_(SGD, optimizer=experimental)).optimizer.global_clipnorm is None


def test_numbers_that_yaml_takes_for_text():
    recipe = with_(
        SGD, learning_rate={"type": "cosine", "cosine": {"initial_learning_rate": "1e-4", "decay_steps": "1e4"}}
    )
    assert load(recipe).optimizer.learning_rate == optax_ext.CosineDecay(1e-4, 10_000)


def test_a_text_for_a_list_is_one_pattern():
    with pytest.warns(interop.TranslationWarning) as caught:
        optimizer = interop.from_model_garden(adamw(include_in_weight_decay=".*(kernel|weight):0$")).optimizer
    assert [str(warning.message).partition(",")[0].partition(": ")[2][:20] for warning in caught] == [
        "the text '.*(kernel|",
        "no other parameter d",
    ]
    params = {"Dense_0": {"kernel": np.ones((2, 2)), "bias": np.ones(2)}, "head": {"weight": np.ones(2)}}
    assert optimizer.masks()["weight decay"](params) == {
        "Dense_0": {"kernel": True, "bias": False},
        "head": {"weight": True},
    }
    with pytest.warns(interop.TranslationWarning, match="has no effect, as in TensorFlow"):
        assert interop.from_model_garden(adamw(include_in_weight_decay=["kernel"])).optimizer.masks()["weight decay"](
            params
        )["Dense_0"]["bias"]


def test_a_field_beside_the_type_is_read():
    rate = {"type": "cosine", "initial_learning_rate": 0.3, "cosine": {"decay_steps": 100}}
    with pytest.warns(interop.TranslationWarning, match=r"is read as learning_rate.cosine.initial_learning_rate"):
        recipe = interop.from_model_garden(with_(SGD, learning_rate=rate))
    assert recipe.optimizer.learning_rate == optax_ext.CosineDecay(0.3, 100)


def test_both_spellings_of_layer_norm():
    both = adamw(exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"], weight_decay_rate=0.1)
    with pytest.warns(interop.TranslationWarning, match="are the same pattern") as caught:
        recipe = interop.from_model_garden(both)
    assert len(caught) == 1
    assert len(recipe.optimizer.exclude_from_weight_decay) == 2
    recipe.make().init({"LayerNorm_0": {"scale": np.ones(2)}, "Dense_0": {"bias": np.ones(2), "kernel": np.ones(2)}})
    untranslated = load(both, translate_patterns=False).optimizer
    assert untranslated.exclude_from_weight_decay == ("LayerNorm", "layer_norm", "bias")


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        ({}, None),
        ({"mixed_precision_dtype": "float16"}, config.DynamicLossScale()),
        ({"mixed_precision_dtype": "float16", "loss_scale": "dynamic"}, config.DynamicLossScale()),
        ({"mixed_precision_dtype": "float16", "loss_scale": 128}, config.FixedLossScale(128)),
        ({"mixed_precision_dtype": "float32", "loss_scale": "dynamic"}, None),
        ({"mixed_precision_dtype": "bfloat16"}, None),
        ({"loss_scale": 128}, None),
    ],
)
def test_loss_scales(runtime, expected):
    assert load({"runtime": runtime, "trainer": {"optimizer_config": SGD}}).loss_scale == expected


YAML = """
runtime: {distribution_strategy: tpu, mixed_precision_dtype: float16}
task: {model: {input_size: !!python/tuple [224, 224, 3]}}
trainer:
  train_steps: 10
  optimizer_config:
    optimizer:
      type: adamw
      adamw: {weight_decay_rate: 1e-5, exclude_from_weight_decay: !!python/list [bias]}
    learning_rate: {type: cosine, cosine: {initial_learning_rate: 1E-4, decay_steps: 100}}
"""


def test_a_file(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(YAML)
    with pytest.warns(interop.TranslationWarning, match="gradient_clip_norm: also applies inside loss scaling"):
        recipe = interop.from_model_garden(file)
    assert recipe.optimizer.weight_decay_rate == 1e-5
    assert recipe.optimizer.exclude_from_weight_decay == ("bias",)
    assert recipe.loss_scale == config.DynamicLossScale()
    over = tmp_path / "over.json"
    over.write_text(json.dumps({"trainer": {"optimizer_config": {"learning_rate": {"cosine": {"decay_steps": 7}}}}}))
    with pytest.warns(interop.TranslationWarning):
        assert interop.from_model_garden(str(over), str(file)).optimizer.learning_rate.decay_steps == 7


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/name:os.system", "!!python/dict"])
def test_nothing_else_of_python_is_read(tmp_path, tag):
    file = tmp_path / "recipe.yaml"
    file.write_text(YAML.replace("!!python/tuple", tag))
    with pytest.raises(config.ConfigError, match="could not determine a constructor for the tag"):
        interop.from_model_garden(file)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (3, "must be a mapping or the path of a file"),
        ("no/such/file.yaml", "there is no such file"),
        ({"optimiser": {}}, "unknown section .did you mean 'optimizer'"),
        ({"trainer": {"optimizer_config": None}}, "optimizer_config: is null"),
        ({"trainer": 3}, "trainer: must be a mapping, got 3"),
        (with_(SGD, ema=""), "ema: must be a mapping, or null for none, got ''"),
        (with_(SGD, ema={"bogus": 1}), "ema.bogus: unknown field"),
        (with_(SGD, ema={"clipnorm": 1.0}), "ema.clipnorm: cannot be carried over, got 1.0: set it for the optimizer"),
        (with_(SGD, ema={"average_decay": 2}), "ema.average_decay: must be less than or equal to 1, got 2"),
        (with_(SGD, optimizer={"type": "sgd", "sgd": None}), "sgd: is null, which TensorFlow treats as if no type"),
        (with_(SGD, optimizer={"type": "sgd", "sgd": 3}), "optimizer.sgd: must be a mapping, got 3"),
        (with_(SGD, optimizer={"type": "slide"}), "optimizer.type: 'slide' has no counterpart"),
        (with_(SGD, optimizer={"type": "adafactor"}), "optimizer.type: 'adafactor' has no counterpart"),
        (with_(SGD, optimizer={"type": "rmspro"}), "did you mean 'rmsprop'"),
        (with_(SGD, optimizer={"type": "vit_adamw"}), "'vit_adamw' is not one of Model Garden's own types"),
        (with_(SGD, optimizer={"type": ["sgd"]}), "optimizer.type"),
        (with_(SGD, optimizer={"type": "sgd", "sgd": {"momentum": "much"}}), "sgd.momentum: must be a number"),
        (with_(SGD, learning_rate={"type": "cosine", "cosine": {"decay_steps": 5}}), "rate: is missing"),
        (
            with_(SGD, learning_rate={**COSINE, "initial_learning_rate": 0.2}),
            "learning_rate.initial_learning_rate: is 0.2, and learning_rate.cosine.initial_learning_rate is 0.1",
        ),
        (with_(SGD, warmup={"type": "linear"}), "warmup.linear.warmup_steps: is missing"),
        ({"runtime": {"mixed_precision_dtype": "half"}, **TRAINER}, "must be one of"),
        (
            {"runtime": {"mixed_precision_dtype": "float16", "loss_scale": "big"}, **TRAINER},
            "loss_scale: must be 'dynamic', a number or null, got 'big'",
        ),
        (
            {"runtime": {"mixed_precision_dtype": "float16", "loss_scale": -1}, **TRAINER},
            "runtime.loss_scale: must be greater than 0, got -1",
        ),
    ],
)  # fmt: skip
def test_refusals(recipe, message):
    with pytest.raises(config.ConfigError, match=message):
        load(recipe)


@pytest.mark.parametrize("member", sorted(SECTIONS["optimizer"]))
def test_every_member_of_the_schema_is_read_or_refused(member):
    recipe = with_(SGD, optimizer={"type": member})
    if member in MEMBERS["optimizer"]:
        load(recipe).make()
    else:
        with pytest.raises(
            config.ConfigError, match=f"'{member}' has no counterpart that returns TensorFlow's numbers"
        ):
            load(recipe)


# ---------------------------------------------------------------------------------------------------------
# Mutated records: whatever a file holds, it loads or there is a ConfigError.

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["sgd", "adamw", "cosine", "linear", "1e-4", "(", ".*:0$", "nan"]),
    st.lists(st.one_of(st.none(), st.integers(-3, 3), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.one_of(st.text(max_size=4), st.integers(0, 2)), st.integers(0, 3), max_size=2),
)


def places(node, path=()):
    yield path
    if isinstance(node, dict):
        for key, item in node.items():
            yield from places(item, (*path, key))


@pytest.mark.filterwarnings("ignore:.*climbs to a schedule that is 0:UserWarning")  # as some of these do
@settings(max_examples=200)
@given(st.data())
def test_mutated_records_load_or_raise_a_config_error(data):
    source = copy.deepcopy(experiment(data.draw(st.sampled_from(RECORDS))))
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from([place for place in places(source) if place]))
        node = source
        for key in path:
            node = node[key]
        action = data.draw(st.sampled_from(["replace", "remove", "rename", "add"]))
        if action == "replace":
            node[last] = data.draw(JUNK)
        elif action == "add":
            node[data.draw(st.text(max_size=5))] = data.draw(JUNK)
        else:
            value = node.pop(last)
            if action == "rename":
                node[data.draw(st.one_of(st.text(max_size=5), st.sampled_from(["type", "name", "linear"])))] = value
    base = data.draw(st.sampled_from([None, SGD, source]))
    try:
        recipe = load(source, base)
    except config.ConfigError:
        return
    assert config.from_dict(config.to_dict(recipe)) == recipe


@pytest.mark.parametrize("epsilon", [0, "0", None])
def test_no_epsilon_is_the_one_of_the_backend(epsilon):
    recipe = interop.from_model_garden(
        {
            "optimizer": {"type": "lamb", "lamb": {"epsilon": epsilon}},
            "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}},
        }
    )
    assert recipe.optimizer.epsilon == 1e-7


RATE = {"learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}}}


def test_newer_optimizers_clip_as_they_do():
    def read(**clips):
        return interop.from_model_garden(
            {"optimizer": {"type": "sgd_experimental", "sgd_experimental": clips}, **RATE}
        ).optimizer

    assert read(clipvalue=0.0, clipnorm=-1, global_clipnorm=0) == config.SGD(0.1)
    with pytest.warns(interop.TranslationWarning, match="clipvalue: is ignored because clipnorm is set"):
        assert read(clipvalue=0.1, clipnorm=1.0) == config.SGD(0.1, clipnorm=1.0)
    legacy = {"optimizer": {"type": "sgd", "sgd": {"clipvalue": 0.1, "clipnorm": 1.0}}, **RATE}
    assert interop.from_model_garden(legacy).optimizer == config.SGD(0.1, clipnorm=1.0, clipvalue=0.1)


SAME_CLASS = {
    "sgd": "SGD",
    "sgd_experimental": "SGD",
    "adam": "Adam",
    "adam_experimental": "Adam",
    "adamw": "AdamWeightDecay",
    "adamw_experimental": "AdamW",
    "lamb": "LAMB",
    "rmsprop": "RMSprop",
    "lars": "LARS",
    "adagrad": "Adagrad",
}


@pytest.mark.parametrize("member", SAME_CLASS)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"epsilon": 0},
        {"epsilon": None},
        {"clipnorm": 1.0, "clipvalue": 0.5, "global_clipnorm": None},
        {"clipnorm": 0.0, "clipvalue": 0.5, "global_clipnorm": None},
        {"exclude_from_layer_adaptation": [], "exclude_from_weight_decay": ["gamma"]},
        {"exclude_from_layer_adaptation": ["layer_norm", "LayerNorm"]},
        {"exclude_from_weight_decay": "bias"},
    ],
    ids=repr,
)
def test_a_member_reads_as_its_class_does_in_a_config_of_keras(member, fields):
    known = SECTIONS["optimizer"][member].keys()
    block = {key: value for key, value in SECTIONS["optimizer"][member].items() if key != "name"} | fields
    block = {key: value for key, value in block.items() if key in known}
    keras = {"class_name": SAME_CLASS[member], "config": {"learning_rate": 0.1, **block}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interop.TranslationWarning)
        try:
            expected = interop.from_keras(keras)
        except config.ConfigError as error:
            messages = [problem.message for problem in error.problems]
            with pytest.raises(config.ConfigError) as caught:
                load({"optimizer": {"type": member, member: block}, **RATE})
            assert [problem.message for problem in caught.value.problems] == messages
            return
    assert load({"optimizer": {"type": member, member: block}, **RATE}).optimizer == expected


def test_null_and_empty_fields_are_not_given():
    assert load(adamw(exclude_from_weight_decay=[])).optimizer.exclude_from_weight_decay is None
    exponential = {"initial_learning_rate": 0.1, "decay_steps": 9, "decay_rate": 0.5, "staircase": None}
    recipe = load(with_(SGD, learning_rate={"type": "exponential", "exponential": exponential}))
    assert recipe.optimizer.learning_rate == optax_ext.ExponentialDecay(0.1, 9, 0.5)
    with pytest.raises(config.ConfigError, match="optimizer.adamw.beta_1: must be a number, got None"):
        load(adamw(beta_1=None))


@pytest.mark.parametrize(("norm", "noted"), [(None, True), (1, True), ("1.0", True), (2.0, False)])
def test_a_note_says_that_adamw_clips_by_default(norm, noted):
    recipe = ADAMW if norm is None else adamw(gradient_clip_norm=norm)
    note = interop.Note(
        "optimizer.adamw.gradient_clip_norm", "is 1.0, the default of adamw: gradients are clipped", False
    )
    assert (note in interop.translate(recipe).notes) is noted


def test_what_a_base_has_too_much_is_refused():
    base = {"optimizer": {"type": "sgd", "sgd": {"include_in_weight_decay": ["kernel"]}}, **RATE}
    with pytest.raises(config.ConfigError, match="optimizer.sgd.include_in_weight_decay: unknown field, accepted: "):
        interop.from_model_garden({}, base)


def test_a_block_of_recipe_and_base_is_named_once():
    warmup = {"warmup": {"linear": {"warmup_steps": 3}}}
    with pytest.warns(interop.TranslationWarning, match="warmup: 'linear' is ignored, as in TensorFlow, since no type"):
        interop.from_model_garden(warmup, with_(SGD, **warmup))


@pytest.mark.parametrize(("member", "epsilon"), [("adam_experimental", 0), ("adam", False)])
def test_an_epsilon_that_is_none_to_nobody_is_refused(member, epsilon):
    recipe = {"optimizer": {"type": member, member: {"epsilon": epsilon}}, **RATE}
    with pytest.raises(config.ConfigError, match="epsilon: must be"):
        interop.from_model_garden(recipe)


def test_containers_and_arrays_are_plain_data():
    pieces = {"boundaries": np.array([1, 2]), "values": np.array([3.0, 2.0, 1.0])}
    recipe = {"optimizer": {"type": "sgd"}, "learning_rate": {"type": "stepwise", "stepwise": pieces, **pieces}}
    with pytest.warns(interop.TranslationWarning):
        assert interop.from_model_garden(recipe).optimizer.learning_rate.boundaries == (1, 2)
    with pytest.warns(interop.TranslationWarning):
        interop.from_model_garden(ml_collections.ConfigDict(recipe))
