"""Which leaves hold floating numbers, what widens them, and the parameter that an update makes."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import SingleDeviceSharding

from optax_ext._core.precision import apply_update, as_array, is_inexact, keep_without_gradient, widen


@pytest.mark.parametrize(
    ("leaf", "expected"),
    [
        (1.5, True),
        (2j, True),
        (np.float16(1), True),
        (jnp.ones(2, jnp.bfloat16), True),
        (jnp.ones(2, jnp.float8_e4m3fn), True),
        (3, False),
        (True, False),
        (jnp.arange(2), False),
        (jax.random.key(0), False),
        (np.zeros(2, jax.dtypes.float0), False),
        (jax.nn.relu, False),
    ],
)
def test_floating_and_complex_numbers_are_inexact(leaf, expected):
    assert is_inexact(leaf) is expected


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        ("float16", "float32"),
        ("bfloat16", "float32"),
        ("float8_e5m2", "float32"),
        ("float32", "float32"),
        ("complex64", "complex64"),
        ("int8", "int8"),
        ("bool", "bool"),
    ],
)
def test_only_narrower_floats_widen_also_as_shapes(dtype, wide):
    assert widen(jnp.ones(2, dtype)).dtype == wide
    sharding = SingleDeviceSharding(jax.devices()[1])
    shape = widen(jax.ShapeDtypeStruct((2,), dtype, sharding=sharding))
    assert (type(shape), shape.shape, shape.dtype, shape.sharding) == (jax.ShapeDtypeStruct, (2,), wide, sharding)


def test_keys_and_functions_are_left_as_they_are():
    key = jax.random.key(0)
    for leaf in (key, jax.nn.relu):
        assert widen(leaf) is leaf
        assert as_array(leaf) is leaf


@pytest.mark.parametrize("number", [1.5, 2, 2j, True, np.float64(1.5), np.int16(3), jnp.asarray(1.5)])
def test_a_number_becomes_a_strongly_typed_array(number):
    array = as_array(number)
    assert isinstance(array, jax.Array)
    assert (array.dtype, array.weak_type, array) == (jnp.result_type(number), False, number)


def test_an_array_stays_the_same_one_and_a_weakly_typed_shape_does_not_stay_weak():
    array = jnp.ones(2, jnp.float32)
    assert as_array(array) is array
    sharding = SingleDeviceSharding(jax.devices()[1])
    shape = as_array(jax.ShapeDtypeStruct((2,), jnp.float32, weak_type=True, sharding=sharding))
    assert (shape.weak_type, shape.dtype, shape.sharding) == (False, jnp.float32, sharding)


REAL = ["float16", "bfloat16", "float32"]


@pytest.mark.parametrize(
    ("param", "update"), [*itertools.product(REAL, REAL), *(("complex64", update) for update in [*REAL, "complex64"])]
)
def test_an_update_makes_the_parameter_that_optax_makes_also_under_strict_promotion(param, update):
    # The last two are a bit more than half a unit of 1 in bfloat16 and float16: rounded before, they would be lost.
    params = jnp.array([1.0, -3.0, 1e-3, 1.0, 1.0], param)
    updates = jnp.array([2.0**-9, 0.7, 1e-3, 2.0**-8 + 2.0**-20, 2.0**-11 + 2.0**-24], update)
    expected = optax.apply_updates(params, updates)
    with jax.numpy_dtype_promotion("strict"):
        actual = apply_update(params, updates)
    chex.assert_trees_all_equal_dtypes(actual, expected)
    chex.assert_trees_all_equal(actual, expected)


def test_what_takes_no_update_stays():
    key, params = jax.random.key(0), jnp.ones(2)
    assert apply_update(key, jnp.zeros(())) is key
    assert apply_update(jax.nn.relu, None) is jax.nn.relu
    assert apply_update(params, None) is params
    integers = jnp.arange(2)
    assert apply_update(integers, np.zeros(2, jax.dtypes.float0)) is integers


def test_integers_move_by_integers():
    moved = apply_update(jnp.arange(3), jnp.array([1.0, 0.0, -2.0]))
    assert moved.dtype == jnp.int32
    np.testing.assert_array_equal(moved, [1, 1, 0])


def test_python_numbers_are_parameters_and_updates():
    moved = apply_update(1.5, 0.25)
    assert (moved, moved.weak_type) == (1.75, False)


def test_without_a_gradient_the_old_state_stays():
    old = optax.ScaleByAdamState(jnp.int32(1), {"a": jnp.ones(2), "b": jnp.ones(1)}, {"a": jnp.ones(2), "b": None})
    new = optax.ScaleByAdamState(jnp.int32(2), {"a": None, "b": jnp.zeros(1)}, {"a": jnp.zeros(2), "b": None})
    kept = keep_without_gradient(new, old)
    chex.assert_trees_all_equal(kept.mu, {"a": jnp.ones(2), "b": jnp.zeros(1)})
    chex.assert_trees_all_equal(kept.nu, {"a": jnp.zeros(2), "b": None})
    assert int(kept.count) == 2
