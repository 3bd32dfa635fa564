"""Stacked layers: what says which axes count them, and what does not fit."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

from optax_ext._core.layers import Layers, check_stacked_axes, layers_of

PARAMS = {"blocks": {"kernel": jnp.ones((3, 2, 4)), "bias": jnp.ones((3, 4))}, "head": jnp.ones((4, 5))}


def axes_of(stacked_axes, params):
    """Return the axes of each leaf, in the order of the leaves."""
    layers = jax.tree.leaves(layers_of(stacked_axes, params), is_leaf=lambda node: isinstance(node, Layers))
    return [leaf.axes for leaf in layers]


@pytest.mark.parametrize(
    ("stacked_axes", "expected"),
    [
        (None, [(), (), ()]),
        (0, [(0,), (0,), (0,)]),
        (-1, [(1,), (2,), (1,)]),
        ((1, 0), [(0, 1), (0, 1), (0, 1)]),
        ({"blocks": 0, "head": None}, [(0,), (0,), ()]),
        ({"blocks": {"kernel": (0, -1), "bias": 0}, "head": ()}, [(0,), (0, 2), ()]),
        (lambda params: jax.tree.map(lambda leaf: 0 if leaf.ndim == 3 else None, params), [(), (0,), ()]),
    ],
)
def test_axes_are_of_all_leaves_of_branches_or_of_each(stacked_axes, expected):
    check_stacked_axes("stacked_axes", stacked_axes)
    assert axes_of(stacked_axes, PARAMS) == expected
    assert jax.tree.structure(layers_of(None, PARAMS), is_leaf=lambda node: isinstance(node, Layers)) == (
        jax.tree.structure(PARAMS)
    )


@pytest.mark.parametrize("hole", [None, optax.MaskedNode()])
@pytest.mark.parametrize("stacked_axes", [0, {"blocks": {"kernel": 0, "bias": 0}, "head": None}])
def test_a_hole_has_no_layers_even_for_a_branch(hole, stacked_axes):
    assert axes_of(stacked_axes, {**PARAMS, "blocks": hole, "head": hole}) == []
    assert axes_of(stacked_axes, {"blocks": {**PARAMS["blocks"], "bias": hole}, "head": hole}) == [(0,)]


def test_a_tuple_of_integers_is_axes_and_one_tuples_are_leaves():
    params = (jnp.ones((2, 3)), jnp.ones((2, 3)))
    assert axes_of((0, 1), params) == [(0, 1), (0, 1)]
    assert axes_of(((0,), (1,)), params) == [(0,), (1,)]
    assert axes_of([0, None], [*params]) == [(0,), ()]


@pytest.mark.parametrize(
    ("stacked_axes", "message"),
    [
        (2, "the parameter 'blocks/bias' must have axis 2, got the shape (3, 4), with axes -2 to 1"),
        ({"blocks": 0, "head": -3}, "the parameter 'head' must have axis -3, got the shape (4, 5)"),
        ((0, -2), "of the parameter 'blocks/bias' of shape (3, 4) each axis counts once, got (0, -2)"),
        ({"blocks": 0}, "that the parameters extend: they have dict of 'blocks', 'head', got {'blocks': 0} there"),
        ({"^blocks/": 0}, "got {'^blocks/': 0} there: for regular expressions on paths write path_axes({...})"),
        (
            {"blocks": [0, 1], "head": 0},
            "they have dict of 'bias', 'kernel' at 'blocks', got [0, 1] there: several axes",
        ),
        (
            {"blocks": {"kernel": {"a": 0}, "bias": 0}, "head": 0},
            "they have an array of shape (3, 2, 4) at 'blocks/kernel', got {'a': 0} there",
        ),
        (lambda params: 0.5, "got 0.5 there"),
    ],
)
def test_what_does_not_fit_is_named(stacked_axes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        layers_of(stacked_axes, PARAMS)


def test_a_function_among_the_leaves_has_no_layers():
    assert axes_of(0, {"kernel": jnp.ones((2, 3)), "activation": jax.nn.relu}) == [(), (0,)]


def test_a_scalar_has_no_axis():
    with pytest.raises(ValueError, match="'scale' must have axis 0, got the shape \\(\\), with axes none"):
        layers_of(0, {"scale": 1.0})


@pytest.mark.parametrize("wrong", [True, 0.5, "0", {"blocks": "0"}, {"blocks": (0, "1")}, jnp.int32(0)])
def test_what_is_no_axis_is_refused_at_once(wrong):
    with pytest.raises(ValueError, match=r"stacked_axes must be an axis, a tuple of axes, None, .*, got "):
        check_stacked_axes("stacked_axes", wrong)


def test_an_injected_axis_is_told_how_to_stay_static():
    params = {"kernel": jnp.ones((2, 3))}
    with pytest.raises(ValueError, match=r'static_args=\("stacked_axes",\)'):
        optax.inject_hyperparams(_scale)(stacked_axes=0).init(params)
    optax.inject_hyperparams(_scale, static_args=("stacked_axes",))(stacked_axes=0).init(params)


def _scale(stacked_axes):
    check_stacked_axes("stacked_axes", stacked_axes)
    return optax.identity()
