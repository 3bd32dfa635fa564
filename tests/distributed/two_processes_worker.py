"""One of two processes that train together, each with two devices: PROCESS_ID PORT OUTPUT are its arguments."""

import sys

import jax
import numpy as np

process_id, port, output = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=process_id, initialization_timeout=90)

# After `initialize`, which has to come before anything that may ask JAX for its devices.
from jax.experimental import multihost_utils  # noqa: E402
from jax.sharding import AxisType, NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402

from tests.distributed import small_training  # noqa: E402

assert jax.process_count() == 2
assert (jax.local_device_count(), jax.device_count()) == (2, 4)
mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
SPECS = {"hidden": {"kernel": P("data"), "bias": P()}, "head": {"kernel": P("data"), "bias": P()}}


def put(tree, specs):
    """Give each device its part; the two processes hold different parts."""

    def make(leaf, spec):
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, NamedSharding(mesh, spec), lambda index: leaf[index])

    return jax.tree.map(make, tree, specs)


def put_inputs(batch, fault):
    """Leave each fault to the one process that has it: the other has never seen a number that is not finite."""
    in_my_half = np.arange(16) // 8 == process_id
    inputs, targets = (np.where(in_my_half[:, None], array, 0) for array in batch)
    faults = fault["hidden"]["kernel"]  # its rows 4 to 7 are on the devices of process 1
    fault["hidden"]["kernel"] = np.where((np.arange(8) // 4 == process_id)[:, None], faults, 0)
    mine_are_finite = np.isfinite(inputs).all() and np.isfinite(fault["hidden"]["kernel"]).all()
    assert process_id == 1 or mine_are_finite
    return put((inputs, targets), (P("data"), P("data"))), put(fault, SPECS)


def loss_in_parts(params, batch):
    gathered = {
        layer: {**leaves, "kernel": jax.lax.all_gather(leaves["kernel"], "data", tiled=True)}
        for layer, leaves in params.items()
    }
    return jax.lax.pmean(small_training.mean_squared_error(gathered, batch), "data")


def train(how):
    axis = "data" if how == "shard_map" else None
    tx, traces = small_training.make("lars", axis, axis), []
    specs = small_training.state_specs(tx, SPECS)
    if how == "shard_map":
        step = jax.shard_map(
            small_training.make_step(tx, loss_in_parts, traces),
            mesh=mesh,
            in_specs=(SPECS, specs, P("data"), SPECS),
            out_specs=(SPECS, specs, P()),
        )
    else:
        step = small_training.make_step(tx, small_training.mean_squared_error, traces)
    params, state = small_training.make_params(), tx.init(small_training.make_params())
    gather = jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))
    run = small_training.train(
        jax.jit(step, donate_argnums=(0, 1)),
        put(params, SPECS),
        put(state, specs),
        put_inputs,
        to_host=lambda tree: jax.device_get(gather(tree)),
    )
    assert len(traces) == 1
    return run


runs = {how: train(how) for how in ("jit", "shard_map")}
leaves = {f"{how}/{index}": leaf for how, run in runs.items() for index, leaf in enumerate(jax.tree.leaves(run))}
np.savez(output, **leaves)
multihost_utils.sync_global_devices("both have written what they found")
jax.distributed.shutdown()
