"""Waiting until a step: nothing moves, nothing is remembered, and schedules go on."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config, transforms

SCHEDULE = optax_ext.PolynomialDecay(1.0, 10, 0.0)
PARAMS = {"w": jnp.array([1.0, -2.0])}


def run(tx, grads):
    state, updates = tx.init(PARAMS), []
    for grad in grads:
        update, state = tx.update({"w": jnp.full(2, grad)}, state, PARAMS)
        updates.append(np.asarray(update["w"]))
    return np.stack(updates), state


@pytest.mark.parametrize(
    "make",
    [
        lambda rate: config.SGD(rate, momentum=0.5, weight_decay_rate=0.125).make(),
        lambda rate: config.Adam(rate).make(),
        lambda rate: config.Ftrl(rate, initial_accumulator_value=0.5).make(),
        lambda rate: optax.adamw(rate, weight_decay=0.125),
        lambda rate: optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(rate), optax.scale(-1.0)),
        lambda rate: optax.inject_hyperparams(optax.sgd)(rate, momentum=0.5),
    ],
    ids=["sgd", "adam", "ftrl", "adamw", "decay", "injected"],
)
def test_it_is_as_if_it_began_at_that_step_with_the_rates_of_training(make):
    grads = [1.0, -3.0, 2.0, 0.5, 1.5]
    waited, state = run(transforms.frozen_until(make(SCHEDULE), 2), grads)
    began, _ = run(make(dataclasses.replace(SCHEDULE, offset=-2)), grads[2:])
    np.testing.assert_array_equal(waited[:2], 0)
    np.testing.assert_allclose(waited[2:], began, rtol=1e-6, atol=1e-6)
    assert state.steps.count == 5


def test_what_waits_keeps_its_state_to_the_last_bit():
    tx = transforms.frozen_until(optax.adam(0.1), 3)
    state = tx.init(PARAMS)
    _, after = tx.update(PARAMS, state, PARAMS)
    chex.assert_trees_all_equal(after.inner_state, state.inner_state)
    assert after.steps.count == 1


def test_one_inside_another_counts_on():
    updates, _ = run(transforms.frozen_until(transforms.frozen_until(optax.sgd(1.0), 3), 2), [1.0] * 5)
    np.testing.assert_array_equal(updates[:, 0], [0, 0, 0, -1, -1])


def test_the_structure_never_changes_under_scan_and_loss_scaling():
    tx = optax_ext.dynamic_loss_scaling(
        transforms.accumulate_gradients(transforms.frozen_until(optax.sgd(SCHEDULE, momentum=0.5), 1), 2),
        initial_scale=4.0,
    )

    def step(state, grad):
        updates, state = tx.update({"w": jnp.full(2, grad)}, state, PARAMS)
        return state, updates["w"][0]

    grads = jnp.array([4.0, jnp.inf, 4.0, 2.0, 6.0, 2.0, 2.0])  # the scale is 2 after the skip
    state, moved = jax.lax.scan(step, tx.init(PARAMS), grads)
    # The skip counts for nothing; the first update of two gradients waits; the second has the rate of step 1.
    np.testing.assert_allclose(moved, [0, 0, 0, 0, -0.9 * 2.0, 0, -0.8 * (1.0 + 0.5 * 2.0)], rtol=1e-6)
    assert state.skipped_steps == 1


def test_wrong_arguments():
    with pytest.raises(ValueError, match="start_step must be greater than or equal to 0, got -1"):
        transforms.frozen_until(optax.sgd(0.1), -1)
    with pytest.raises(ValueError, match="inner must be an optax.GradientTransformation"):
        transforms.frozen_until(config.SGD(0.1), 1)


def test_a_gradient_of_none_stays_none():
    tx = transforms.frozen_until(config.SGD(1.0).make(), 1)
    params = {"a": jnp.ones(1, jnp.bfloat16), "b": jnp.ones(1)}
    grads, state = {"a": params["a"], "b": None}, tx.init(params)
    for expected in (0, -1):
        updates, state = tx.update(grads, state, params)
        assert updates["b"] is None
        assert updates["a"].dtype == jnp.bfloat16
        np.testing.assert_array_equal(updates["a"], expected)


def test_all_counts_are_set_at_once():
    tx = transforms.frozen_until(optax.sgd(lambda step: step), 5)
    state = optax.tree.set(tx.init(jnp.zeros(1)), count=jnp.int32(7))
    updates, state = tx.update(jnp.ones(1), state)
    assert updates == -7
    assert state.steps.count == 8
