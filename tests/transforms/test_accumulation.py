"""Means of gradients over several steps."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext.transforms import accumulate_gradients


def test_steps_as_multi_steps_does():
    params = {"w": jnp.arange(4.0), "b": jnp.ones(1)}
    ours, theirs = accumulate_gradients(optax.adam(0.1), 3), optax.MultiSteps(optax.adam(0.1), 3)
    update, state, expected = jax.jit(ours.update), ours.init(params), theirs.init(params)
    chex.assert_trees_all_equal(state, expected)
    for step in range(7):
        grads = {"w": jnp.sin(params["w"] + step), "b": jnp.ones(1) * step}
        updates, state = update(grads, state, params)
        others, expected = theirs.update(grads, expected, params)
        chex.assert_trees_all_close((updates, state), (others, expected), rtol=1e-6, atol=1e-8)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, ours.init(params))


def test_a_gradient_of_none_is_left_out_and_integers_and_keys_are_not_averaged():
    params = {"w": jnp.ones(1), "frozen": jnp.ones(1), "table": jnp.arange(2), "key": jax.random.key(0)}
    zeros = {name: np.zeros(params[name].shape, jax.dtypes.float0) for name in ("table", "key")}
    seen = []
    inner = optax.stateless(lambda updates, params: seen.append(updates) or {**updates, **zeros})
    tx = accumulate_gradients(optax.chain(inner, optax.stateless(lambda updates, params: {"w": updates["w"]})), 2)
    state = tx.init(params)
    for gradient in (1.0, 3.0):
        updates, state = tx.update({"w": jnp.full(1, gradient), "frozen": None, **zeros}, state, params)
    assert float(updates["w"][0]) == 2.0
    assert seen[-1] == {"w": 2.0, "frozen": None, **zeros}


@pytest.mark.parametrize(("dtype", "first"), [("complex64", 2 + 2j), ("bfloat16", 256.0)])
def test_means_are_exact_under_strict_promotion(dtype, first):
    params = jnp.ones(1, dtype)
    tx = accumulate_gradients(optax.identity(), 2)
    with jax.numpy_dtype_promotion("strict"):
        state = tx.init(params)
        for gradient in (first, first + 4):
            updates, state = tx.update(jnp.full(1, gradient, dtype), state, params)
    assert updates.dtype == params.dtype
    assert updates[0] == first + 2
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(params))


def test_what_is_infinite_before_the_last_step_moves_nothing():
    tx = accumulate_gradients(optax.stateless(lambda updates, params: updates / 0), 2)
    updates, _ = tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
    assert updates[0] == 0


def test_steps_are_at_least_one():
    with pytest.raises(ValueError, match="steps must be greater than 0, got 0"):
        accumulate_gradients(optax.identity(), 0)
