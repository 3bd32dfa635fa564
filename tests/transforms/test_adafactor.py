"""The pieces of Adafactor against NumPy and Optax: factored mean squares, clipping by and scaling to a size."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext.transforms import clip_by_rms, scale_by_factored_rms, scale_by_param_rms

SHAPES = {"matrix": (4, 3), "filter": (3, 2, 1, 2), "bias": (3,), "scalar": ()}


def make_grads(step, shapes=SHAPES):
    random = np.random.default_rng(step)
    return {name: random.normal(size=shape) for name, shape in shapes.items()}


def float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def test_the_last_two_axes_are_factored_and_what_has_no_two_is_not():
    tx, means = scale_by_factored_rms(-0.75, 0.125), {}
    state = tx.init(float32(make_grads(0)))
    assert type(state) is optax.FactoredState
    assert {name: leaf.shape for name, leaf in state.v_row.items()} == {
        "matrix": (4,), "filter": (3, 2, 1), "bias": (1,), "scalar": (1,)
    }  # fmt: skip
    assert {name: state.v_col[name].shape for name in ("matrix", "filter")} == {"matrix": (3,), "filter": (3, 2, 2)}
    assert {name: leaf.shape for name, leaf in state.v.items()} == SHAPES | {"matrix": (1,), "filter": (1,)}
    for step in range(3):
        grads = make_grads(step)
        updates, state = tx.update(float32(grads), state)
        decay = 1 - (step + 1) ** -0.75
        for name, grad in grads.items():
            square = grad**2 + 0.125
            parts = [square.mean(-1), square.mean(-2)] if square.ndim > 1 else [square]
            means[name] = [
                decay * old + (1 - decay) * new for old, new in zip(means.get(name, parts), parts, strict=True)
            ]
            v = means[name][0]
            if square.ndim > 1:
                row, column = means[name]
                v = (row / row.mean(-1, keepdims=True))[..., None] * column[..., None, :]
            np.testing.assert_allclose(updates[name], grad / np.sqrt(v), rtol=1e-5)
    assert state.count == 3


def test_of_matrices_it_is_that_of_optax():
    ours, theirs = scale_by_factored_rms(-0.8, 1e-30), optax.scale_by_factored_rms(min_dim_size_to_factor=1)
    grads = float32(make_grads(0, {"tall": (4, 3), "wide": (2, 5), "bias": (3,)}))
    state, their_state = ours.init(grads), theirs.init(grads)
    for step in range(3):
        grads = float32(make_grads(step, {"tall": (4, 3), "wide": (2, 5), "bias": (3,)}))
        updates, state = ours.update(grads, state)
        expected, their_state = theirs.update(grads, their_state, grads)
        chex.assert_trees_all_close(updates, expected, rtol=1e-5)
    chex.assert_trees_all_close(state.v, their_state.v, rtol=1e-6)


@pytest.mark.parametrize("axes", [0, {"matrix": -3, "bias": 0}], ids=str)
def test_layers_in_a_stack_are_factored_clipped_and_scaled_by_themselves(axes):
    sizes = np.array([1.0, 10.0, 0.1])
    layers = [make_grads(i, {"matrix": (2, 2), "bias": (2,)}) for i in range(3)]
    apart = [
        jax.tree.map(lambda grad, size=size: size * grad, layer) for layer, size in zip(layers, sizes, strict=True)
    ]
    apart, stacked = list(map(float32, apart)), float32(jax.tree.map(lambda *leaves: np.stack(leaves), *apart))
    for make in (
        lambda axes: scale_by_factored_rms(-0.8, 1e-30, stacked_axes=axes),
        lambda axes: clip_by_rms(0.5, stacked_axes=axes),
        lambda axes: scale_by_param_rms(0.25, stacked_axes=axes),
    ):
        updates, _ = make(axes).update(stacked, make(axes).init(stacked), stacked)
        expected = [make(None).update(layer, make(None).init(layer), layer)[0] for layer in apart]
        for i, layer in enumerate(expected):
            chex.assert_trees_all_close(jax.tree.map(lambda leaf, i=i: leaf[i], updates), layer, rtol=1e-5)
        without, _ = make(None).update(stacked, make(None).init(stacked), stacked)
        assert not np.allclose(without["bias"], updates["bias"])
    with pytest.raises(ValueError, match="must have axis 5"):
        clip_by_rms(0.5, stacked_axes=5).init(stacked)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30])
def test_gradients_of_any_size_leave_everything_finite(size):
    """Squares of 1e30 are infinite in float32, and the mean of a moment that once was stays so."""
    grads = {name: jnp.full(shape, size, jnp.float32) for name, shape in SHAPES.items()}
    tx = scale_by_factored_rms(-0.8, 1e-30)
    updates, state = tx.update(grads, tx.init(grads))
    chex.assert_tree_all_finite((updates, state))
    clipped, _ = clip_by_rms(1.0).update(updates, optax.EmptyState())
    assert all(float(jnp.abs(leaf).max()) <= 1.00001 for leaf in jax.tree.leaves(clipped))
    assert size < 1 or all(float(jnp.abs(leaf).min()) > 0.99 for leaf in jax.tree.leaves(clipped))


def test_clipping_and_scaling_are_those_of_optax_where_optax_has_them_right():
    grads, params = float32(make_grads(0)), float32(make_grads(1))
    for ours, theirs in (
        (clip_by_rms(0.5), optax.clip_by_block_rms(0.5)),
        (scale_by_param_rms(0.75), optax.scale_by_param_block_rms(0.75)),
    ):
        expected, _ = theirs.update(grads, theirs.init(params), params)
        chex.assert_trees_all_close(ours.update(grads, ours.init(params), params)[0], expected, rtol=1e-6)
    slope = jax.grad(lambda x: clip_by_rms(1.0).update(x, optax.EmptyState())[0].sum())(jnp.zeros(2))
    np.testing.assert_array_equal(slope, [1.0, 1.0])
    with pytest.raises(ValueError, match="scale_by_param_rms needs the parameters"):
        scale_by_param_rms(0.5).update(grads, optax.EmptyState())
    half = jnp.array([300.0, -400.0], jnp.float16)
    with jax.numpy_dtype_promotion("strict"):
        updates, _ = clip_by_rms(1.0).update({"a": half, "b": None}, optax.EmptyState(), {"a": half, "b": half})
    assert updates["b"] is None
    np.testing.assert_allclose(updates["a"], np.array([300.0, -400.0]) / np.sqrt(125_000), rtol=1e-3)


def test_the_derivative_is_finite_at_a_gradient_of_zero_and_nothing_has_a_mean_of_0():
    tx, params = scale_by_factored_rms(-0.8, 1e-30), {"w": jnp.zeros((2, 2)), "empty": jnp.zeros((0, 2))}
    state = tx.init(params)
    slopes = jax.grad(lambda grads: tx.update(grads, state)[0]["w"].sum())(params)
    assert np.isfinite(slopes["w"]).all()
    _, state = tx.update(params, state)
    np.testing.assert_array_equal(state.v_col["empty"], [0.0, 0.0])
