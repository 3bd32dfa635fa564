"""What runs in at least float32: which dtypes it sees, keeps and returns, and what is hidden from it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext.transforms._float32 import accumulator_dtype_of, in_float32


def recording(seen):
    """Make an Adam that says what it is given."""
    adam = optax.scale_by_adam()

    def init(params):
        seen["params"] = params
        return adam.init(params)

    def update(updates, state, params=None):
        seen.update(updates=updates, state=state)
        return adam.update(updates, state, params)

    return in_float32(optax.GradientTransformation(init, update))


def test_it_sees_and_keeps_float32_and_returns_the_dtype_that_came():
    seen, params = {}, {"half": jnp.ones(2, jnp.float16), "brain": jnp.ones(2, jnp.bfloat16), "c": 1j * jnp.ones(2)}
    tx = recording(seen)
    state = tx.init(params)
    updates, after = tx.update(params, state)
    for tree in (seen["params"], seen["updates"], state.mu, after.nu):
        assert [tree[name].dtype.name for name in params] == ["float32", "float32", "complex64"]
    chex.assert_trees_all_equal_dtypes(updates, params)
    chex.assert_trees_all_equal_dtypes(after, state)


def test_numbers_of_64_bits_stay_so():
    with jax.enable_x64(True):
        tx = in_float32(optax.scale_by_rms())
        params = jnp.ones(2, jnp.float64)
        updates, state = tx.update(params, tx.init(params))
        assert (updates.dtype, state.nu.dtype) == (jnp.float64, jnp.float64)


def test_a_parameter_without_a_gradient_is_hidden_and_keeps_its_state():
    seen, params = {}, {"a": jnp.ones(2), "b": jnp.ones(3)}
    tx = recording(seen)
    _, state = tx.update(params, tx.init(params))
    updates, after = tx.update({"a": None, "b": jnp.ones(3)}, state)
    assert (updates["a"], seen["updates"]["a"], seen["state"].mu["a"], seen["state"].nu["a"]) == (None,) * 4
    assert int(after.count) == int(state.count) + 1 == 2
    chex.assert_trees_all_equal((after.mu["a"], after.nu["a"]), (state.mu["a"], state.nu["a"]))
    assert (after.nu["b"] != state.nu["b"]).all()


def test_what_comes_is_rounded_once_and_not_before():
    tx = in_float32(optax.GradientTransformation(optax.scale_by_rms().init, lambda u, s, p=None: (u * 3 / 3, s)))
    updates, _ = tx.update(jnp.array([40000.0], jnp.float16), tx.init(jnp.ones(1, jnp.float16)))
    np.testing.assert_array_equal(updates, [40000.0])  # three times as much is past float16


@pytest.mark.parametrize(
    ("param", "asked", "dtype"),
    [
        ("float32", None, "float32"),
        ("float32", "bfloat16", "bfloat16"),
        ("complex64", "bfloat16", "complex64"),
        ("complex64", "complex128", "complex128"),
        ("float32", "complex64", "float32"),
    ],
)
def test_an_accumulator_is_complex_where_the_parameter_is(param, asked, dtype):
    assert accumulator_dtype_of(jax.ShapeDtypeStruct((), param), asked) == dtype
