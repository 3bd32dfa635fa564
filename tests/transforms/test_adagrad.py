"""Adagrad with epsilon outside and inside the root against NumPy, in low precision, and where the sum is zero."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext.transforms import scale_by_rss


@pytest.mark.parametrize("eps_in_sqrt", [False, True])
@pytest.mark.parametrize("turn", [1.0, 0.6 + 0.8j])
def test_the_formula(eps_in_sqrt, turn):
    tx = scale_by_rss(0.5, 0.25, eps_in_sqrt=eps_in_sqrt)
    gradients = np.array([[1.0, -2.0], [4.0, 0.0], [-3.0, 1.0]]) * turn
    state, total = tx.init(jnp.zeros_like(jnp.asarray(gradients[0]))), np.full(2, 0.5)
    for gradient in gradients:
        updates, state = tx.update(jnp.asarray(gradient), state)
        total = total + np.abs(gradient) ** 2
        root = np.sqrt(total + 0.25) if eps_in_sqrt else np.sqrt(total) + 0.25
        np.testing.assert_allclose(updates, gradient / root, rtol=1e-5)
    np.testing.assert_allclose(state.sum_of_squares, total, rtol=1e-6)
    assert type(state) is optax.ScaleByRssState


@pytest.mark.parametrize("eps_in_sqrt", [False, True])
def test_float16_is_computed_in_float32_under_strict_promotion(eps_in_sqrt):
    gradient = jnp.array([300.0, 1e-4], jnp.float16)
    tx = scale_by_rss(0.0, 1e-12, eps_in_sqrt=eps_in_sqrt)
    with jax.numpy_dtype_promotion("strict"):
        updates, state = tx.update(gradient, tx.init(gradient))
    assert (updates.dtype, state.sum_of_squares.dtype) == (jnp.float16, jnp.float32)
    np.testing.assert_allclose(updates, 1.0, rtol=2e-3)


def test_the_sum_stays_finite():
    tx = scale_by_rss(0.0, 1e-7, eps_in_sqrt=False)
    state = tx.init(jnp.zeros(1))
    for _ in range(3):  # each square is below float32's largest number, and two of them are above it
        updates, state = tx.update(jnp.array([1.5e19]), state)
    assert np.isfinite(state.sum_of_squares).all()
    assert (updates > 0.5).all()


@pytest.mark.parametrize("eps_in_sqrt", [False, True])
def test_where_the_sum_is_zero_the_update_is_and_its_derivative_is_that_of_the_formula(eps_in_sqrt):
    tx = scale_by_rss(0.0, 0.25, eps_in_sqrt=eps_in_sqrt)
    update, slope = jax.value_and_grad(lambda grad: tx.update(grad, tx.init(grad))[0])(jnp.float32(0.0))
    assert update == 0
    np.testing.assert_allclose(slope, 1 / 0.5 if eps_in_sqrt else 1 / 0.25, rtol=1e-6)
