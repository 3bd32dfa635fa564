"""Steps: exact and saturating integers, offsets at both ends of them, and a true quotient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_ext._core.steps import elapsed_steps, exact_step, true_divide

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
