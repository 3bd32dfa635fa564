"""Muon's orthogonalized momentum against NumPy, of stacks of matrices, and at sizes that float32 cannot square."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext.transforms import scale_by_muon

COEFFICIENTS = (3.4445, -4.775, 2.0315)


def make_grads(step, shape):
    return np.random.default_rng(step).normal(size=shape)


def orthogonalize(x, steps=5):
    """By the singular values, which the iteration moves by a polynomial."""
    left, values, right = np.linalg.svd(x / (np.linalg.norm(x) + 1e-7), full_matrices=False)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        values = a * values + b * values**3 + c * values**5
    return left * values @ right


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(4, 2), (2, 3)])
def test_the_formula(nesterov, shape):
    tx, trace = scale_by_muon(0.75, nesterov=nesterov, rms_rate=0.5), np.zeros(shape)
    state = tx.init(jnp.zeros(shape))
    assert type(state) is optax.TraceState
    for step in range(3):
        grad = make_grads(step, shape)
        updates, state = tx.update(jnp.asarray(grad, jnp.float32), state)
        trace = 0.75 * trace + grad
        expected = 0.5 * np.sqrt(max(shape)) * orthogonalize(0.75 * trace + grad if nesterov else trace)
        np.testing.assert_allclose(updates, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(state.trace, trace, rtol=1e-5)


def test_the_iteration_is_that_of_optax():
    """Without momentum, since Optax corrects the bias of its momentum."""
    grads = jnp.asarray(make_grads(0, (3, 5)), jnp.float32)
    ours = scale_by_muon(0.0, nesterov=False, rms_rate=None, ns_steps=4)
    theirs = optax.contrib.scale_by_muon(
        beta=0.0, nesterov=False, ns_steps=4, weight_dimension_numbers=optax.contrib.MuonDimensionNumbers()
    )
    expected, _ = theirs.update(grads, theirs.init(grads))
    np.testing.assert_allclose(ours.update(grads, ours.init(grads))[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("axes", "shape"), [(0, (3, 2, 4)), (1, (4, 3, 2)), ((0, 3), (3, 4, 2, 2)), (None, (4, 2))])
def test_each_matrix_in_a_stack_is_orthogonal_by_itself(axes, shape):
    grads = jnp.asarray(make_grads(0, shape), jnp.float32)
    tx, alone = scale_by_muon(0.9, stacked_axes=axes), scale_by_muon(0.9)
    updates, state = tx.update(grads, tx.init(grads))
    assert updates.shape == state.trace.shape == shape
    axes = () if axes is None else (axes,) if isinstance(axes, int) else axes
    front = tuple(range(len(axes)))
    layers = [
        np.moveaxis(x, axes, front).reshape(-1, *(n for i, n in enumerate(shape) if i not in axes))
        for x in (updates, grads)
    ]
    for update, grad in zip(*layers, strict=True):
        expected, _ = alone.update(jnp.asarray(grad), alone.init(grad))
        np.testing.assert_allclose(update, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30])
def test_updates_of_gradients_of_any_size_are_finite_and_large_ones_count(size):
    grads = jnp.asarray(make_grads(0, (3, 2)) * size, jnp.float32)
    tx = scale_by_muon(0.9)
    updates, state = tx.update(grads, tx.init(grads))
    chex.assert_tree_all_finite((updates, state))
    if size > 1:  # the squares are infinite in float32, and would make the update zero
        np.testing.assert_allclose(
            updates, 0.2 * np.sqrt(3) * orthogonalize(make_grads(0, (3, 2))), rtol=1e-3, atol=1e-4
        )


def test_the_derivative_at_zero_is_finite():
    tx = scale_by_muon(0.9)
    derivative = jax.grad(lambda g: tx.update(g, tx.init(g))[0].sum())(jnp.zeros((2, 2)))
    chex.assert_tree_all_finite(derivative)


def test_float16_is_computed_in_float32_under_strict_promotion():
    grads = {"a": jnp.asarray(make_grads(0, (2, 3)) * 300, jnp.float16), "b": None}
    tx = scale_by_muon(0.9)
    state = tx.init({"a": grads["a"], "b": grads["a"]})
    assert state.trace["a"].dtype == jnp.float32
    with jax.numpy_dtype_promotion("strict"):
        updates, after = tx.update(grads, state)
    assert (updates["a"].dtype, updates["b"]) == (jnp.float16, None)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    np.testing.assert_allclose(
        updates["a"], 0.2 * np.sqrt(3) * orthogonalize(np.float64(grads["a"])), rtol=1e-2, atol=1e-3
    )


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((3,), None, r"the parameter 'w' must have 2 axes, got the shape \(3,\); leave it out with optax.masked"),
        ((3, 2, 2), None, r"must have 2 axes, got the shape \(3, 2, 2\)"),
        ((3, 2), 0, r"must have 2 axes, got the shape \(3, 2\), of which 1 count layers"),
        ((3, 2), 2, "must have axis 2"),
    ],
)
def test_what_is_no_matrix_is_an_error_at_init(shape, axes, message):
    with pytest.raises(ValueError, match=message):
        scale_by_muon(0.9, stacked_axes=axes).init({"w": jnp.ones(shape)})
