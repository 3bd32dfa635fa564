"""Steps: exact and saturating integers, offsets at both ends of them, and a true quotient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_ext._core.steps import _to_nearest, elapsed_steps, exact_step, true_divide

LAST, FIRST = 2**31 - 1, -(2**31)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (2**24 + 1, 2**24 + 1),
        (2**40, LAST),
        (2**70, LAST),
        (-(2**40), FIRST),
        (np.int64(2**40), LAST),
        (np.uint32(2**32 - 1), LAST),
        (np.uint64(2**64 - 1), LAST),
        (np.int8(-3), -3),
        (jnp.uint32(2**32 - 1), LAST),
        (jnp.int16(7), 7),
    ],
)
def test_an_integer_is_exact_and_saturates(step, expected):
    exact = exact_step(step)
    assert (exact.dtype, int(exact)) == (jnp.int32, expected)
    if isinstance(step, jax.Array):
        assert int(jax.jit(exact_step)(step)) == expected


def test_64_bits_hold_more():
    with jax.enable_x64(True):
        assert int(exact_step(2**40 + 1)) == 2**40 + 1
        assert int(exact_step(np.uint64(2**64 - 1))) == 2**63 - 1


def test_steps_come_in_arrays_and_as_floats():
    np.testing.assert_array_equal(exact_step([1, 2**40]), [1, LAST])
    assert exact_step(jnp.bfloat16(1.5)).dtype == jnp.float32
    assert exact_step(np.float64(2.5)) == 2.5


@pytest.mark.parametrize("step", [True, np.bool_(True), jnp.array(True), 1j, "1"])
def test_what_is_no_number_of_steps_is_named(step):
    with pytest.raises(TypeError, match="step must be an integer or a float, got"):
        exact_step(step)


@pytest.mark.parametrize(
    ("step", "offset", "extrapolated"),
    [(10, 3, 7), (3, 10, -7), (FIRST, 5, FIRST), (LAST, -5, LAST), (LAST, LAST, 0), (FIRST, -5, FIRST + 5)],
)
def test_an_offset_is_taken_off_without_wrapping(step, offset, extrapolated):
    assert int(elapsed_steps(step, offset, "extrapolate")) == extrapolated
    assert int(elapsed_steps(step, offset, "hold")) == max(extrapolated, 0)


def test_a_float_has_an_offset_too():
    assert elapsed_steps(2.5, 3, "extrapolate") == -0.5
    assert elapsed_steps(2.5, 3, "hold") == 0


@pytest.mark.parametrize("by", [3.0, 49.0, 1000.0])
def test_a_quotient_is_that_of_numpy_compiled_or_not(by):
    steps = jnp.arange(1, 300)
    expected = np.arange(1, 300, dtype=np.float32) / np.float32(by)
    np.testing.assert_array_equal(true_divide(steps, by), expected)
    np.testing.assert_array_equal(jax.jit(lambda steps: true_divide(steps, by))(steps), expected)


@pytest.mark.parametrize("ulps", [-2, -1, 0, 1, 2])
def test_a_quotient_as_a_gpu_makes_it_is_rounded_to_nearest(ulps):
    """An H100's is up to two units in the last place off, for 15% of all T / T; 33 is the first of them."""
    rng = np.random.default_rng(0)
    by = np.concatenate([np.arange(1, 1000), rng.integers(1, 2**20, 1000)]).astype(np.float32)
    steps = np.concatenate([by[:999], rng.integers(1, 2**24, 1000)]).astype(np.float32)
    expected = steps / by
    off = (expected.view(np.int32) + ulps).view(np.float32)
    np.testing.assert_array_equal(jax.jit(_to_nearest)(off, steps, by), expected)


@pytest.mark.parametrize(("steps", "by"), [(1.0, 0.0), (0.0, 0.0), (0.0, 3.0), (3e38, 1e-3), (1e-36, 3.0)])
def test_a_quotient_at_the_ends_of_float32_is_that_of_numpy(steps, by):
    with np.errstate(all="ignore"):
        expected = np.float32(steps) / np.float32(by)
    np.testing.assert_array_equal(true_divide(jnp.float32(steps), by), expected)


def test_a_quotient_has_the_derivatives_of_one():
    by_steps, by_divisor = jax.grad(true_divide, argnums=(0, 1))(jnp.float32(10.0), jnp.float32(4.0))
    assert (float(by_steps), float(by_divisor)) == (0.25, -0.625)
