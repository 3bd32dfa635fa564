"""Nadam against NumPy, and what its momentum does over many steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext.transforms import NadamState, scale_by_nadam


@pytest.mark.parametrize("momentum_decay", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("turn", [1.0, 0.6 + 0.8j])
def test_the_formula(momentum_decay, turn):
    tx = scale_by_nadam(0.75, 0.5, 0.25, momentum_decay=momentum_decay)
    gradients = np.array([[1.0, -2.0], [0.125, 0.0], [-3.0, 1.0]]) * turn
    state, mean, square, product = tx.init(jnp.zeros_like(jnp.asarray(gradients[0]))), 0, 0, 1
    for step, gradient in enumerate(gradients, start=1):
        updates, state = tx.update(jnp.asarray(gradient), state)
        now, ahead = (0.75 * (1 - 0.5 * 0.96 ** (momentum_decay * each)) for each in (step, step + 1))
        mean, square, product = 0.75 * mean + 0.25 * gradient, (square + np.abs(gradient) ** 2) / 2, product * now
        looking_ahead = ahead * mean / (1 - product * ahead) + (1 - now) * gradient / (1 - product)
        root = np.sqrt(square / (1 - 0.5**step))
        np.testing.assert_allclose(updates, looking_ahead / (root + 0.25), rtol=1e-5)
    assert isinstance(state, NadamState)
    np.testing.assert_allclose(state.momentum_product, product, rtol=1e-6)


def test_float16_is_computed_in_float32_under_strict_promotion_also_with_64_bits():
    gradient, tx = jnp.array([300.0, 1e-4], jnp.float16), scale_by_nadam(0.9, 0.999, 1e-12, momentum_decay=1.0)
    with jax.numpy_dtype_promotion("strict"):
        updates, state = tx.update(gradient, tx.init(gradient))
    assert (updates.dtype, state.mu.dtype, state.nu.dtype) == (jnp.float16, jnp.float32, jnp.float32)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        wide = jnp.array([300.0, 1e-4], jnp.float64)
        expected, state = tx.update(wide, tx.init(wide))
    assert (expected.dtype, state.momentum_product.dtype, state.count.dtype) == (jnp.float64, jnp.float32, jnp.int32)
    np.testing.assert_allclose(updates, expected, rtol=2e-3)


def test_after_millions_of_steps_it_is_adam_with_the_momentum_ahead():
    tx, last = scale_by_nadam(0.9, 0.999, 0.0, momentum_decay=1.0), np.iinfo(np.int32).max
    state = tx.init(jnp.zeros(1))._replace(count=jnp.int32(last), momentum_product=jnp.float32(0.0))
    updates, state = tx.update(jnp.ones(1), optax.tree.set(state, mu=jnp.ones(1), nu=jnp.ones(1)))
    np.testing.assert_allclose(updates, 1.0, rtol=1e-6)
    assert state.count == last
