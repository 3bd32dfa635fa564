"""Lion is Optax's, in at least float32, and a missing gradient leaves its momentum."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_ext.transforms import scale_by_lion


def test_of_float32_it_is_optaxs():
    ours, theirs = scale_by_lion(0.9, 0.99), optax.scale_by_lion(0.9, 0.99)
    state, their_state = ours.init(jnp.zeros(3)), theirs.init(jnp.zeros(3))
    for gradient in (jnp.array([1.0, -2.0, 0.0]), jnp.array([-1e-3, 5.0, 1.0])):
        updates, state = ours.update(gradient, state)
        expected, their_state = theirs.update(gradient, their_state)
        chex.assert_trees_all_equal((updates, state), (expected, their_state))


def test_the_momentum_of_bfloat16_is_in_float32_and_keeps_what_is_small():
    params, tx = jnp.zeros(1, jnp.bfloat16), scale_by_lion(0.9, 0.999)
    state = tx.init(params)
    with jax.numpy_dtype_promotion("strict"):
        for _ in range(100):
            updates, state = tx.update(jnp.ones(1, jnp.bfloat16), state)
    assert (updates.dtype, state.mu.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(state.mu, 1 - 0.999**100, rtol=1e-5)


def test_a_missing_gradient_leaves_the_momentum():
    tx, params = scale_by_lion(0.5, 0.5), {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    _, state = tx.update({"a": jnp.ones(1), "b": jnp.ones(1)}, tx.init(params))
    updates, state = tx.update({"a": jnp.ones(1), "b": None}, state)
    assert updates["b"] is None
    chex.assert_trees_all_equal(state.mu, {"a": jnp.full(1, 0.75), "b": jnp.full(1, 0.5)})
