"""RMSprop in its four forms against NumPy, in low precision, and with a variance that rounding makes negative."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext.transforms import scale_by_rms

FORMS = pytest.mark.parametrize(
    ("centered", "eps_in_sqrt"), [(False, False), (False, True), (True, False), (True, True)]
)


@FORMS
def test_the_formula(centered, eps_in_sqrt):
    tx = scale_by_rms(0.75, 0.5, eps_in_sqrt=eps_in_sqrt, centered=centered)
    state, nu, mu = tx.init(jnp.zeros(2)), np.zeros(2), np.zeros(2)
    for gradient in np.array([[1.0, -2.0], [4.0, 0.0], [-3.0, 1.0]]):
        updates, state = tx.update(jnp.asarray(gradient, jnp.float32), state)
        nu, mu = 0.75 * nu + 0.25 * gradient**2, 0.75 * mu + 0.25 * gradient * centered
        variance = nu - mu**2
        root = np.sqrt(variance + 0.5) if eps_in_sqrt else np.sqrt(variance) + 0.5
        np.testing.assert_allclose(updates, gradient / root, rtol=1e-5)
    np.testing.assert_allclose(state.nu, nu, rtol=1e-6)
    assert type(state) is (optax.ScaleByRStdDevState if centered else optax.ScaleByRmsState)
    if centered:
        np.testing.assert_allclose(state.mu, mu, rtol=1e-6)


@FORMS
def test_float16_is_computed_in_float32_under_strict_promotion(centered, eps_in_sqrt):
    gradient = jnp.array([300.0, 1e-4], jnp.float16)  # squares past both ends of float16
    tx = scale_by_rms(0.75, 1e-8, eps_in_sqrt=eps_in_sqrt, centered=centered)
    with jax.numpy_dtype_promotion("strict"):
        updates, state = tx.update(gradient, tx.init(gradient))
    assert (updates.dtype, state.nu.dtype) == (jnp.float16, jnp.float32)
    wide = np.float64(gradient)
    variance = 0.25 * wide**2 - (0.25 * wide * centered) ** 2
    expected = wide / (np.sqrt(variance + 1e-8) if eps_in_sqrt else np.sqrt(variance) + 1e-8)
    np.testing.assert_allclose(updates, expected, rtol=2e-3)


@FORMS
def test_64_bits_need_no_promotion(centered, eps_in_sqrt):
    tx = scale_by_rms(0.75, 0.5, eps_in_sqrt=eps_in_sqrt, centered=centered)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        updates, state = tx.update(jnp.ones(2, jnp.float64), tx.init(jnp.ones(2, jnp.float64)))
    assert (updates.dtype, state.nu.dtype) == (jnp.float64, jnp.float64)


@pytest.mark.parametrize("eps_in_sqrt", [False, True])
def test_a_negative_variance_counts_as_zero(eps_in_sqrt):
    tx = scale_by_rms(0.5, 0.25, eps_in_sqrt=eps_in_sqrt, centered=True)
    state = tx.init(jnp.zeros(1))._replace(mu=jnp.array([3.0]), nu=jnp.array([8.0]))  # a mean square below the square
    updates, _ = tx.update(jnp.array([3.0]), state)
    np.testing.assert_allclose(updates, 3 / 0.5 if eps_in_sqrt else 3 / 0.25, rtol=1e-6)


@FORMS
def test_the_derivative_at_a_gradient_of_zero_is_finite(centered, eps_in_sqrt):
    tx = scale_by_rms(0.75, 0.25, eps_in_sqrt=eps_in_sqrt, centered=centered)
    slope = jax.grad(lambda grad: tx.update(grad, tx.init(grad))[0])(jnp.float32(0.0))
    np.testing.assert_allclose(slope, 1 / 0.5 if eps_in_sqrt else 1 / 0.25, rtol=1e-6)
