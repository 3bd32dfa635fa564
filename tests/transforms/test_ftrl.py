"""FTRL against NumPy; where TensorFlow returns NaN; and what it needs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_ext.transforms import FtrlState, ftrl

PARAMS = np.array([1.0, -0.5, 0.25])
GRADIENTS = np.array([[1.0, -2.0, 0.0], [0.25, 0.0, 0.0], [-3.0, 1.0, 0.5]])
OPTIONS = {
    "learning_rate_power": -0.75,
    "initial_accumulator_value": 0.5,
    "l1_regularization_strength": 0.125,
    "l2_regularization_strength": 0.25,
    "l2_shrinkage_regularization_strength": 0.0625,
    "beta": 0.375,
}


def expected_after(gradients, params, options, rates):
    """Return parameters after each step, as the paper says it."""
    given = dict.fromkeys(OPTIONS, 0.0) | {"learning_rate_power": -0.5, "initial_accumulator_value": 0.1} | options
    power, squares, l1, l2, shrinkage, beta = given.values()
    linear, after = 0.0 * params, []
    for gradient, rate in zip(gradients, rates, strict=True):
        new = squares + np.abs(gradient) ** 2
        linear = linear + gradient + 2 * shrinkage * params - (new**-power - squares**-power) / rate * params
        magnitude = np.abs(linear)
        left = np.maximum(magnitude - l1, 0) / np.where(magnitude > 0, magnitude, 1)
        params, squares = -left * linear / ((new**-power + beta) / rate + 2 * l2), new
        after.append(params)
    return after


@pytest.mark.parametrize("options", [{}, OPTIONS, OPTIONS | {"learning_rate_power": 0.0}])
@pytest.mark.parametrize("turn", [1.0, 0.6 + 0.8j])
def test_the_formula(options, turn):
    rates = (0.5, 0.25, 0.125)
    tx = ftrl(lambda count: 0.5 ** (count + 1.0), **options)
    params = jnp.asarray(PARAMS * turn)
    state = tx.init(params)
    for gradient, expected in zip(
        GRADIENTS, expected_after(GRADIENTS * turn, PARAMS * turn, options, rates), strict=True
    ):
        updates, state = tx.update(jnp.asarray(gradient * turn), state, params)
        params = params + updates
        np.testing.assert_allclose(params, expected, rtol=1e-4, atol=1e-6)
    assert isinstance(state, FtrlState)
    assert state.count == 3


def test_numbers_below_the_limit_become_exactly_zero():
    tx, params = ftrl(0.5, l1_regularization_strength=1.5), jnp.array([0.25, 0.25])
    updates, _ = tx.update(jnp.array([1.0, 4.0]), tx.init(params), params)
    assert params[0] + updates[0] == 0
    assert params[1] + updates[1] < -0.05


def test_a_step_at_a_rate_of_zero_changes_nothing_but_the_count():
    tx, params = ftrl(lambda count: jnp.float32(0.5) * count, learning_rate_power=-0.75), jnp.asarray(PARAMS)
    state = tx.init(params)
    updates, after = tx.update(jnp.ones(3), state, params)
    chex.assert_trees_all_equal((updates, after), (jnp.zeros(3), state._replace(count=jnp.int32(1))))
    updates, _ = tx.update(jnp.ones(3), after, params)
    (expected,) = expected_after(np.ones((1, 3)), PARAMS, {"learning_rate_power": -0.75}, [0.5])
    np.testing.assert_allclose(params + updates, expected, rtol=1e-5)


@pytest.mark.parametrize("power", [-0.5, -0.75])
def test_without_any_gradient_a_parameter_without_regularization_stays_and_derivatives_are_finite(power):
    tx, params = ftrl(0.5, initial_accumulator_value=0.0, learning_rate_power=power), jnp.asarray(PARAMS)

    def moved(gradient):
        return tx.update(gradient, tx.init(params), params)[0]

    np.testing.assert_array_equal(moved(jnp.zeros(3)), 0)
    assert np.isfinite(jax.grad(lambda gradient: moved(gradient).sum())(jnp.zeros(3))).all()


def test_float16_is_computed_in_float32_under_strict_promotion():
    params, gradient = jnp.ones(2, jnp.float16), jnp.array([300.0, 1e-4], jnp.float16)
    for rate in (0.5, lambda count: jnp.float32(0.5)):
        tx = ftrl(rate, initial_accumulator_value=0.0, l1_regularization_strength=1e-6)
        with jax.numpy_dtype_promotion("strict"):
            updates, state = tx.update(gradient, tx.init(params), params)
        assert (updates.dtype, state.accumulator.dtype, state.linear.dtype) == (jnp.float16, jnp.float32, jnp.float32)
        np.testing.assert_allclose(updates, -0.5, rtol=2e-2)


def test_parameters_are_required_and_a_missing_gradient_stays_missing():
    tx, params = ftrl(0.5), {"a": jnp.ones(1), "b": jnp.ones(1)}
    state = tx.init(params)
    with pytest.raises(ValueError, match="FTRL needs the parameters: call update"):
        tx.update(params, state)
    updates, after = tx.update({"a": jnp.ones(1), "b": None}, state, params)
    assert updates["b"] is None
    chex.assert_trees_all_equal((after.accumulator["b"], after.linear["b"]), (jnp.full(1, 0.1), jnp.zeros(1)))
