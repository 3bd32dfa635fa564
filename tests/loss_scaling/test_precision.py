"""What is shown to the transformation inside: unscaled gradients and parameters, in types that hold them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext.loss_scaling._precision import trained, unscale_by, widen_range, zero_where_not_inexact


def test_only_what_has_less_range_than_float32_is_shown_in_it():
    dtypes = ["float16", "float8_e4m3fn", "bfloat16", "float32", "complex64", "int8"]
    shown = widen_range({dtype: jnp.ones(2, dtype) for dtype in dtypes})
    expected = ["float32", "float32", "bfloat16", "float32", "complex64", "int8"]
    assert [shown[dtype].dtype.name for dtype in dtypes] == expected
    assert widen_range({"number": 1.5, "none": None})["number"].weak_type is False


def test_a_gradient_is_divided_by_the_scale_in_float32_and_takes_the_dtype_of_its_parameter():
    grads = {"half": jnp.full(2, 2.0**-20, jnp.float16), "brain": jnp.full(2, 3.0, jnp.bfloat16), "c": jnp.full(1, 4j)}
    unscaled = unscale_by(2.0**10, grads)
    chex.assert_trees_all_equal_dtypes(unscaled, {"half": jnp.float32(0), "brain": jnp.float32(0), "c": grads["c"]})
    np.testing.assert_array_equal(unscaled["half"], 2.0**-30)
    np.testing.assert_array_equal(unscaled["c"], 4j / 2**10)
    params = {"half": jnp.ones(2), "brain": jnp.ones(2, jnp.bfloat16), "c": jnp.ones(1, jnp.complex64)}
    chex.assert_trees_all_equal_dtypes(unscale_by(2.0**10, grads, params), params)


@pytest.mark.parametrize("scale", [2.0**127, 2.0**101, 2.0**-126, 3.0])
def test_no_scale_is_too_large_or_small_to_divide_by(scale):
    number = np.float32(scale) * np.float32(1.5)
    for form in (unscale_by, jax.jit(unscale_by)):  # the reciprocal of the first is flushed to zero
        np.testing.assert_allclose(form(jnp.float32(scale), jnp.array([number])), [1.5], rtol=1e-6)


def test_what_holds_no_numbers_has_no_scale():
    float0 = np.zeros(3, jax.dtypes.float0)
    tree = {"integer": jnp.array([8]), "none": None, "masked": optax.MaskedNode(), "float0": float0}
    assert unscale_by(8.0, tree)["float0"] is float0
    params = {"integer": jnp.ones(1), "none": jnp.ones(2), "masked": optax.MaskedNode(), "float0": jnp.arange(3)}
    unscaled = unscale_by(8.0, tree, params)
    chex.assert_trees_all_equal(unscaled["float0"], jnp.zeros(3))  # since the clips of Optax take no float0
    assert (unscaled["integer"], unscaled["none"]) == (8, None)


def test_a_missing_gradient_may_be_that_of_a_whole_layer():
    params = {"layer": {"a": jnp.ones(2), "b": jnp.ones(2)}, "head": jnp.ones(2)}
    unscaled = unscale_by(8.0, {"layer": None, "head": jnp.full(2, 8.0)}, params)
    chex.assert_trees_all_equal(unscaled, {"layer": None, "head": jnp.ones(2)})


def test_gradients_of_lookahead_are_those_of_its_fast_parameters():
    params = optax.LookaheadParams(fast={"w": jnp.ones(2, jnp.bfloat16)}, slow={"w": jnp.ones(2)})
    assert trained(params) is params.fast
    assert trained(params.slow) is params.slow
    assert unscale_by(8.0, {"w": jnp.ones(2)}, params)["w"].dtype == jnp.bfloat16


def test_integers_and_keys_never_move():
    params = {"table": jnp.arange(2), "key": jax.random.key(0), "w": jnp.ones(2), "none": jnp.ones(1)}
    updates = {"table": jnp.array([0.5, 2.0]), "key": jnp.ones(()), "w": jnp.full(2, 3.0), "none": None}
    moved = zero_where_not_inexact(updates, params)
    chex.assert_trees_all_equal(moved["table"], jnp.zeros(2, jnp.int32))
    assert moved["key"].dtype == params["key"].dtype
    assert moved["w"] is updates["w"]
    assert moved["none"] is None
    assert zero_where_not_inexact(updates, None) is updates


def test_small_float16_gradients_survive_unscaling():
    grads, tx = jnp.full(3, 2.0**-20, jnp.float16), optax_ext.fixed_loss_scaling(optax.sgd(1.0), 2.0**10)
    for params in (jnp.ones(3), None):
        updates, _ = tx.update(grads, tx.init(jnp.ones(3)), params)
        chex.assert_trees_all_equal(updates, jnp.full(3, -(2.0**-30)))  # in float16 nothing would be left
