"""The learning rate: a number, an array or a schedule, with a minus, in the dtype of what it scales."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext.transforms._learning_rate import scale_by_learning_rate


@pytest.mark.parametrize("rate", [0.5, np.float64(0.5), np.array(0.5), jnp.float32(0.5), lambda count: 0.5])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_updates_are_scaled_down_hill_and_keep_their_dtype(rate, dtype):
    tx, updates = scale_by_learning_rate(rate), jnp.array([3.0, -4.0], dtype)
    scaled, _ = tx.update(updates, tx.init(updates))
    assert scaled.dtype == dtype
    np.testing.assert_array_equal(scaled, [-1.5, 2.0])


def test_an_array_needs_no_promotion_and_a_missing_gradient_stays_missing():
    tx = scale_by_learning_rate(jnp.float32(0.5))
    with jax.numpy_dtype_promotion("strict"):
        scaled, state = tx.update({"a": jnp.ones(2, jnp.bfloat16), "b": None}, optax.EmptyState())
    assert scaled["b"] is None
    assert state == optax.EmptyState()


def test_a_schedule_is_asked_for_the_step():
    tx = scale_by_learning_rate(lambda count: 1 / (count + 1))
    state = tx.init(jnp.ones(1))
    for expected in (-1.0, -1 / 2, -1 / 3):
        updates, state = tx.update(jnp.ones(1), state)
        np.testing.assert_allclose(updates, [expected], rtol=1e-6)
