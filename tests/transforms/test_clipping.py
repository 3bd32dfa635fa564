"""Clipping by norm: of each leaf or of all, in float32, and without a trace where nothing is clipped."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_ext import config
from optax_ext.transforms import clip_by_global_norm, clip_by_norm

GRADS = {"a": jnp.array([3.0, -4.0]), "b": jnp.array([[0.6], [0.8]]), "c": jnp.array(-12.0)}  # norms of 5, 1 and 12


def clipped(tx, grads):
    updates, _ = tx.update(grads, tx.init(grads))
    return updates


def test_each_leaf_is_shrunk_to_its_own_norm():
    expected = {"a": GRADS["a"] * 2 / 5, "b": GRADS["b"], "c": jnp.array(-2.0)}
    chex.assert_trees_all_close(clipped(clip_by_norm(2.0), GRADS), expected, rtol=1e-6)


@pytest.mark.parametrize(("max_norm", "factor"), [(6.5, 6.5 / 170**0.5), (13.1, 1.0)])
def test_all_leaves_are_shrunk_alike_to_their_common_norm(max_norm, factor):
    expected = jax.tree.map(lambda leaf: leaf * factor, GRADS)
    chex.assert_trees_all_close(clipped(clip_by_global_norm(max_norm), GRADS), expected, rtol=1e-6)


@pytest.mark.parametrize("clip", [clip_by_norm, clip_by_global_norm])
def test_what_is_not_clipped_is_left_to_the_bit(clip):
    grads = {"a": jnp.array([0.1, -0.7]), "zeros": jnp.zeros(3), "half": jnp.array([0.3], jnp.float16)}
    chex.assert_trees_all_equal(clipped(clip(1.0), grads), grads)


@pytest.mark.parametrize("clip", [clip_by_norm, clip_by_global_norm])
@pytest.mark.parametrize(("dtype", "gradient"), [("float16", 1000.0), ("bfloat16", 1000.0), ("complex64", 600 + 800j)])
def test_norms_are_of_magnitudes_in_float32_and_updates_keep_their_dtype(clip, dtype, gradient):
    updates = clipped(clip(1.0), jnp.full(4, gradient, dtype))  # in float16 the norm is infinite, and clips to zero
    assert updates.dtype == dtype
    np.testing.assert_allclose(updates.astype("complex64"), gradient / 2000, rtol=4e-3)


@pytest.mark.parametrize("clip", [clip_by_norm, clip_by_global_norm])
def test_a_factor_below_float16_is_no_zero(clip):
    updates = clipped(clip(0.01), jnp.full(4, 60000, jnp.float16))
    np.testing.assert_allclose(updates, 0.005, rtol=1e-3)


@pytest.mark.parametrize("clip", [clip_by_norm, clip_by_global_norm])
def test_there_may_be_no_gradient(clip):
    assert clipped(clip(1.0), {"a": None, "b": {}}) == {"a": None, "b": {}}


@pytest.mark.parametrize("clip", [clip_by_norm, clip_by_global_norm])
def test_a_gradient_that_is_nan_stays_so(clip):
    assert np.isnan(clipped(clip(1.0), jnp.array([jnp.nan, 3.0]))).any()


@pytest.mark.parametrize("clip", [{"clipnorm": 1.0}, {"global_clipnorm": 1.0}])
@pytest.mark.parametrize("form", [lambda function: function, jax.jit])
def test_clips_of_large_gradients_are_to_the_norm(form, clip):
    tx, params = config.SGD(1.0, **clip).make(), jnp.ones(3)
    updates, _ = form(tx.update)(jnp.full(3, 1e20), tx.init(params), params)
    np.testing.assert_allclose(updates, -(3**-0.5), rtol=1e-6)
    zero = jax.grad(lambda grads: tx.update(grads, tx.init(params), params)[0].sum())(jnp.zeros(3))
    np.testing.assert_array_equal(zero, -1.0)  # a gradient that is not clipped


@pytest.mark.parametrize("form", [lambda function: function, jax.jit])
def test_stacked_layers_are_clipped_one_by_one(form):
    layers = jnp.array([[3.0, -4.0], [0.3, 0.4], [0.0, 12.0]])
    tx = clip_by_norm(2.0, stacked_axes={"first": 0, "last": 1, "one": None, "none": 0})
    grads = {"first": layers, "last": layers.T, "one": layers, "none": None}
    updates = form(lambda grads: clipped(tx, grads))(grads)
    expected = jnp.array([[1.2, -1.6], [0.3, 0.4], [0.0, 2.0]])
    np.testing.assert_allclose(updates["first"], expected, rtol=1e-6)
    np.testing.assert_allclose(updates["last"], expected.T, rtol=1e-6)
    np.testing.assert_allclose(updates["one"], layers * 2 / np.sqrt(169.25), rtol=1e-6)


def test_stacked_axes_that_do_not_fit_are_found_by_init():
    with pytest.raises(ValueError, match=r"'b' must have axis 1, got the shape \(2,\)"):
        clip_by_norm(2.0, stacked_axes=1).init({"a": jnp.ones((2, 2)), "b": jnp.ones(2)})


def test_integers_and_keys_are_left_alone():
    grads = {"kernel": jnp.array([3.0, 4.0]), "table": np.zeros(3, jax.dtypes.float0)}
    tx = clip_by_norm(1.0, stacked_axes={"kernel": None, "table": 5})
    updates, _ = tx.update(grads, tx.init({"kernel": jnp.ones(2), "table": jnp.arange(3)}))
    np.testing.assert_allclose(updates["kernel"], [0.6, 0.8], rtol=1e-6)
    assert updates["table"].dtype == jax.dtypes.float0


def test_norms_are_of_all_devices():
    grads = jnp.array([[3.0], [4.0]])
    clip = jax.vmap(lambda leaf: clipped(clip_by_norm(1.0, axis_name="devices"), leaf), axis_name="devices")
    np.testing.assert_allclose(clip(grads), [[0.6], [0.8]], rtol=1e-6)
