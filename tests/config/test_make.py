"""What configs make: the transformations of the functions, with the same arguments, in the right order."""

import dataclasses
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config

PARAMS = {"kernel": jnp.array([[3.0, 4.0]]), "bias": jnp.array([1.0, 2.0])}
GRADS = {"kernel": jnp.array([[6.0, 8.0]]), "bias": jnp.array([0.3, 0.4])}


def updates_of(tx, grads=GRADS, steps=1):
    state = tx.init(PARAMS)
    for _ in range(steps):
        updates, state = jax.jit(tx.update)(grads, state, PARAMS)
    return updates


def test_lars_is_the_function():
    recipe = config.LARS(0.5, 0.8, 0.1, 0.01, True, False, ["bias"], [])
    function = optax_ext.lars(
        0.5,
        momentum=0.8,
        weight_decay=0.1,
        trust_coefficient=0.01,
        nesterov=True,
        classic_momentum=False,
        weight_decay_mask=optax_ext.path_mask(exclude=["bias"]),
    )
    chex.assert_trees_all_equal(updates_of(recipe.make(), steps=3), updates_of(function, steps=3))


@pytest.mark.parametrize("separate_norms", [False, True])
def test_epsilon_of_lars_is_eps_of_the_function(separate_norms):
    recipe = config.LARS(0.5, weight_decay_rate=0.1, separate_norms=separate_norms, epsilon=2.0)
    function = optax_ext.lars(0.5, weight_decay=0.1, separate_norms=separate_norms, eps=2.0)
    without = optax_ext.lars(0.5, weight_decay=0.1, separate_norms=separate_norms)
    chex.assert_trees_all_equal(updates_of(recipe.make()), updates_of(function))
    assert (updates_of(recipe.make())["kernel"] != updates_of(without)["kernel"]).all()


def test_epsilon_of_lars_is_at_least_0_and_has_no_place():
    with pytest.raises(config.ConfigError, match="epsilon: must be greater than or equal to 0, got -1e-07"):
        config.LARS(0.5, epsilon=-1e-7)
    with pytest.raises(config.ConfigError, match="takes 8 arguments by position"):
        config.LARS(0.5, 0.9, 0.0, 0.001, False, True, (), None, 1e-7)


@pytest.mark.parametrize(("excluded", "adapts"), [(None, False), ([], True), (["kernel"], True)])
def test_no_list_falls_back_to_the_weight_decay_list_and_an_empty_list_does_not(excluded, adapts):
    tx = config.LARS(0.5, exclude_from_weight_decay=["bias"], exclude_from_layer_adaptation=excluded).make()
    is_plain = bool((updates_of(tx)["bias"] == -0.5 * GRADS["bias"]).all())
    assert is_plain is not adapts


def test_a_pattern_without_a_match_is_an_error_unless_allowed():
    with pytest.raises(ValueError, match="'BatchNorm' matches none of the 2 parameters"):
        config.LARS(0.5, exclude_from_weight_decay=["bias", "BatchNorm"]).make().init(PARAMS)
    config.LARS(0.5, exclude_from_weight_decay=["BatchNorm"], allow_unmatched=True).make().init(PARAMS)


@pytest.mark.parametrize(
    ("clipping", "kernel", "bias"),
    [
        ({}, [[6.0, 8.0]], [0.3, 0.4]),
        ({"clipvalue": 7.0}, [[6.0, 7.0]], [0.3, 0.4]),
        ({"clipnorm": 5.0}, [[3.0, 4.0]], [0.3, 0.4]),
        ({"clipnorm": 0.0}, [[0.0, 0.0]], [0.0, 0.0]),
        ({"global_clipnorm": np.sqrt(100.25) / 2}, [[3.0, 4.0]], [0.15, 0.2]),
        ({"global_clipnorm": 100.0}, [[6.0, 8.0]], [0.3, 0.4]),
        ({"clipvalue": 3.0, "clipnorm": 3 * np.sqrt(0.5)}, [[1.5, 1.5]], [0.3, 0.4]),
    ],
)
def test_clipping_is_by_value_then_by_norm(clipping, kernel, bias):
    updates = updates_of(config.SGD(1.0, **clipping).make())
    chex.assert_trees_all_close(updates, {"kernel": -jnp.array(kernel), "bias": -jnp.array(bias)}, rtol=1e-6)


@pytest.mark.parametrize("clipping", [{"clipnorm": 1.0}, {"global_clipnorm": 1.0}])
def test_clipping_by_norm_does_not_freeze_a_float16_layer(clipping):
    params = jnp.ones(100, jnp.float16)
    tx = config.SGD(1.0, **clipping).make()
    updates, _ = tx.update(jnp.full(100, 300.0, jnp.float16), tx.init(params), params)
    np.testing.assert_allclose(np.float32(updates), -0.1, rtol=0.01)
    chex.assert_trees_all_equal(tx.update(0 * params, tx.init(params), params)[0], 0 * params)


def test_decay_divides_the_learning_rate():
    schedule = optax_ext.PolynomialDecay(1.0, 10, 0.0)
    for learning_rate, rate_of_third_step in ((0.5, 0.5 / 1.2), (schedule, 0.8 / 1.2)):
        updates = updates_of(config.SGD(learning_rate, decay=0.1).make(), steps=3)
        chex.assert_trees_all_close(
            updates, jax.tree.map(lambda g, rate=rate_of_third_step: -rate * g, GRADS), rtol=1e-6
        )


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_puts_the_learning_rate_into_the_momentum_as_keras_does(nesterov):
    schedule = optax_ext.PiecewiseConstantDecay((0,), (1.0, 0.1))
    updates = updates_of(config.SGD(schedule, momentum=0.5, nesterov=nesterov).make(), steps=2)
    factor = 0.5 * (0.5 * 1 + 0.1) + 0.1 if nesterov else 0.5 * 1 + 0.1
    chex.assert_trees_all_close(updates, jax.tree.map(lambda g: -factor * g, GRADS), rtol=1e-6)


def test_loss_scaling_is_outermost_so_that_clipping_sees_unscaled_gradients():
    recipe = config.OptimizationConfig(config.SGD(1.0, clipvalue=0.5), config.FixedLossScale(8.0))
    updates = updates_of(recipe.make(), {"kernel": jnp.array([[8.0, jnp.nan]]), "bias": jnp.zeros(2)})
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, PARAMS))
    updates = updates_of(recipe.make(), {"kernel": jnp.array([[8.0, 2.0]]), "bias": jnp.zeros(2)})
    np.testing.assert_array_equal(updates["kernel"], [[-0.5, -0.25]])
    assert optax.tree.get(recipe.make().init(PARAMS), "loss_scale") == 8.0
    assert optax.tree.get(config.OptimizationConfig(config.SGD(1.0)).make().init(PARAMS), "loss_scale") is None


def test_master_weights_stand_inside_the_skip_and_around_the_optimizer_and_its_average():
    recipe = config.OptimizationConfig(
        config.SGD(1.0), config.FixedLossScale(8.0), config.ParamsEma(0.5, initial="params"), master_weights=True
    )
    params, tx = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS), recipe.make()
    state = tx.init(params)
    for gradient in (2.0**-7, jnp.nan, 2.0**-7):
        grads = optax.tree.full_like(params, gradient)
        updates, state = jax.jit(tx.update)(grads, state, params)
        params = optax.apply_updates(params, updates)
    masters = state.inner_state.master
    chex.assert_trees_all_close(masters, jax.tree.map(lambda leaf: leaf - 2 * 2.0**-10, PARAMS), rtol=1e-6)
    assert int(state.skipped_steps) == 1
    chex.assert_trees_all_equal(params, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), masters))
    averages = optax_ext.ema_params(state)  # of the copies: no bfloat16 number lies as near
    assert all((a > m).all() for a, m in zip(*map(jax.tree.leaves, (averages, masters)), strict=True))


TRANSLATED = {"weight_decay_rate": "weight_decay", "eeta": "trust_coefficient", "epsilon": "eps"}
NOT_IN_THE_SCHEMA = {
    "inner",
    "axis_name",
    "weight_decay_mask",
    "trust_ratio_mask",
    "accumulator_dtype",
}
NOT_IN_THE_FUNCTION = {
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "decay",
    "learning_rate_multipliers",
    "layer_decay",
    "exclude_from_weight_decay",
    "exclude_from_layer_adaptation",
    "allow_unmatched",
}


@pytest.mark.parametrize(
    ("schema", "function"),
    [
        (config.LARS, optax_ext.lars),
        (config.DynamicLossScale, optax_ext.dynamic_loss_scaling),
        (config.FixedLossScale, optax_ext.fixed_loss_scaling),
    ],
)
def test_schema_and_function_agree_on_names_defaults_and_words(schema, function):
    parameters = inspect.signature(function).parameters
    fields = {TRANSLATED.get(field.name, field.name): field for field in dataclasses.fields(schema)}
    assert set(fields) - set(parameters) == NOT_IN_THE_FUNCTION & set(fields)
    assert set(parameters) - set(fields) == NOT_IN_THE_SCHEMA & set(parameters)
    for name in set(fields) & set(parameters):
        default = fields[name].default
        if name == "max_ratio":  # infinity is no number of JSON
            assert (default, parameters[name].default) == (None, float("inf"))
            continue
        assert (inspect.Parameter.empty if default is dataclasses.MISSING else default) == parameters[name].default, (
            name
        )
