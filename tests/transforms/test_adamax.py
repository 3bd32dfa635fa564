"""Adamax against NumPy, in low precision, and where nothing has moved yet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_ext.transforms import scale_by_adamax


@pytest.mark.parametrize("turn", [1.0, 0.6 + 0.8j])
def test_the_formula(turn):
    tx = scale_by_adamax(0.75, 0.5, 0.25)
    gradients = np.array([[1.0, -2.0], [0.125, 0.0], [-3.0, 1.0]]) * turn
    state, mean, largest = tx.init(jnp.zeros_like(jnp.asarray(gradients[0]))), 0, np.zeros(2)
    for step, gradient in enumerate(gradients, start=1):
        updates, state = tx.update(jnp.asarray(gradient), state)
        mean = 0.75 * mean + 0.25 * gradient
        largest = np.maximum(0.5 * largest, np.abs(gradient))
        np.testing.assert_allclose(updates, mean / (1 - 0.75**step) / (largest + 0.25), rtol=1e-5)
    np.testing.assert_allclose(state.nu, largest, rtol=1e-6)


def test_float16_is_computed_in_float32_under_strict_promotion():
    gradient, tx = jnp.array([300.0, 1e-4], jnp.float16), scale_by_adamax(0.9, 0.999, 1e-12)
    with jax.numpy_dtype_promotion("strict"):
        updates, state = tx.update(gradient, tx.init(gradient))
    assert (updates.dtype, state.mu.dtype, state.nu.dtype) == (jnp.float16, jnp.float32, jnp.float32)
    np.testing.assert_allclose(updates, 1.0, rtol=2e-3)


def test_a_gradient_of_zero_has_an_update_of_zero_with_a_finite_derivative():
    tx = scale_by_adamax(0.9, 0.999, 0.25)
    update, slope = jax.value_and_grad(lambda grad: tx.update(grad, tx.init(grad))[0])(jnp.float32(0.0))
    assert update == 0
    np.testing.assert_allclose(slope, 1 / 0.25, rtol=1e-5)
