"""Adam in both forms of its epsilon, against Optax's and against its formula."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext.transforms import scale_by_adam

PARAMS = {"kernel": jnp.array([[3.0, -4.0]]), "bias": jnp.array([1.0, 0.5])}
COMPLEX = jax.tree.map(lambda p: p * (1 - 0.5j), PARAMS)


def run(tx, params, steps=5):
    state, series = tx.init(params), []
    for step in range(steps):
        updates, state = jax.jit(tx.update)(jax.tree.map(lambda p, t=step: p * (t - 1.5), params), state)
        series.append(updates)
    return series, state


@pytest.mark.parametrize("params", [PARAMS, COMPLEX], ids=["real", "complex"])
@pytest.mark.parametrize(("b1", "b2", "eps"), [(0.9, 0.999, 1e-8), (0.0, 0.5, 0.1), (0.9, 0.999, 1e-2)])
def test_without_epsilon_hat_it_is_optaxs(params, b1, b2, eps):
    actual = run(scale_by_adam(b1, b2, eps, epsilon_hat=False), params)
    chex.assert_trees_all_close(actual, run(optax.scale_by_adam(b1, b2, eps), params), rtol=2e-6)


def test_with_epsilon_hat_epsilon_is_added_to_the_root_that_is_not_corrected():
    (first, *_), _ = run(scale_by_adam(0.9, 0.99, 0.5), PARAMS)
    gradient = -1.5 * np.float64(PARAMS["bias"])
    root = np.sqrt(0.01) * np.abs(gradient)
    np.testing.assert_allclose(first["bias"], np.sqrt(0.01) / 0.1 * 0.1 * gradient / (root + 0.5), rtol=1e-5)


def test_amsgrad_without_epsilon_hat_is_optaxs_that_compares_moments_before_their_correction():
    theirs = optax.scale_by_amsgrad(0.9, 0.99, 1e-3, bias_correction_nu=False)
    _, state = run(scale_by_adam(0.9, 0.99, 1e-3, amsgrad=True, epsilon_hat=False), PARAMS)
    _, expected = run(theirs, PARAMS)
    chex.assert_trees_all_close(state, expected, rtol=2e-6)
    assert (state.nu_max["bias"] >= state.nu["bias"]).all()


@pytest.mark.parametrize("epsilon_hat", [True, False])
def test_the_first_moment_may_be_kept_in_another_dtype(epsilon_hat):
    plain, _ = run(scale_by_adam(0.9, 0.99, 1e-3, epsilon_hat=epsilon_hat), PARAMS)
    series, state = run(scale_by_adam(0.9, 0.99, 1e-3, epsilon_hat=epsilon_hat, mu_dtype=jnp.bfloat16), PARAMS)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.mu)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves((state.nu, series))} == {jnp.dtype(jnp.float32)}
    chex.assert_trees_all_close(series[0], plain[0], rtol=1e-6)  # what is stored is rounded, not what is used
    chex.assert_trees_all_close(series, plain, rtol=2e-2)
    expected = run(optax.scale_by_adam(0.9, 0.99, 1e-3, mu_dtype=jnp.bfloat16), PARAMS)[1]
    chex.assert_trees_all_equal_dtypes(state, expected)


def test_a_complex_moment_is_not_kept_in_a_real_dtype():
    _, state = run(
        scale_by_adam(0.9, 0.99, 1e-3, mu_dtype=jnp.bfloat16), {"real": jnp.ones(2), "complex": 1j * jnp.ones(2)}
    )
    assert (state.mu["real"].dtype, state.mu["complex"].dtype) == (jnp.bfloat16, jnp.complex64)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_decays_may_be_arrays_of_any_dtype(dtype):
    """As `optax.inject_hyperparams` makes them."""

    @jax.jit
    def update(b1, b2, eps, state):
        return scale_by_adam(b1, b2, eps, epsilon_hat=False).update(PARAMS, state)

    b1, b2, eps = (jnp.asarray(value, dtype) for value in (0.5, 0.75, 0.25))
    state = scale_by_adam(b1, b2, eps).init(PARAMS)
    updates, new_state = update(b1, b2, eps, state)
    assert jax.tree.map(jax.typeof, new_state) == jax.tree.map(jax.typeof, state)
    expected, _ = optax.scale_by_adam(0.5, 0.75, 0.25).update(PARAMS, state)
    chex.assert_trees_all_close(updates, expected, rtol=1e-5)


def test_the_derivative_at_a_gradient_of_zero_is_that_of_the_formula():
    tx = scale_by_adam(0.9, 0.999, 0.5, epsilon_hat=False)
    slope = jax.grad(lambda grad: tx.update(grad, tx.init(grad))[0])(jnp.float32(0.0))
    np.testing.assert_allclose(slope, 1 / 0.5, rtol=1e-5)  # g / (|g| + eps)


def test_derivatives_elsewhere_are_optaxs():
    def slopes(tx):
        return jax.grad(lambda grads: sum(jax.tree.leaves(jax.tree.map(jnp.sum, tx.update(grads, tx.init(grads))[0]))))(
            PARAMS
        )

    ours = slopes(scale_by_adam(0.9, 0.99, 0.5, epsilon_hat=False))
    chex.assert_trees_all_close(ours, slopes(optax.scale_by_adam(0.9, 0.99, 0.5)), rtol=1e-5)


def test_amsgrad_compares_magnitudes_and_keeps_the_largest():
    """Five gradients of which the largest come first: by itself the second moment would shrink."""
    tx, params = scale_by_adam(0.0, 0.5, 0.25, amsgrad=True), jnp.zeros(1, jnp.complex64)
    state, nu, largest = tx.init(params), 0.0, 0.0
    for step, gradient in enumerate([4 + 3j, 1j, 2.0, 0.5, 0.5], 1):
        updates, state = tx.update(jnp.array([gradient], jnp.complex64), state)
        nu = 0.5 * nu + 0.5 * abs(gradient) ** 2
        largest = max(largest, nu)
        expected = np.sqrt(1 - 0.5**step) * gradient / (np.sqrt(largest) + 0.25)
        np.testing.assert_allclose(updates, [expected], rtol=1e-5)
    np.testing.assert_allclose((state.nu, state.nu_max), [[nu], [12.5]], rtol=1e-6)
    assert int(state.count) == 5
