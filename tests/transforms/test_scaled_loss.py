"""The loss, scaled on the way to the gradients and not in what is reported."""

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import optax_ext

PARAMS = {"loss_scale": jnp.array([3.0, 4.0])}  # a parameter may be called that


def square(params):
    return jnp.sum(params["loss_scale"] ** 2)


def state_with(*scales):
    return optax.chain(*(optax_ext.fixed_loss_scaling(optax.sgd(0.1), scale) for scale in scales)).init(PARAMS)


def test_the_loss_is_as_it_is_and_its_gradients_are_scaled():
    loss, grads = optax_ext.value_and_grad(square, state_with(8.0))(PARAMS)
    assert loss == 25.0
    chex.assert_trees_all_equal(grads, {"loss_scale": jnp.array([48.0, 64.0])})


def test_aux_and_arguments_pass_through():
    def fun(x, y, *, z):
        return x * y * z, {"aux": y}

    (loss, aux), grads = optax_ext.value_and_grad(fun, state_with(8.0), argnums=(0, 1), has_aux=True)(2.0, 3.0, z=4.0)
    assert (loss, aux, grads) == (24.0, {"aux": 3.0}, (96.0, 64.0))


def test_the_state_is_found_at_any_depth():
    tx = optax.chain(optax.clip(1.0), optax.masked(optax_ext.dynamic_loss_scaling(optax.sgd(0.1)), True))
    state = {"model": (tx.init(PARAMS), None)}
    assert optax_ext.scale_loss(jnp.float32(2.0), state) == 2.0**16
    chex.assert_trees_all_equal(optax_ext.unscale(jnp.float32([2.0**15]), state), jnp.ones(1))


def test_without_a_scaler_the_scale_is_one():
    state = optax.adam(0.1).init(PARAMS)
    assert optax_ext.scale_loss(jnp.float32(2.0), state) == 2.0
    chex.assert_trees_all_equal(optax_ext.value_and_grad(square, state)(PARAMS)[1], jax.grad(square)(PARAMS))


@pytest.mark.parametrize(
    "function", [optax_ext.scale_loss, optax_ext.unscale, lambda _, s: optax_ext.value_and_grad(square, s)]
)
def test_several_scalers_are_ambiguous(function):
    with pytest.raises(ValueError, match="one LossScaleState or none, got 2"):
        function(jnp.float32(1.0), state_with(2.0, 4.0))


def test_a_float16_loss_is_multiplied_in_float32():
    state = state_with(2.0**16)
    scaled = optax_ext.scale_loss(jnp.float16(4.0), state)
    assert scaled.dtype == jnp.float32
    assert scaled == 2.0**18

    def loss_fn(params):
        return square(params).astype(jnp.float16)

    loss, grads = optax_ext.value_and_grad(loss_fn, state)(PARAMS)
    assert loss == 25.0
    assert loss.dtype == jnp.float16
    assert not jnp.isfinite(grads["loss_scale"]).any()  # 2**16 enters the float16 loss as inf, and the step is skipped


def test_unscale_leaves_what_has_no_scale():
    tree = {"a": jnp.float16([16.0]), "b": jnp.array([3]), "c": None, "d": optax.MaskedNode()}
    result = optax_ext.unscale(tree, state_with(8.0))
    chex.assert_trees_all_equal(result, {**tree, "a": jnp.float32([2.0])})


def test_gradients_go_through_unscaled_to_the_same_step_as_without_scaling():
    plain, scaled = optax_ext.lars(0.5), optax_ext.dynamic_loss_scaling(optax_ext.lars(0.5))
    state = scaled.init(PARAMS)
    updates, _ = scaled.update(optax_ext.value_and_grad(square, state)(PARAMS)[1], state, PARAMS)
    expected, _ = plain.update(jax.grad(square)(PARAMS), plain.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(updates, expected)
