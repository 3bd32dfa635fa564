"""Adadelta against NumPy, and in low precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext.transforms import scale_by_adadelta


@pytest.mark.parametrize("turn", [1.0, 0.6 + 0.8j])
def test_the_formula(turn):
    tx = scale_by_adadelta(0.75, 0.25)
    gradients = np.array([[1.0, -2.0], [4.0, 0.0], [-3.0, 1.0]]) * turn
    state, of_grads, of_updates = tx.init(jnp.zeros_like(jnp.asarray(gradients[0]))), np.zeros(2), np.zeros(2)
    for gradient in gradients:
        updates, state = tx.update(jnp.asarray(gradient), state)
        of_grads = 0.75 * of_grads + 0.25 * np.abs(gradient) ** 2
        expected = np.sqrt(of_updates + 0.25) / np.sqrt(of_grads + 0.25) * gradient
        of_updates = 0.75 * of_updates + 0.25 * np.abs(expected) ** 2
        np.testing.assert_allclose(updates, expected, rtol=1e-5)
    np.testing.assert_allclose(state.e_g, of_grads, rtol=1e-5)
    np.testing.assert_allclose(state.e_x, of_updates, rtol=1e-5)


def test_of_real_numbers_it_is_optaxs():
    ours, theirs = scale_by_adadelta(0.9, 1e-6), optax.scale_by_adadelta(0.9, 1e-6)
    state, their_state = ours.init(jnp.zeros(3)), theirs.init(jnp.zeros(3))
    for gradient in (jnp.array([1.0, -2.0, 0.0]), jnp.array([1e-3, 5.0, 0.0])):
        updates, state = ours.update(gradient, state)
        expected, their_state = theirs.update(gradient, their_state)
        np.testing.assert_allclose(updates, expected, rtol=1e-6)
    assert jax.tree.structure(state) == jax.tree.structure(their_state)


def test_float16_is_computed_in_float32_under_strict_promotion():
    gradient, tx = jnp.array([300.0, 1e-4], jnp.float16), scale_by_adadelta(0.0, 1e-12)
    with jax.numpy_dtype_promotion("strict"):
        updates, state = tx.update(gradient, tx.init(gradient))
    assert (updates.dtype, state.e_g.dtype, state.e_x.dtype) == (jnp.float16, jnp.float32, jnp.float32)
    np.testing.assert_allclose(state.e_g, np.square(np.float32(gradient)), rtol=1e-6)


def test_huge_gradients_do_not_overflow():
    gradient, tx = jnp.full(1, 1e30), scale_by_adadelta(0.95, 1e-7)
    state = tx.init(gradient)
    for _ in range(4):
        updates, state = tx.update(gradient, state)
        assert np.isfinite(updates).all()
