"""Eight devices agree: on the scale, on each skip, and with one device."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import optax_ext

PARAMS = {"kernel": np.linspace(-1, 1, 32, dtype=np.float32).reshape(16, 2), "bias": np.ones(2, np.float32)}
GRADS = jax.tree.map(lambda p: np.sin(5 * p) * 8, PARAMS)
BAD = {**GRADS, "kernel": GRADS["kernel"].copy()}
BAD["kernel"][11, 1] = np.inf  # in the shard of one device
SHARDED = {"kernel": P("data"), "bias": P()}


def make(**options):
    return optax_ext.dynamic_loss_scaling(
        optax_ext.lars(0.5, weight_decay=0.1), initial_scale=8.0, growth_steps=1, **options
    )


def train(update, state, put=lambda tree: tree):
    params = put(PARAMS)
    for grads in (GRADS, BAD, GRADS):
        updates, state = update(put(grads), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.fixture(scope="module")
def expected():
    tx = make()
    return train(jax.jit(tx.update), tx.init(PARAMS))


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def test_jit_with_shardings_is_global_by_itself(expected, mesh):
    tx = make()
    put = functools.partial(jax.tree.map, lambda spec, leaf: jax.device_put(leaf, NamedSharding(mesh, spec)), SHARDED)
    params, state = train(jax.jit(tx.update), tx.init(put(PARAMS)), put)
    chex.assert_trees_all_close((params, state), expected, rtol=1e-6)
    assert params["kernel"].sharding.spec == P("data")


@pytest.mark.parametrize("norms_over_axis", [False, True])
def test_shard_map_with_the_axis_agrees_on_each_skip(expected, mesh, norms_over_axis):
    specs = SHARDED if norms_over_axis else {"kernel": P(), "bias": P()}
    inner = optax.chain(
        optax.add_decayed_weights(0.1),
        optax_ext.scale_by_trust_ratio(0.001, axis_name="data")
        if norms_over_axis
        else optax_ext.scale_by_trust_ratio(0.001),
        optax.scale_by_learning_rate(0.5),
        optax.trace(0.9),
    )
    tx = optax_ext.dynamic_loss_scaling(inner, initial_scale=8.0, growth_steps=1, axis_name="data")
    state = tx.init(PARAMS)
    state_specs = optax.tree.map_params(tx, lambda _, spec: spec, jax.tree.map(lambda _: P(), state), specs)
    update = jax.jit(
        jax.shard_map(tx.update, mesh=mesh, in_specs=(specs, state_specs, specs), out_specs=(specs, state_specs))
    )
    params, state = train(update, state)
    assert (float(state.loss_scale), int(state.skipped_steps)) == (16.0, 1)
    chex.assert_trees_all_close(params["kernel"], expected[0]["kernel"], rtol=1e-6)


def test_pmap_agrees_on_a_skip_that_one_device_sees(expected):
    tx = make(axis_name="batch")
    state = jax.tree.map(lambda leaf: jnp.stack([leaf] * 8), tx.init(PARAMS))
    stacked = jax.tree.map(lambda leaf: np.stack([leaf] * 8), PARAMS)
    grads = jax.tree.map(lambda leaf: np.stack([leaf] * 8), GRADS)
    grads["kernel"][3, 0, 0] = np.nan
    updates, state = jax.pmap(tx.update, axis_name="batch")(grads, state, stacked)
    assert not jax.tree.reduce(np.logical_or, jax.tree.map(np.any, updates))
    np.testing.assert_array_equal(state.loss_scale, [4.0] * 8)
    np.testing.assert_array_equal(state.grads_finite, [False] * 8)
