"""Eight devices train as one does, in every placement: the same parameters, scales and skips, traced once."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import optax_ext
from tests.distributed import small_training
from tests.distributed.small_training import make_params
from tests.marks import slow_unless


@dataclasses.dataclass(frozen=True)
class Placement:
    """How parameters and batch lie on a mesh, and the axes that norms and skips need inside `shard_map`."""

    mesh_shape: dict[str, int]
    hidden: dict[str, P]
    head: dict[str, P]
    norm_axis: Any
    skip_axis: Any

    @property
    def specs(self):
        return {"hidden": self.hidden, "head": self.head}

    def mesh(self, axis_type=AxisType.Auto):
        # Explicit axes are make_mesh's default from JAX 0.9 on, Auto was before.
        shape, names = tuple(self.mesh_shape.values()), tuple(self.mesh_shape)
        return jax.make_mesh(shape, names, axis_types=(axis_type,) * len(shape))


REPLICATED = {"kernel": P(), "bias": P()}
SPLIT = {"kernel": P("data"), "bias": P("data")}
PLACEMENTS = {
    "data parallel": Placement({"data": 8}, REPLICATED, REPLICATED, None, "data"),
    "fully sharded": Placement({"data": 8}, SPLIT, SPLIT, "data", "data"),
    # Replicated leaves beside split ones: over the axis their norms count each entry eight times, their ratios do not.
    "kernels sharded": Placement(
        {"data": 8}, {"kernel": P("data"), "bias": P()}, {"kernel": P("data"), "bias": P()}, "data", "data"
    ),
    # A hidden layer split between two devices, whose kernel is split again among those that share the batch.
    "data x model": Placement(
        {"data": 4, "model": 2},
        {"kernel": P("data", "model"), "bias": P("model")},
        {"kernel": P("model"), "bias": P()},
        ("data", "model"),
        ("data", "model"),
    ),
}


def combinations(*pairs, slow=()):
    """Choose placements and optimizers: each pair compiles for a second, so not every one of each."""
    cases = slow_unless(lambda *pair: pair not in slow, [*pairs, *slow])
    return pytest.mark.parametrize(("name", "optimizer"), cases)


def put(mesh, tree, specs):
    return jax.tree.map(lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec)), tree, specs)


def assert_copies_agree(tree):
    """Make sure that devices that hold the same part of an array hold the same numbers."""
    for leaf in jax.tree.leaves(tree):
        first = {}
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, first.setdefault(str(shard.index), shard.data))


def train_on_mesh(placement, mesh, tx, step, traces):
    """Train with `step`, looking at every device's part of the state after each step."""
    params = put(mesh, make_params(), placement.specs)
    specs = small_training.state_specs(tx, placement.specs)
    state = tx.init(params)
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), (placement.specs, specs))
    for leaf, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(shardings[1]), strict=True):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)  # else the second step is compiled anew

    def look(params, state):
        for leaf, sharding in zip(jax.tree.leaves((params, state)), jax.tree.leaves(shardings), strict=True):
            assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
        assert all(len(leaf.addressable_shards) == 8 for leaf in jax.tree.leaves(state._replace(inner_state=None)))
        assert_copies_agree((params, state))

    def put_inputs(batch, fault):
        return put(mesh, batch, (P("data"), P("data"))), put(mesh, fault, placement.specs)

    run = small_training.train(step, params, state, put_inputs, look=look)
    assert len(traces) == 1
    return run


@combinations(
    ("data parallel", "lars"),
    ("fully sharded", "lars"),
    ("kernels sharded", "popular lars"),
    ("data x model", "lamb"),
)
def test_jit_with_shardings_needs_no_axis(name, optimizer):
    placement, tx, traces = PLACEMENTS[name], small_training.make(optimizer), []
    step = small_training.make_step(tx, small_training.mean_squared_error, traces)
    run = train_on_mesh(placement, placement.mesh(), tx, jax.jit(step, donate_argnums=(0, 1)), traces)
    small_training.assert_same_training(run, small_training.train_on_one_device(optimizer))


@combinations(("fully sharded", "popular lars"), ("data x model", "lars"))
def test_jit_with_shardings_in_the_types(name, optimizer):
    placement, tx, traces = PLACEMENTS[name], small_training.make(optimizer), []
    mesh = placement.mesh(AxisType.Explicit)

    def loss_fn(params, batch):  # an explicit mesh wants to be told where the parameters are gathered
        params = jax.tree.map(lambda leaf: jax.sharding.reshard(leaf, NamedSharding(mesh, P())), params)
        return small_training.mean_squared_error(params, batch)

    step = jax.jit(small_training.make_step(tx, loss_fn, traces), donate_argnums=(0, 1))
    run = train_on_mesh(placement, mesh, tx, step, traces)
    small_training.assert_same_training(run, small_training.train_on_one_device(optimizer))


@combinations(
    ("data parallel", "lars"),
    ("fully sharded", "popular lars"),
    ("kernels sharded", "lamb"),
    ("data x model", "lars"),
    slow=[("fully sharded", "lars"), ("data x model", "popular lars")],
)
def test_shard_map_with_the_axis(name, optimizer):
    placement, traces = PLACEMENTS[name], []
    tx = small_training.make(optimizer, placement.norm_axis, placement.skip_axis)

    def loss_fn(params, batch):  # its gradients come back summed over "data" for what is replicated, and else scattered
        def gather(leaf, spec):
            return jax.lax.all_gather(leaf, "data", axis=spec.index("data"), tiled=True) if "data" in spec else leaf

        params = jax.tree.map(gather, params, placement.specs)
        sum_parts = (
            functools.partial(jax.lax.psum, axis_name="model") if "model" in placement.mesh_shape else lambda x: x
        )
        return jax.lax.pmean(small_training.mean_squared_error(params, batch, sum_parts), "data")

    mesh, specs = placement.mesh(), small_training.state_specs(tx, placement.specs)
    step = jax.shard_map(  # with its default checks: what it returns as replicated is proven to be
        small_training.make_step(tx, loss_fn, traces),
        mesh=mesh,
        in_specs=(placement.specs, specs, P("data"), placement.specs),
        out_specs=(placement.specs, specs, P()),
    )
    run = train_on_mesh(placement, mesh, tx, jax.jit(step, donate_argnums=(0, 1)), traces)
    small_training.assert_same_training(run, small_training.train_on_one_device(optimizer))


# `pmap`, as long as JAX has it: a leading axis of 8 for the devices.

PMAP_TRACES = 2  # one for the first step, which takes arrays of the host, and one for all others


def copy_rows(tree):
    return jax.tree.map(lambda leaf: np.stack([leaf] * 8), tree)


def split_rows(tree):
    return jax.tree.map(lambda leaf: leaf.reshape(8, -1, *leaf.shape[1:]), tree)


def take_a_row(leaf):
    np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    return leaf[0]


def test_pmap_with_copied_parameters():
    """The infinity is in the gradients of one device, after they were averaged."""
    tx, traces = small_training.make("lars", skip_axis="data"), []
    step = jax.pmap(
        small_training.make_step(
            tx, small_training.mean_squared_error, traces, lambda *loss_and_grads: jax.lax.pmean(loss_and_grads, "data")
        ),
        axis_name="data",
    )

    def put_inputs(batch, fault):
        none = np.zeros_like
        faults = jax.tree.map(lambda leaf: np.stack([leaf if row == 3 else none(leaf) for row in range(8)]), fault)
        return split_rows(batch), faults

    run = small_training.train(
        step,
        copy_rows(make_params()),
        copy_rows(tx.init(make_params())),
        put_inputs,
        to_host=lambda tree: jax.tree.map(take_a_row, jax.device_get(tree)),
    )
    assert len(traces) <= PMAP_TRACES
    small_training.assert_same_training(run, small_training.train_on_one_device("lars"))


def test_pmap_with_split_parameters():
    tx, traces = small_training.make("popular lars", "data", "data"), []

    def loss_fn(parts, batch):
        params = jax.tree.map(lambda part: jax.lax.all_gather(part, "data", tiled=True), parts)
        return small_training.mean_squared_error(params, batch)

    def average(loss, grads):  # the gradient of a gathered part is that of the sum of all devices' losses
        return jax.lax.pmean(loss, "data"), jax.tree.map(lambda grad: grad / 8, grads)

    state = tx.init(make_params())
    run = small_training.train(
        jax.pmap(small_training.make_step(tx, loss_fn, traces, average), axis_name="data"),
        split_rows(make_params()),
        jax.tree.map(lambda leaf: split_rows(leaf) if leaf.ndim else copy_rows(leaf), state),
        lambda batch, fault: (split_rows(batch), split_rows(fault)),
        to_host=lambda tree: jax.tree.map(
            lambda leaf: take_a_row(leaf) if leaf.ndim == 1 else leaf.reshape(-1, *leaf.shape[2:]), jax.device_get(tree)
        ),
    )
    assert len(traces) <= PMAP_TRACES
    # `pmap` does not say that gradients are split, so that their norm is the root of the mean square over devices.
    small_training.assert_same_training(run, small_training.train_on_one_device("popular lars"), norm_factor=8**-0.5)


# Where sums are exact in any order, as those of squares of small integers are, so is everything else.

INTEGERS = jax.tree.map(lambda leaf: np.round(leaf * 8), make_params())
INTEGER_GRADS = jax.tree.map(lambda leaf: np.round(np.sin(leaf * 5) * 8) * 8, make_params())
BAD_GRADS = jax.tree.map(np.copy, INTEGER_GRADS)
BAD_GRADS["head"]["kernel"][13, 2] = np.nan


def make_exact(norm_axis=None, skip_axis=None):
    # With `eps`, norms have to be right and not just their ratio.
    lars = optax_ext.lars(0.5, momentum=0.5, eps=2.0, classic_momentum=False, axis_name=norm_axis)
    return optax_ext.dynamic_loss_scaling(lars, initial_scale=8.0, growth_steps=1, axis_name=skip_axis)


def update_three_times(update, state, place=lambda tree: tree):
    outputs = []
    for grads in (INTEGER_GRADS, BAD_GRADS, INTEGER_GRADS):
        updates, state = update(place(grads), state, place(INTEGERS))
        outputs.append((updates, state))
    assert [int(state.skipped_steps) for _, state in outputs] == [0, 1, 1]
    return jax.device_get(outputs)


@functools.cache
def updates_of_one_device():
    tx = make_exact()
    return update_three_times(jax.jit(tx.update), tx.init(INTEGERS))


@pytest.mark.parametrize("how", ["jit", "shard_map"])
@pytest.mark.parametrize("name", ["data parallel", "fully sharded"])
def test_exact_sums_give_the_updates_and_state_of_one_device_to_the_bit(name, how):
    placement = PLACEMENTS[name]
    tx = make_exact(placement.norm_axis, placement.skip_axis) if how == "shard_map" else make_exact()
    mesh, specs, update = placement.mesh(), small_training.state_specs(tx, placement.specs), tx.update
    if how == "shard_map":
        in_specs, out_specs = (placement.specs, specs, placement.specs), (placement.specs, specs)
        update = jax.shard_map(update, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
    state = put(mesh, tx.init(INTEGERS), specs)
    outputs = update_three_times(jax.jit(update), state, lambda tree: put(mesh, tree, placement.specs))
    for (updates, state), (expected, expected_state) in zip(outputs, updates_of_one_device(), strict=True):
        np.testing.assert_allclose(state.grad_norm, expected_state.grad_norm, rtol=1e-6)  # a root of parts' norms
        state = state._replace(grad_norm=expected_state.grad_norm)
        jax.tree.map(np.testing.assert_array_equal, (updates, state), (expected, expected_state))


def test_fixed_loss_scaling_agrees_too():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    tx = optax_ext.fixed_loss_scaling(optax.sgd(0.5), 8.0, axis_name="data")
    state = tx.init(np.ones(8, np.float32))
    update = jax.jit(jax.shard_map(tx.update, mesh=mesh, in_specs=(P("data"), P()), out_specs=(P("data"), P())))
    for bad, skipped in ((None, 0), (6, 1), (None, 1)):
        grads = np.full(8, 8.0, np.float32)
        if bad is not None:
            grads[bad] = -np.inf
        updates, state = update(grads, state)
        np.testing.assert_array_equal(updates, np.full(8, -0.5 if bad is None else 0.0))
        assert [int(shard.data) for shard in state.skipped_steps.addressable_shards] == [skipped] * 8
