"""The arithmetic of moments: one dtype whatever the decay's, magnitudes of complex numbers, and no infinity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_ext import config
from optax_ext.transforms._moments import average, clip_to_finite, divide, square


@pytest.mark.parametrize("decay", [0.75, jnp.bfloat16(0.75), jnp.float32(0.75)])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_an_average_keeps_the_decay_of_the_old_in_the_dtype_of_the_old(decay, dtype):
    with jax.numpy_dtype_promotion("strict"):
        result = average(jnp.array([8.0, 0.0], dtype), jnp.array([4.0, 1.0], jnp.bfloat16), decay)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, [7.0, 0.25])


@pytest.mark.parametrize(("x", "expected"), [(-3.0, 9.0), (3 - 4j, 25 + 0j), (1e20, 3.4e38), (1e20j, 3.4e38 + 0j)])
def test_a_square_is_of_the_magnitude_and_finite(x, expected):
    result = square(jnp.array(x))
    assert result.dtype == jnp.array(x).dtype
    np.testing.assert_allclose(result, expected, rtol=2e-3)
    assert np.isfinite(result)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_average_of_what_was_infinite_is_finite(dtype):
    largest = clip_to_finite(jnp.array(jnp.inf, dtype))
    for decay in (0.999, 0.5, jnp.float16(0.007)):  # the last and 1 minus it, in float16, add up to more than 1
        assert np.isfinite(average(largest, largest, decay))
    np.testing.assert_array_equal(clip_to_finite(jnp.array([2.5, 0.0], dtype)), [2.5, 0.0])
    assert np.isnan(clip_to_finite(jnp.array(jnp.nan, dtype)))


@pytest.mark.parametrize(("x", "root"), [("float32", "float32"), ("complex64", "float32"), ("bfloat16", "float32")])
def test_a_quotient_has_the_dtype_of_the_numerator(x, root):
    with jax.numpy_dtype_promotion("strict"):
        result = divide(jnp.array([6.0], x), jnp.array([1.5], root), 0.5)
    assert result.dtype == x
    np.testing.assert_array_equal(result, [3.0])


OF_LARGE = [
    *(config.LAMB, config.Adam, config.RMSprop, config.Adagrad, config.Adamax, config.Nadam, config.Ftrl),
    lambda rate: config.Adadelta(1e3 * rate),
]


@pytest.mark.parametrize("schema", OF_LARGE)
def test_moments_of_large_gradients_stay_finite(schema):
    tx, params = schema(0.1).make(), jnp.ones(2)
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(30):
        updates, state = update(jnp.full(2, 1e20), state, params)
    assert (updates < -0.05).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_an_infinite_gradient_is_not_hidden():
    tx, params = config.Adam(0.1).make(), jnp.ones(2)
    assert not np.isfinite(tx.update(jnp.full(2, jnp.inf), tx.init(params), params)[0]).any()
