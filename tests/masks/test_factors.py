"""Factors by paths and by layers: their numbers, and what they refuse."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext import path_axes
from optax_ext.masks import LayerFactors, PathFactors

PARAMS = {"body": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "head": {"kernel": jnp.ones(2)}}


def test_a_factor_is_that_of_the_pattern_and_else_one():
    factors = PathFactors({"^head/": 10, "bias$": np.float32(0.5)})
    assert factors(PARAMS) == {"body": {"kernel": 1.0, "bias": 0.5}, "head": {"kernel": 10.0}}
    assert PathFactors({"head": 2.0, "kernel$": 2.0})(PARAMS)["head"]["kernel"] == 2.0  # two that agree
    holes = {"body": {"kernel": None, "bias": optax.MaskedNode()}, "head": {"kernel": jax.nn.relu}}
    assert factors(holes) == {"body": {"kernel": 1.0, "bias": 0.5}, "head": {"kernel": 10.0}}


def test_two_factors_for_one_parameter_and_none_for_a_pattern_are_errors():
    with pytest.raises(
        ValueError, match=r"the patterns of 'head/kernel' must have the same factor, got 'head': 2, 'ker"
    ):
        PathFactors({"head": 2.0, "kernel$": 0.1})(PARAMS)
    with pytest.raises(ValueError, match="the pattern 'haed' matches none"):
        PathFactors({"haed": 2.0})(PARAMS)
    assert PathFactors({"haed": 2.0}, allow_unmatched=True)(PARAMS)["head"]["kernel"] == 1.0


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"a": -1.0}, "the factor of 'a' must be greater than or equal to 0, got -1"),
        ({"a": float("nan")}, "the factor of 'a' must be a finite number"),
        ({"a": True}, "the factor of 'a' must be a number"),
        ({}, "factors must map regular expressions to numbers"),
        ({"rank <= 1": 2.0}, "which is of ranks"),
        ({3: 2.0}, "got 3 for one"),
        ({"(": 2.0}, "got '\\('"),
    ],
    ids=["negative", "nan", "bool", "empty", "ranks", "number", "pattern"],
)
def test_wrong_factors(factors, message):
    with pytest.raises(ValueError, match=message):
        PathFactors(factors)


def layers(*names):
    return {name: {"w": jnp.ones(2)} for name in names}


def test_layers_are_counted_from_the_last():
    factors = LayerFactors(0.5, r"^block(\d+)/", ["embed"])
    params = layers("embed", "block0", "block1", "block10", *(f"block{n}" for n in range(2, 10)), "head")
    found = {name: factor["w"] for name, factor in factors(params).items()}
    assert found["head"] == 1.0
    assert found["block10"] == 0.5
    assert found["block2"] == 0.5**9
    assert found["embed"] == 0.5**12
    from_one = LayerFactors(0.5, r"^block(\d+)/")(layers("block1", "block2", "head"))
    assert from_one == {"block1": {"w": 0.25}, "block2": {"w": 0.5}, "head": {"w": 1.0}}
    nothing = LayerFactors(0.5, r"^block(\d+)/", ["embed"], allow_unmatched=True)
    assert nothing(layers("embed", "head")) == {"embed": {"w": 0.5}, "head": {"w": 1.0}}


def test_paths_of_holes_are_counted():
    """In a group of a partition the others are masked out, and the number of blocks is that of the whole."""
    params = layers("block0", "block1", "block2", "head")
    for hole in (None, optax.MaskedNode()):
        holes = params | {"block1": {"w": hole}, "block2": {"w": hole}}
        assert LayerFactors(0.5, r"^block(\d+)/")(holes)["block0"]["w"] == 0.125


def test_a_stack_of_blocks_has_a_factor_an_entry():
    params = {"embed": jnp.ones(2), "blocks": {"kernel": jnp.ones((3, 2, 2)), "moe": jnp.ones((2, 3, 4))}, "head": 1.0}
    axes = path_axes({"^blocks/kernel": 0, "^blocks/moe": [1, 2]})
    factors = LayerFactors(0.5, "^blocks/", ["embed"], stacked_axes=axes)(params)
    assert factors["embed"] == 0.5**4
    assert factors["head"] == 1.0
    np.testing.assert_array_equal(factors["blocks"]["kernel"], np.reshape([0.125, 0.25, 0.5], (3, 1, 1)))
    np.testing.assert_array_equal(factors["blocks"]["moe"], np.reshape([0.125, 0.25, 0.5], (1, 3, 1)))


@pytest.mark.parametrize(
    ("pattern", "params", "axes", "message"),
    [
        (r"^block(\d+)/", layers("block0", "block2"), None, "numbered from 0 or 1 without gaps, got '0', '2'"),
        (r"^block(\d+)/", layers("block2", "block3"), None, "numbered from 0 or 1 without gaps"),
        (r"^(\w+)/", layers("block0"), None, r"must be a number in every path, got 'block0' in 'block0/w'"),
        (r"^block(\d+)?", layers("block"), None, "must be a number in every path, got None"),
        ("^block", layers("block0"), None, r"blocks must have a group that is the number .* got 'block0/w'"),
        ("^block", layers("stem"), None, r"the pattern '\^block' matches none"),
        ("^b", {"b": jnp.ones(3), "bb": jnp.ones(2)}, 0, "must have as many of them, got 3 of 'b', 2 of 'bb'"),
        ("^b", {"b": optax.MaskedNode(), "c": jnp.ones(2)}, 0, "their number is not known"),
    ],
    ids=["gap", "start", "no number", "no group", "no axis", "no match", "sizes", "masked"],
)
def test_blocks_that_cannot_be_counted(pattern, params, axes, message):
    with pytest.raises(ValueError, match=message):
        LayerFactors(0.5, pattern, stacked_axes=axes)(params)


def test_a_parameter_is_in_one_layer():
    with pytest.raises(ValueError, match=r"'block0/w' must be in one layer, got .* by '\^block\(.*the first by 'w'"):
        LayerFactors(0.5, r"^block(\d+)/", ["w"])(layers("block0"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, "b"), "decay must be greater than 0"),
        ((1.5, "b"), "decay must be less than or equal to 1"),
        ((0.5, r"(a)(\d+)"), "must have one group, the number, got 2"),
        ((0.5, r"(?:a*)*(\d+)"), "may search for too long"),
        ((0.5, "rank <= 1"), "it is of ranks"),
        ((0.5, 3), "blocks must be a regular expression, got 3"),
        ((0.5, "b", "embed"), "first must be a list"),
        ((0.5, "b", ["("]), "first must hold regular expressions"),
    ],
    ids=["zero", "large", "groups", "long", "ranks", "number", "text", "pattern"],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LayerFactors(*arguments)


@pytest.mark.parametrize("value", [PathFactors({"a": 2.0}), LayerFactors(0.5, "b", ["c"])], ids=lambda it: repr(it)[:5])
def test_factors_are_values(value):
    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value
    assert hash(value) == hash(copy.deepcopy(value))
