"""Stacked layers on eight devices, split along the stacked axis, within layers, or both: the same as on one device."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import optax_ext

BLOCKS, HEAD = (8, 4, 16), (16, 8)
AXES = optax_ext.path_axes({"^blocks/": 0})
STEPS = 2

OPTIMIZERS = {
    "lars": functools.partial(optax_ext.lars, 0.5, trust_coefficient=0.2, weight_decay=0.1, record=True),
    "popular lars": functools.partial(optax_ext.lars, 0.5, trust_coefficient=0.2, classic_momentum=False),
    "separate norms": functools.partial(
        optax_ext.lars, 0.5, trust_coefficient=0.2, weight_decay=0.1, separate_norms=True, eps=0.5
    ),
    "lamb": functools.partial(optax_ext.lamb, 0.1, weight_decay=0.1),
}


def draw(seed: int) -> Any:
    """Return layers of very different sizes: a norm over several would be wrong by far."""
    random = np.random.default_rng(seed)
    sizes = 2.0 ** random.permutation(8)
    blocks = random.normal(size=BLOCKS) * sizes[:, None, None]
    tree = {"blocks": {"kernel": blocks}, "head": {"kernel": random.normal(size=HEAD)}}
    return jax.tree.map(np.float32, tree)


PARAMS, GRADS = draw(0), draw(1)


def specs(blocks: P, head: P) -> Any:
    return {"blocks": {"kernel": blocks}, "head": {"kernel": head}}


def train(tx: optax.GradientTransformation, update: Any, place: Any = lambda tree: tree, state: Any = None) -> Any:
    params, state = place(PARAMS), tx.init(place(PARAMS)) if state is None else state
    for _ in range(STEPS):
        updates, state = update(place(GRADS), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params, state


@functools.cache
def on_one_device(optimizer: str) -> Any:
    tx = OPTIMIZERS[optimizer](stacked_axes=AXES)
    return jax.device_get(train(tx, jax.jit(tx.update)))


def assert_close(ours: Any, expected: Any) -> None:
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), ours, expected)


def make_mesh(*shape: int) -> jax.sharding.Mesh:
    return jax.make_mesh(shape, ("data", "model")[: len(shape)], axis_types=(AxisType.Auto,) * len(shape))


def put(mesh: jax.sharding.Mesh, tree: Any, specs: Any) -> Any:
    return jax.tree.map(lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec)), tree, specs)


@pytest.mark.parametrize(
    ("optimizer", "shape", "blocks"),
    [
        ("lars", (8,), P("data")),
        ("separate norms", (8,), P(None, None, "data")),
        ("lamb", (4, 2), P("data", None, "model")),
        ("popular lars", (2, 4), P("data", "model")),
    ],
)
def test_jit_with_shardings(optimizer, shape, blocks):
    mesh, where = make_mesh(*shape), specs(blocks, P("data"))
    tx = OPTIMIZERS[optimizer](stacked_axes=AXES)
    params, state = train(tx, jax.jit(tx.update), lambda tree: put(mesh, tree, where))
    assert_close((params, state), on_one_device(optimizer))
    moments = optax.tree.get(state, "mu" if optimizer == "lamb" else "trace")
    for tree in (params, moments):
        for leaf, spec in zip(jax.tree.leaves(tree), jax.tree.leaves(where), strict=True):
            assert leaf.sharding.is_equivalent_to(NamedSharding(mesh, spec), leaf.ndim)


def train_in_shard_map(tx: Any, mesh: jax.sharding.Mesh, where: Any, state_where: Any = None) -> Any:
    state = tx.init(PARAMS)
    if state_where is None:
        state_where = optax.tree.map_params(tx, lambda _, spec: spec, state, where, transform_non_params=lambda _: P())
    update = jax.shard_map(tx.update, mesh=mesh, in_specs=(where, state_where, where), out_specs=(where, state_where))
    return train(tx, jax.jit(update), lambda tree: put(mesh, tree, where), put(mesh, state, state_where))


@pytest.mark.parametrize(
    ("optimizer", "shape", "where", "axis_name"),
    [
        ("popular lars", (8,), specs(P("data"), P()), None),  # whole layers on each device
        ("separate norms", (8,), specs(P(None, None, "data"), P("data")), "data"),  # a part of each layer
        ("lamb", (2, 4), specs(P("data", "model"), P(None, "model")), "model"),  # parts of some layers
    ],
)
def test_shard_map(optimizer, shape, where, axis_name):
    tx = OPTIMIZERS[optimizer](stacked_axes=AXES, axis_name=axis_name)
    assert_close(train_in_shard_map(tx, make_mesh(*shape), where), on_one_device(optimizer))


def test_recorded_norms_lie_where_their_layers_do():
    mesh, where = make_mesh(8), specs(P("data"), P())
    tx = optax_ext.scale_by_trust_ratio(stacked_axes=AXES, record=True)
    states = type(tx.init(PARAMS))(specs(P("data"), P()), specs(P("data"), P()))
    _, state = train_in_shard_map(tx, mesh, where, states)
    _, expected = train(tx, tx.update)
    assert_close(state, expected)
    assert state.trust_ratio["blocks"]["kernel"].shape == (8,)


@pytest.mark.parametrize("optimizer", ["popular lars", "separate norms"])
def test_both_kinds_of_split_in_one_tree(optimizer):
    """Layers that are whole on a device beside a layer that is split over the same mesh axis: a transformation each."""
    make = OPTIMIZERS[optimizer]
    tx = optax.partition(
        {"whole": make(stacked_axes=0), "split": make(axis_name="data")}, {"blocks": "whole", "head": "split"}
    )
    states = jax.tree.map(lambda _: P("data"), tx.init(PARAMS))  # of which all leaves are like parameters
    params, _ = train_in_shard_map(tx, make_mesh(8), specs(P("data"), P("data")), states)
    assert_close(params, on_one_device(optimizer)[0])


def test_an_axis_name_for_whole_layers_would_mix_them():
    """Why the transformations above are two."""
    tx = OPTIMIZERS["popular lars"](stacked_axes=AXES, axis_name="data")
    params, _ = train_in_shard_map(tx, make_mesh(8), specs(P("data"), P("data")))
    expected, _ = on_one_device("popular lars")
    np.testing.assert_allclose(params["head"]["kernel"], expected["head"]["kernel"], rtol=1e-6)
    assert np.abs(params["blocks"]["kernel"] / expected["blocks"]["kernel"] - 1).max() > 0.1
