"""Gradient accumulation with `optax.MultiSteps`: loss scaling goes around it, and this is what happens elsewhere."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import optax_ext

PARAMS = {"kernel": np.linspace(-1, 1, 16, dtype=np.float32).reshape(8, 2)}
NAN_STEP = 2  # the first half of the second pair of micro-batches
ACCUMULATED = 2


def make_grads(step):
    grads = np.sin(np.arange(1, 17, dtype=np.float32) * (step + 1)).reshape(8, 2) * 8
    if step == NAN_STEP:
        grads[5, 1] = np.nan  # in the shard of one device
    return {"kernel": grads}


def scaled(inner, **options):
    return optax_ext.dynamic_loss_scaling(inner, initial_scale=8.0, growth_steps=100, **options)


def lars(**options):
    return optax_ext.lars(0.5, trust_coefficient=0.2, **options)


def outside(axis=None):
    inner = optax.MultiSteps(lars(axis_name=axis), ACCUMULATED).gradient_transformation()
    return scaled(inner, axis_name=axis)


def inside(should_skip_update_fn=None, axis=None):
    inner = scaled(lars(axis_name=axis), axis_name=axis)
    tx = optax.MultiSteps(inner, ACCUMULATED, should_skip_update_fn=should_skip_update_fn)
    return tx.gradient_transformation()


def train(tx, steps, update=None, put=lambda tree: tree):
    """Return the parameters, the state, and which steps moved the parameters."""
    params, update, moved = put(PARAMS), update or jax.jit(tx.update), []
    state = tx.init(params)
    for step in steps:
        updates, state = update(put(make_grads(step)), state, params)
        params = optax.apply_updates(params, updates)
        moved.append(bool(jnp.any(updates["kernel"])))
    return params, state, moved


WITHOUT_NAN = [0, 1, 3, 4, 5]  # the same training, had the bad micro-batch never been


def test_outside_leaves_the_bad_micro_batch_out_and_stays_healthy():
    params, state, moved = train(outside(), range(6))
    assert moved == [False, True, False, False, True, False]
    chex.assert_tree_all_finite(state)
    assert (state.skipped_steps, state.loss_scale) == (1, 4.0)
    # Micro-batches are unscaled before they are added up: a new scale in the middle of a pair does no harm.
    plain = optax.MultiSteps(lars(), ACCUMULATED).gradient_transformation()
    update, expected, expected_state = jax.jit(plain.update), PARAMS, plain.init(PARAMS)
    for step in WITHOUT_NAN:
        grads = {"kernel": make_grads(step)["kernel"] / (8 if step < NAN_STEP else 4)}
        updates, expected_state = update(grads, expected_state, expected)
        expected = optax.apply_updates(expected, updates)
    chex.assert_trees_all_close((params, state.inner_state), (expected, expected_state), rtol=1e-6)


def test_inside_the_accumulator_stays_nan_for_ever():
    params, state, moved = train(inside(), range(12))
    assert moved == [False, True] + [False] * 10
    assert np.isnan(state.acc_grads["kernel"]).any()
    chex.assert_tree_all_finite(params)  # the scaler saves the parameters, not the training
    assert state.inner_opt_state.skipped_steps == 5
    assert state.inner_opt_state.loss_scale == 1.0  # sinks to the minimum, though no scale is to blame


class TestInsideWithSkipNotFinite:
    def test_is_the_same_training_without_the_bad_micro_batch(self):
        params, state, moved = train(inside(optax.skip_not_finite), range(6))
        assert moved == [False, True, False, False, True, False]
        chex.assert_tree_all_finite(state)
        expected, expected_state, _ = train(inside(), WITHOUT_NAN)
        chex.assert_trees_all_equal(params, expected)
        chex.assert_trees_all_equal(state._replace(skip_state=()), expected_state)

    def test_hides_every_overflow_from_the_scale(self):
        """Were the scale too large, it would stay so, and nothing be learnt; around it, the scale comes down."""
        always_bad = [NAN_STEP] * 6
        _, state, moved = train(inside(optax.skip_not_finite), always_bad)
        assert not any(moved)
        assert (state.inner_opt_state.loss_scale, state.inner_opt_state.skipped_steps) == (8.0, 0)
        _, state, _ = train(outside(), always_bad)
        assert (state.loss_scale, state.skipped_steps) == (1.0, 6)


# On eight devices, each with one row of the parameters.


def place(mesh, tx):
    state = tx.init(PARAMS)
    specs = {"kernel": P("data")}
    state_specs = optax.tree.map_params(tx, lambda _, spec: spec, state, specs, transform_non_params=lambda _: P())
    return jax.shard_map(tx.update, mesh=mesh, in_specs=(specs, state_specs, specs), out_specs=(specs, state_specs))


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


@pytest.mark.parametrize("how", ["jit", "shard_map"])
def test_outside_all_devices_leave_the_same_micro_batch_out(mesh, how):
    tx = outside("data" if how == "shard_map" else None)
    update = jax.jit(place(mesh, tx) if how == "shard_map" else tx.update)
    sharding = NamedSharding(mesh, P("data"))
    params, state, moved = train(tx, range(6), update, lambda tree: jax.device_put(tree, sharding))
    expected, expected_state, expected_moved = train(outside(), range(6))
    assert moved == expected_moved
    chex.assert_trees_all_close((params, state), (expected, expected_state), rtol=1e-6)
    for scalar in (state.skipped_steps, state.inner_state.mini_step, state.inner_state.gradient_step):
        assert len({int(shard.data) for shard in scalar.addressable_shards}) == 1
    assert params["kernel"].sharding.is_equivalent_to(sharding, 2)
    assert state.inner_state.acc_grads["kernel"].sharding.is_equivalent_to(sharding, 2)


def test_inside_with_skip_not_finite_each_device_would_decide_for_itself(mesh):
    """`optax.skip_not_finite` knows no axis, and the default checks of `shard_map` refuse what comes of that."""
    update = place(mesh, inside(optax.skip_not_finite, "data"))
    tx = inside(optax.skip_not_finite)
    with pytest.raises(ValueError, match="could not infer replication"):
        jax.eval_shape(update, PARAMS, tx.init(PARAMS), PARAMS)
