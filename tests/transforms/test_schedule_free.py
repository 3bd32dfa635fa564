"""Schedule-free learning against NumPy and Optax, in low precision, and the average that is evaluated."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config
from optax_ext.transforms import ScheduleFreeState, schedule_free, schedule_free_eval_params

PARAMS = {"kernel": jnp.array([[3.0, -4.0]]), "bias": jnp.array([1.0, 0.5])}


def make_updates(step):
    return jax.tree.map(lambda p: jnp.sin(p * (step + 1)), PARAMS)


def run(tx, params=PARAMS, steps=4):
    state = tx.init(params)
    for step in range(steps):
        updates = jax.tree.map(lambda u, p: u.astype(p.dtype), make_updates(step), params)
        updates, state = tx.update(updates, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("b1", [0.75, 1.0])
def test_the_formula_and_the_average(b1):
    params, state = run(schedule_free(b1))
    for name, param in PARAMS.items():
        z = x = np.float64(param)
        for step in range(4):
            z = z + np.float64(make_updates(step)[name])
            x = x + (z - x) / (step + 1)
        np.testing.assert_allclose(state.z[name], z, rtol=1e-6)
        np.testing.assert_allclose(params[name], (1 - b1) * z + b1 * x, rtol=1e-6)
        np.testing.assert_allclose(schedule_free_eval_params(state, params)[name], x, rtol=1e-6)
    assert (type(state), state.count) == (ScheduleFreeState, 4)


def test_it_is_that_of_optax_with_equal_weights_and_its_function_reads_the_state():
    theirs = optax.contrib.schedule_free(optax.identity(), learning_rate=1.0, b1=0.75, weight_lr_power=0.0)
    (params, state), (expected, _) = run(schedule_free(0.75)), run(theirs)
    chex.assert_trees_all_close(params, expected, rtol=1e-6)
    chex.assert_trees_all_close(
        schedule_free_eval_params(state, params), optax.contrib.schedule_free_eval_params(state, params), rtol=1e-6
    )


def test_bfloat16_counts_past_256_and_keeps_float32():
    params = jnp.full(2, 2.0, jnp.bfloat16)
    tx = schedule_free(0.5)
    state = tx.init(params)
    assert state.z.dtype == jnp.float32
    for _ in range(2):
        with jax.numpy_dtype_promotion("strict"):
            updates, state = tx.update(jnp.full(2, -(2.0**-10), jnp.bfloat16), state, params)
    np.testing.assert_array_equal(state.z, 2 - 2.0**-9)
    assert (updates.dtype, schedule_free_eval_params(state, params).dtype) == (jnp.bfloat16, jnp.bfloat16)
    late = state._replace(count=jnp.int32(999), z=jnp.full(2, 1002.0))
    updates, _ = schedule_free(1.0).update(jnp.zeros(2), late._replace(b1=jnp.float32(1.0)), jnp.full(2, 2.0))
    np.testing.assert_allclose(updates, 1.0, rtol=1e-5)  # a thousandth of the way to z


def test_the_state_shares_no_buffer_with_the_parameters_and_a_missing_gradient_leaves_it():
    state = schedule_free(0.5).init(PARAMS)
    assert state.z["bias"].unsafe_buffer_pointer() != PARAMS["bias"].unsafe_buffer_pointer()
    updates, after = schedule_free(0.5).update({"kernel": PARAMS["kernel"], "bias": None}, state, PARAMS)
    assert updates["bias"] is None
    chex.assert_trees_all_equal(after.z["bias"], state.z["bias"])
    with pytest.raises(ValueError, match="schedule_free needs the parameters"):
        schedule_free(0.5).update(PARAMS, state)


@pytest.mark.parametrize("b1", [0.0, -0.5, 1.5, float("nan")])
def test_a_weight_out_of_range_is_an_error(b1):
    with pytest.raises(ValueError, match="b1 must be"):
        schedule_free(b1)


class TestEvalParams:
    def test_at_any_depth_with_integers_and_frozen_groups(self):
        recipe = config.OptimizationConfig(config.ScheduleFreeAdamW(0.5, beta_1=0.5), config.DynamicLossScale(8.0))
        groups = {"train": recipe.make(), "freeze": optax.set_to_zero()}
        params = {"w": jnp.ones(2, jnp.float16), "table": jnp.arange(3), "frozen": jnp.full(2, 7.0)}
        tx = optax.partition(groups, {"w": "train", "table": "train", "frozen": "freeze"})
        state = tx.init(params)
        for _ in range(3):
            grads = {"w": jnp.full(2, 8.0, jnp.float16), "table": jnp.zeros(3, jnp.int32), "frozen": jnp.ones(2)}
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        average = schedule_free_eval_params(state, params)
        assert jax.tree.map(lambda leaf: leaf.dtype, average) == jax.tree.map(lambda leaf: leaf.dtype, params)
        chex.assert_trees_all_equal([average["table"], average["frozen"]], [params["table"], params["frozen"]])
        np.testing.assert_allclose(average["w"], 1 - 0.5 * 2, atol=2e-3)  # the mean of the first three z: 0.5, 0, -0.5
        np.testing.assert_allclose(params["w"], (0.0 - 0.5) / 2, atol=2e-3)

    def test_errors(self):
        with pytest.raises(ValueError, match="must hold one ScheduleFreeState, got 0: add schedule_free"):
            schedule_free_eval_params(optax.sgd(0.1).init(PARAMS), PARAMS)
        twice = optax.chain(schedule_free(0.5), schedule_free(0.5)).init(PARAMS)
        with pytest.raises(ValueError, match=r"must hold one ScheduleFreeState, got 2, at opt_state\[0\]"):
            schedule_free_eval_params(twice, PARAMS)
        with pytest.raises(TypeError, match="must be an optimizer state"):
            schedule_free_eval_params(optax_ext.lars(0.1), PARAMS)
