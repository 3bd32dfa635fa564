"""Stacked axes by paths: what they give, what they refuse, and that they are values."""

import copy
import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import optax_ext
from optax_ext import path_axes

PARAMS = {"blocks": {"kernel": jnp.ones((3, 2, 4)), "bias": jnp.ones((3, 4))}, "head": {"kernel": jnp.ones((4, 5))}}


def test_axes_are_of_parameters_whose_paths_match():
    assert path_axes({"^blocks/": 0})(PARAMS) == {"blocks": {"kernel": 0, "bias": 0}, "head": {"kernel": None}}
    assert path_axes({"blocks/kernel": [0, -1], "bias": (0,), "head": None})(PARAMS) == {
        "blocks": {"kernel": (0, -1), "bias": (0,)},
        "head": {"kernel": None},
    }


def test_holes_and_boxes_are_one_parameter():
    holes = {"blocks": {"kernel": None, "bias": optax.MaskedNode()}, "head": {"kernel": jnp.ones((4, 5))}}
    assert path_axes({"^blocks/": 0})(holes) == {"blocks": {"kernel": 0, "bias": 0}, "head": {"kernel": None}}
    assert path_axes({"^blocks/": 0})({"blocks": {"kernel": nn.Partitioned(jnp.ones((3, 2)), ("layers", None))}}) == {
        "blocks": {"kernel": 0}
    }
    state = nnx.State({"blocks": {"kernel": nnx.Param(jnp.ones((3, 2)))}})
    assert path_axes({"^blocks/": 0})(state)["blocks"]["kernel"] == 0


def test_a_function_among_the_leaves_is_no_parameter():
    params = {"blocks": {"kernel": jnp.ones((3, 2)), "activation": jax.nn.relu}}
    assert path_axes({"^blocks/": 0})(params) == {"blocks": {"kernel": 0, "activation": None}}


def test_a_hole_may_stand_for_a_branch_with_what_a_pattern_is_of():
    holes = {"blocks": optax.MaskedNode(), "head": {"kernel": jnp.ones((4, 5))}}
    assert path_axes({"^blocks/": 0})(holes) == {"blocks": None, "head": {"kernel": None}}
    tx = optax_ext.lars(0.1, stacked_axes=path_axes({"^blocks/": 0}), weight_decay=0.1)
    frozen = optax.partition({"train": tx, "freeze": optax.set_to_zero()}, {"blocks": "freeze", "head": "train"})
    state = frozen.init(PARAMS)
    updates, _ = frozen.update(PARAMS, state, PARAMS)
    np.testing.assert_array_equal(updates["blocks"]["kernel"], 0)
    with pytest.raises(ValueError, match="matches none of the 2 parameters"):
        path_axes({"^block/": 0})(holes)


def test_a_pattern_that_matches_nothing_is_an_error_unless_allowed():
    with pytest.raises(ValueError, match=r"the pattern '\^block/' matches none of the 3 parameters.*'blocks/bias'"):
        path_axes({"^block/": 0})(PARAMS)
    assert path_axes({"^block/": 0}, allow_unmatched=True)(PARAMS)["head"] == {"kernel": None}


def test_patterns_of_one_parameter_must_agree():
    assert path_axes({"blocks": 0, "kernel$": 0})(PARAMS | {"head": {"kernel": jnp.ones(3)}})["blocks"]["kernel"] == 0
    assert path_axes({"^blocks/": 0, "blocks/kernel$": (-3,)})(PARAMS)["blocks"] == {"kernel": 0, "bias": 0}
    with pytest.raises(ValueError, match=r"of 'blocks/kernel' must agree, got '\^blocks/': 0, 'kernel\$': 1"):
        path_axes({"^blocks/": 0, "kernel$": 1})(PARAMS)


def test_a_parameter_without_the_axis_is_named():
    with pytest.raises(ValueError, match=r"'blocks/bias' must have axis 2, got the shape \(3, 4\)"):
        path_axes({"^blocks/": 2})(PARAMS)
    assert path_axes({"^blocks/": 0})(jax.eval_shape(lambda: PARAMS))["blocks"]["bias"] == 0


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, r"must map regular expressions to axes, as in \{'\^blocks/': 0\}, got \{\}"),
        (["^blocks/"], r"must map regular expressions to axes.*, got \['\^blocks/'\]"),
        ({"^blocks/": "0"}, r"must map '\^blocks/' to an axis, a tuple of axes or None, got '0'"),
        ({"^blocks/": True}, "got True"),
        ({"^blocks/": {"kernel": 0}}, r"got \{'kernel': 0\}"),
        ({"(": 0}, r"must map regular expressions on paths to axes, got '\('"),
        ({3: 0}, "got 3 for one"),
        ({"rank <= 1": 0}, "got 'rank <= 1', which is of ranks"),
        ({f"{'a+' * 400}{index}": 0 for index in range(3)}, "too many patterns: patterns may have 2000 characters"),
    ],
)
def test_bad_axes_are_named(axes, message):
    with pytest.raises(ValueError, match=message):
        path_axes(axes)


def test_a_step_in_place_of_parameters_says_what_to_tell_inject_hyperparams():
    tx = optax.inject_hyperparams(optax_ext.lars)(0.1, stacked_axes=path_axes({"blocks": 0}))
    with pytest.raises(ValueError, match=r'path_axes takes parameters, got a step count: .*\("stacked_axes",\)'):
        tx.init(PARAMS)


class TestAValue:
    AXES = path_axes({"^blocks/": 0, "^experts/": (0, 1)})

    def test_its_text_makes_it_again(self):
        assert repr(self.AXES) == "path_axes({'^blocks/': 0, '^experts/': (0, 1)})"
        for axes in (self.AXES, path_axes({"a": None}, allow_unmatched=True)):
            assert eval(repr(axes)) == axes

    def test_equal_ones_have_one_hash_and_copies_are_equal(self):
        same = path_axes({"^experts/": [0, 1], "^blocks/": np.int64(0)})
        assert same == self.AXES
        assert repr(path_axes({"a": np.int64(0)})) == "path_axes({'a': 0})"
        assert hash(same) == hash(self.AXES)
        for copied in (copy.deepcopy(self.AXES), pickle.loads(pickle.dumps(self.AXES))):
            assert copied == self.AXES
        assert path_axes({"^blocks/": 1, "^experts/": (0, 1)}) != self.AXES

    def test_it_is_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            self.AXES.allow_unmatched = True  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(TypeError):
            self.AXES.axes["^blocks/"] = 1  # pyright: ignore[reportIndexIssue]
