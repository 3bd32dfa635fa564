"""Momentum: the formula, the dtype of the trace, and a parameter whose gradient is missing for a step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext.transforms import add_momentum

SERIES = [{"a": jnp.array([1.0, -2.0]), "b": jnp.array(3.0)}, {"a": jnp.array([4.0, 8.0]), "b": jnp.array(-1.0)}]


def run(tx, series):
    state = tx.init(SERIES[0])
    for grads in series:
        updates, state = tx.update(grads, state)
    return updates, state


@pytest.mark.parametrize("nesterov", [False, True])
def test_it_is_optaxs_trace(nesterov):
    actual = run(add_momentum(0.5, nesterov=nesterov), SERIES)
    chex.assert_trees_all_equal(actual, run(optax.trace(0.5, nesterov=nesterov), SERIES))
    trace = 0.5 * np.array([1.0, -2.0]) + np.array([4.0, 8.0])
    np.testing.assert_array_equal(actual[0]["a"], 0.5 * trace + [4, 8] if nesterov else trace)


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_missing_gradient_leaves_the_trace_as_it_was(nesterov):
    tx = add_momentum(0.5, nesterov=nesterov)
    _, state = tx.update(SERIES[0], tx.init(SERIES[0]))
    updates, after = tx.update({**SERIES[1], "a": None}, state)
    assert updates["a"] is None
    chex.assert_trees_all_equal(after.trace, {"a": state.trace["a"], "b": jnp.array(0.5)})


@pytest.mark.parametrize(
    ("param", "accumulator", "trace"),
    [
        ("bfloat16", None, "bfloat16"),
        ("bfloat16", "float32", "float32"),
        ("float32", "bfloat16", "bfloat16"),
        ("complex64", "float32", "complex64"),
        ("float32", "complex64", "float32"),
    ],
)
def test_the_trace_has_the_dtype_asked_for_or_the_parameters(param, accumulator, trace):
    tx, params = add_momentum(0.5, nesterov=False, accumulator_dtype=accumulator), jnp.ones(2, param)
    state = tx.init(params)
    updates, after = tx.update(params, state)
    assert (state.trace.dtype, after.trace.dtype) == (trace, trace)
    assert updates.dtype == jnp.promote_types(param, trace)  # not rounded to what is stored


def test_a_wider_update_does_not_change_the_dtype_of_the_trace():
    tx = add_momentum(0.5, nesterov=False)
    updates, state = tx.update(jnp.full(2, 1 + 2**-20, jnp.float32), tx.init(jnp.ones(2, jnp.bfloat16)))
    assert (updates.dtype, state.trace.dtype) == (jnp.float32, jnp.bfloat16)
    np.testing.assert_array_equal(updates, 1 + 2**-20)


def test_a_momentum_that_is_an_array_widens_nothing():
    """As `optax.inject_hyperparams` makes one, in float32."""
    params = jnp.ones(2, jnp.bfloat16)
    update = jax.jit(lambda momentum, state: add_momentum(momentum, nesterov=True).update(params, state))
    updates, state = update(jnp.float32(0.5), add_momentum(0.5, nesterov=True).init(params))
    assert (updates.dtype, state.trace.dtype) == (jnp.bfloat16, jnp.bfloat16)
    np.testing.assert_array_equal(updates, 1.5)
