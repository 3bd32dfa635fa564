"""`stacked_axes` of recipes: what the field accepts, and that layers in a stack train as layers by themselves."""

import collections
import dataclasses
import inspect
import itertools
import json
import types
from collections.abc import Mapping
from typing import Annotated

import chex
import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pydantic
import pytest
import yaml

import optax_ext
from optax_ext import config
from optax_ext._core.field_types import ByPattern, NonNegativeNumber, PositiveInteger
from optax_ext._core.yaml_files import yaml_text

ACCEPTED = [
    (None, None),
    (0, 0),
    (-1, -1),
    ([0, 1], (0, 1)),
    ({"^blocks/": 0}, {"^blocks/": 0}),
    ({"^blocks/": [0, -1], "head": None, "": 2}, {"^blocks/": (0, -1), "head": None, "": 2}),
]
NO_AXIS = "must be an axis, a list of axes, or null, got "
NO_AXES = "must be an axis, a list of axes, a mapping from patterns to these, or null, got "
REFUSED = [
    (True, {"": NO_AXES + "True"}),
    ("0", {"": NO_AXES + "'0'"}),
    (0.5, {"": "must be an integer, got 0.5"}),
    (2**31, {"": "must be less than or equal to 2147483647, got 2147483648"}),
    ([], {"": "must list at least one axis, and each once, got []"}),
    ([1, 1], {"": "must list at least one axis, and each once, got [1, 1]"}),
    ([0, True, "1"], {".1": "must be an integer, got True", ".2": "must be an integer, got '1'"}),
    ({}, {"": "must be a mapping with at least one pattern, as in {'^blocks/': 0}, got {}"}),
    (
        {"^blocks/": True, "a": 0.5, "b": "0", "c": [], "d": [1, "x"], "e": {"f": 0}},
        {
            ".^blocks/": NO_AXIS + "True",
            ".a": "must be an integer, got 0.5",
            ".b": NO_AXIS + "'0'",
            ".c": "must list at least one axis, and each once, got []",
            ".d.1": "must be an integer, got 'x'",
            ".e": NO_AXIS + "{'f': 0}",
        },
    ),
    (
        {"(": 0, "rank <= 1": 0, "rank < 2": 0, "a.b": "x"},
        {
            ".(": "must be a regular expression, got '(': missing ), unterminated subpattern at position 0",
            ".rank <= 1": "must be a regular expression on paths, got 'rank <= 1', which is of ranks",
            ".rank < 2": "must be a regular expression, got 'rank < 2': a pattern of ranks is written 'rank <= 1'",
            ".a.b": NO_AXIS + "'x'",
        },
    ),
    ({"a" * 500 + f"+{index}": 0 for index in range(5)}, {"": "is too long a list: patterns may have 2000 characters"}),
]
VALIDATOR = jsonschema.Draft202012Validator(config.json_schema())
ONLY_WE_REFUSE = ("must be a regular expression", "is too long a list")


# ---------------------------------------------------------------------------------------------------------
# The field


@pytest.mark.parametrize(("given", "kept"), ACCEPTED)
def test_axes_are_accepted_kept_and_written_as_data(given, kept):
    sgd = config.SGD(0.1, stacked_axes=given)
    assert sgd.stacked_axes == kept
    data = config.to_dict(config.OptimizationConfig(sgd), exclude_defaults=True)
    expected = {"type": "sgd", "learning_rate": 0.1} | ({} if given is None else {"stacked_axes": given})
    assert data == {"optimizer": expected}
    assert VALIDATOR.is_valid(data)
    for copied in (data, json.loads(json.dumps(data)), yaml.safe_load(yaml_text(data))):
        loaded = config.from_dict(copied).optimizer
        assert loaded == sgd
        assert hash(loaded) == hash(sgd)
    assert "!" not in yaml_text(data)


@pytest.mark.parametrize(("given", "problems"), REFUSED)
def test_what_is_no_axis_is_refused_with_its_path(given, problems):
    with pytest.raises(config.ConfigError) as raised:
        config.SGD(0.1, stacked_axes=given)
    for (path, message), (place, text) in zip(raised.value.problems, problems.items(), strict=True):
        assert path == f"stacked_axes{place}"
        assert message.startswith(text)
    data = {"optimizer": {"type": "sgd", "learning_rate": 0.1, "stacked_axes": given}}
    with pytest.raises(config.ConfigError) as of_data:
        config.from_dict(data)
    paths = [f"optimizer.{path}" for path, _ in raised.value.problems]
    assert [(path, message) for path, message in of_data.value.problems] == [
        (path, message) for path, (_, message) in zip(paths, raised.value.problems, strict=True)
    ]
    only_ours = all(any(text in message for text in ONLY_WE_REFUSE) for _, message in raised.value.problems)
    assert VALIDATOR.is_valid(data) == only_ours


def test_numpy_numbers_and_any_mapping_are_accepted_as_pythons_are():
    axes = types.MappingProxyType({"a": np.int64(1), "b": np.array([0, 1]), "c": collections.deque([0])})
    assert config.SGD(0.1, stacked_axes=axes) == config.SGD(0.1, stacked_axes={"a": 1, "b": [0, 1], "c": [0]})
    assert config.SGD(0.1, stacked_axes=np.int32(1)) == config.SGD(0.1, stacked_axes=1.0)
    with pytest.raises(config.ConfigError, match=r"stacked_axes\.0: must be text, got 0"):
        config.SGD(0.1, stacked_axes={0: 0})


def test_other_values_by_pattern_take_the_same_kind_of_field():
    adapter = pydantic.TypeAdapter(Annotated[Mapping[str, NonNegativeNumber], ByPattern("{'^encoder/': 0.1}")])
    assert adapter.validate_python({"^a/": np.int64(3), "b": np.array(0.5)}, strict=True) == {"^a/": 3, "b": 0.5}
    of_integers = pydantic.TypeAdapter(Annotated[Mapping[str, PositiveInteger], ByPattern("{'^encoder/': 1}")])
    assert of_integers.validate_python({"^a/": np.int64(3)}, strict=True) == {"^a/": 3}
    with pytest.raises(pydantic.ValidationError) as raised:
        adapter.validate_python({"^a/": -1.0, "b": "2"}, strict=True)
    assert [error["loc"] for error in raised.value.errors()] == [("^a/",), ("b",)]
    with pytest.raises(
        pydantic.ValidationError, match=r"with at least one pattern, as in {'\^encoder/': 0.1}, got \[\]"
    ):
        adapter.validate_python([], strict=True)


def test_the_mapping_is_not_the_one_that_was_given_and_does_not_change():
    given = {"^blocks/": 0}
    lars = config.LARS(0.1, stacked_axes=given)
    given["head"] = 1
    assert lars.stacked_axes == {"^blocks/": 0}
    with pytest.raises(TypeError):
        lars.stacked_axes["head"] = 1
    assert repr(lars) == "LARS(learning_rate=0.1, stacked_axes={'^blocks/': 0})"
    assert eval(repr(lars), {"LARS": config.LARS}) == lars


def test_help_and_editors_see_plain_types():
    annotation = str(inspect.signature(config.LAMB).parameters["stacked_axes"].annotation).replace(
        "collections.abc.", ""
    )
    assert annotation == "int | Sequence[int] | Mapping[str, int | Sequence[int] | None] | None"
    field = config.json_schema()["$defs"]["lamb"]["properties"]["stacked_axes"]
    assert [kind["type"] for kind in field["anyOf"]] == ["integer", "array", "object", "null"]
    assert field["description"].startswith("The axes of parameters that count layers")


# ---------------------------------------------------------------------------------------------------------
# What it does

SCALES = jnp.array([1.0, 10.0, 100.0])
STACKED = {
    "blocks": {"kernel": SCALES[:, None, None] * jnp.ones((3, 2, 2)), "bias": SCALES[:, None] * jnp.ones((3, 2))}
}
STACKED["head"] = {"kernel": jnp.array([[3.0, 4.0]])}
UNROLLED = {f"block{i}": jax.tree.map(lambda leaf, i=i: leaf[i], STACKED["blocks"]) for i in range(3)}
UNROLLED["head"] = STACKED["head"]
TRAINED = [
    config.LARS(0.1, weight_decay_rate=0.25, exclude_from_weight_decay=["rank <= 1"]),
    config.LARS(0.1, weight_decay_rate=0.25, separate_norms=True, max_ratio=0.002, exclude_from_layer_adaptation=[]),
    config.LAMB(0.1, weight_decay_rate=0.25, min_ratio=0.5, max_ratio=50.0, exclude_from_weight_decay=["bias"]),
    config.AdamW(0.1, weight_decay_rate=0.25, clipnorm=0.5, exclude_from_weight_decay=["rank <= 1"]),
    config.SGD(0.1, clipnorm=0.5),
    config.LAMB(0.1, weight_decay_rate=0.25, decoupled_weight_decay=True, exclude_from_layer_adaptation=["rank <= 1"]),
    config.Adafactor(0.5, weight_decay_rate=0.25, clip_threshold=0.5),
    config.Muon(0.1, exclude_layers=["head"]),
]


UNMATCHED = {"allow_unmatched": True}  # where a stack of biases has rank 2, no parameter has rank 1


def grads_of(params):
    return jax.tree.map(lambda leaf: jnp.arange(leaf.size, dtype=jnp.float32).reshape(leaf.shape) % 2 - leaf, params)


def updates_of(schema, params):
    tx = schema.make()
    updates, _ = tx.update(grads_of(params), tx.init(params), params)
    return updates


@pytest.mark.parametrize("schema", TRAINED, ids=lambda schema: f"{schema.type}-{TRAINED.index(schema)}")
@pytest.mark.parametrize("axes", [{"^blocks/": 0}, {"^blocks/kernel": [0], "bias": -2}])
def test_layers_in_a_stack_are_updated_as_layers_by_themselves(schema, axes):
    stacked = config.from_dict(config.to_dict(schema) | {"stacked_axes": axes})
    updates, expected = updates_of(stacked, STACKED), updates_of(schema, UNROLLED)
    for i in range(3):
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, i=i: leaf[i], updates["blocks"]), expected[f"block{i}"], rtol=1e-6
        )
    chex.assert_trees_all_close(updates["head"], expected["head"], rtol=1e-6)
    without = updates_of(dataclasses.replace(schema, **UNMATCHED), STACKED)  # by norms and ranks that no layer has
    pairs = zip(*map(jax.tree.leaves, (without["blocks"], updates["blocks"])), strict=True)
    assert not all(np.allclose(*pair, rtol=1e-3) for pair in pairs)


@pytest.mark.parametrize("cls", [config.LARS, config.LAMB, config.AdamW])
def test_the_masks_of_ranks_are_of_one_layer(cls):
    schema = cls(0.1, exclude_from_weight_decay=["rank <= 1"], stacked_axes={"^blocks/": 0})
    expected = {"blocks": {"bias": False, "kernel": True}, "head": {"kernel": True}}
    assert all(mask(STACKED) == expected for mask in schema.masks().values())
    including = config.AdamW(
        0.1, include_in_weight_decay=["rank <= 1"], exclude_from_weight_decay=[""], stacked_axes={"^blocks/": 0}
    )
    opposite = jax.tree.map(lambda decays: not decays, expected)
    assert including.masks()["weight decay"](STACKED) == opposite
    every = cls(0.1, exclude_from_weight_decay=["rank <= 1"]).masks(allow_unmatched=True)
    assert every["weight decay"](STACKED)["blocks"]["bias"]  # a stack of biases has two axes


def test_a_pattern_of_ranks_that_matches_nothing_says_which_ranks_there_are():
    with pytest.raises(ValueError, match=r"'rank <= 0' matches none of the 3 parameters, whose ranks are '1', '2'"):
        config.AdamW(0.1, exclude_from_weight_decay=["rank <= 0"], stacked_axes={"^blocks/": 0}).make().init(STACKED)


# ---------------------------------------------------------------------------------------------------------
# What does not fit the parameters

FAMILY = [
    getattr(config, name)
    for name in ("LARS", "LAMB", "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Ftrl", "Adafactor", "Muon")
]
UNFIT = [
    ({"^blocks/": 0, "^blcks/": 0}, r"the pattern '\^blcks/' matches none of the 3 parameters"),
    ({"": 2}, r"the parameter '\w+/\w+' must have axis 2, got the shape \("),
    (2, r"the parameter '\w+/\w+' must have axis 2, got the shape \("),
]


@pytest.mark.parametrize(("cls", "clipnorm"), list(itertools.product(FAMILY, [None, 1.0])))
@pytest.mark.parametrize(("axes", "message"), UNFIT)
def test_axes_that_do_not_fit_are_an_error_at_init_whatever_uses_them(cls, clipnorm, axes, message):
    with pytest.raises(ValueError, match=message):
        cls(0.1, stacked_axes=axes, clipnorm=clipnorm).make().init(STACKED)


@pytest.mark.parametrize("cls", FAMILY)
def test_a_pattern_of_axes_may_match_nothing_where_the_recipe_allows_it(cls):
    schema = cls(0.1, stacked_axes={"^blocks/": 0, "^blcks/": 0}, allow_unmatched=True, clipnorm=1.0)
    schema.make().init(STACKED)
    assert schema.layer_axes() == optax_ext.path_axes({"^blocks/": 0, "^blcks/": 0}, allow_unmatched=True)
    with pytest.raises(ValueError, match=r"'\^blcks/' matches none"):
        schema.layer_axes(allow_unmatched=False)(STACKED)


def test_an_optimizer_without_a_norm_of_layers_only_checks_the_axes():
    plain, stacked = config.Adam(0.1), config.Adam(0.1, stacked_axes={"^blocks/": 0})
    assert [stage.name for stage in stacked.stages() if not stage.does_nothing] == ["moments", "learning rate"]
    assert config.LARS(0.1, stacked_axes=0).stages()[0].name == "weight decay"
    chex.assert_trees_all_equal(updates_of(plain, STACKED), updates_of(stacked, STACKED))


# ---------------------------------------------------------------------------------------------------------
# The other new fields of LARS and LAMB


@pytest.mark.parametrize(
    ("make", "path", "message"),
    [
        (lambda: config.LARS(0.1, min_ratio=-1.0), "min_ratio", "must be greater than or equal to 0, got -1"),
        (lambda: config.LARS(0.1, max_ratio=0), "max_ratio", "must be greater than 0, got 0"),
        (lambda: config.LAMB(0.1, max_ratio=float("inf")), "max_ratio", "must be a finite number, got inf"),
        (lambda: config.LARS(0.1, min_ratio=2, max_ratio=1.5), "max_ratio", "must be at least min_ratio = 2, got 1.5"),
        (lambda: config.LAMB(0.1, max_ratio=1, min_ratio=2), "max_ratio", "must be at least min_ratio = 2, got 1"),
        (lambda: config.LARS(0.1, separate_norms=1), "separate_norms", "must be true or false, got 1"),
        (
            lambda: config.LARS(0.1, separate_norms=True, classic_momentum=False),
            "separate_norms",
            "needs classic_momentum, got true with classic_momentum false",
        ),
        (lambda: config.LAMB(0.1, separate_norms=True), "separate_norms", "unknown field"),
        (lambda: config.LARS(0.1, trust_coeff=1.0), "trust_coeff", "unknown field (did you mean 'eeta'?)"),
        (lambda: config.SGD(0.1, scan_axis=1), "scan_axis", "unknown field (did you mean 'stacked_axes'?)"),
        (lambda: config.LAMB(0.1, max_coeff=10), "max_coeff", "unknown field (did you mean 'max_ratio'?)"),
    ],
)
def test_errors(make, path, message):
    with pytest.raises(config.ConfigError) as raised:
        make()
    (problem,) = raised.value.problems
    assert problem.path == path
    assert problem.message.startswith(message)


def test_limits_may_be_equal_and_no_limit_is_none():
    assert config.LAMB(0.1, min_ratio=2, max_ratio=2).max_ratio == 2
    assert config.LARS(0.1, min_ratio=1e30).max_ratio is None
    assert config.LARS(0.1, separate_norms=True).classic_momentum


@pytest.mark.parametrize(
    ("cls", "function", "limits"),
    [
        (config.LARS, optax_ext.lars, {"separate_norms": True}),
        (config.LARS, optax_ext.lars, {"max_ratio": 0.0003}),
        (config.LARS, optax_ext.lars, {"min_ratio": 0.01, "max_ratio": 0.02}),
        (config.LAMB, optax_ext.lamb, {"max_ratio": 5.0}),
        (config.LAMB, optax_ext.lamb, {"min_ratio": 20.0}),
    ],
)
def test_recipes_of_lars_and_lamb_are_the_functions_with_the_same_words(cls, function, limits):
    axes, no_bias = optax_ext.path_axes({"^blocks/": 0}), optax_ext.path_mask(exclude=["bias"])
    fields = {"weight_decay_rate": 0.1875, "exclude_from_weight_decay": ["bias"], "stacked_axes": {"^blocks/": 0}}
    by_mask = {"weight_decay_mask": no_bias, "trust_ratio_mask": no_bias, "weight_decay": 0.1875, "stacked_axes": axes}
    tx, schema = function(0.1, **limits, **by_mask), cls(0.1, **limits, **fields)
    updates, _ = tx.update(grads_of(STACKED), tx.init(STACKED), STACKED)
    chex.assert_trees_all_close(updates_of(schema, STACKED), updates, rtol=1e-4)
    without = updates_of(cls(0.1, **fields), STACKED)
    assert not np.allclose(without["blocks"]["kernel"], updates["blocks"]["kernel"], rtol=1e-3)


@pytest.mark.parametrize("cls", [config.LARS, config.LAMB])
def test_a_recipe_records_where_it_says_so(cls):
    def keeps_ratios(schema):
        state = schema.make().init(STACKED)
        return "trust_ratio" in str(jax.tree_util.tree_leaves_with_path(state))

    assert keeps_ratios(cls(0.1, record=True))
    assert not keeps_ratios(cls(0.1))
