"""Factors on updates: their numbers, dtypes and holes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import transforms

PARAMS = {"body": jnp.array([1.0, 2.0]), "head": jnp.array([3.0])}


def test_updates_are_multiplied_and_nothing_is_kept():
    tx = optax_ext.scale_by_path({"head": 10.0})
    state = tx.init(PARAMS)
    assert not jax.tree.leaves(state)
    updates, _ = tx.update(PARAMS, state)
    np.testing.assert_array_equal(updates["head"], 30)
    assert updates["body"] is PARAMS["body"]
    with pytest.raises(ValueError, match="'haed' matches none"):
        optax_ext.scale_by_path({"haed": 10.0}).init(PARAMS)
    with pytest.raises(TypeError, match="accepted: factors, allow_unmatched"):
        optax_ext.scale_by_path({"head": 10.0}, unmatched=True)


def test_a_factor_of_zero_makes_zeros_of_anything():
    tx = optax_ext.scale_by_path({"head": 0.0})
    updates, _ = tx.update({"body": PARAMS["body"], "head": jnp.array([jnp.nan])}, tx.init(PARAMS))
    np.testing.assert_array_equal(updates["head"], 0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "complex64"])
def test_dtypes_stay_and_factors_are_not_rounded(dtype):
    update = jnp.array([1.5, 3.0], dtype)
    tx = optax_ext.scale_by_path({"": 0.7})
    with jax.numpy_dtype_promotion("strict"):
        scaled, _ = tx.update(update, tx.init(update))
    wide = "complex64" if dtype == "complex64" else "float32"
    np.testing.assert_array_equal(scaled, (np.asarray(update, wide) * np.float32(0.7)).astype(update.dtype))
    assert scaled.dtype == dtype


def test_holes_integers_and_numbers_are_left_alone():
    tx = optax_ext.scale_by_path({"w": 2.0})
    grads = {"w": 1.0, "w_none": None, "w_masked": optax.MaskedNode(), "w_int": jnp.arange(2)}
    updates, _ = tx.update(grads, tx.init(grads))
    assert updates["w"] == 2.0
    assert updates["w_none"] is None
    assert updates["w_masked"] == optax.MaskedNode()
    np.testing.assert_array_equal(updates["w_int"], 0)


def test_layers_of_a_stack_have_factors_of_their_own():
    params = {"blocks": jnp.ones((2, 3)), "head": jnp.ones(1)}
    tx = transforms.scale_by_layer_decay(0.5, "^blocks", stacked_axes=0, allow_unmatched=True)
    with pytest.raises(ValueError, match="must have axis 0"):
        tx.init({"blocks": jnp.ones((2, 3)), "head": jnp.ones(())})
    updates, _ = tx.update(params, tx.init(params))
    np.testing.assert_array_equal(updates["blocks"], [[0.25] * 3, [0.5] * 3])
    np.testing.assert_array_equal(updates["head"], 1)
