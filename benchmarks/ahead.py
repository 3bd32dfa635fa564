"""Compile steps for a TPU or a GPU without having one: `python -m benchmarks.ahead v5e`, or `h100`.

The real compiler, ahead of time, on shapes alone: `pip install libtpu`, or `jax-cuda12-plugin` and `jax-cuda12-pjrt` in
JAX's version and `nvidia-cuda-nvcc-cu12`. What it makes is counted: fusions, which is what runs on the device one after
the other, temporary memory, and bytes read and written.
"""

import argparse
import itertools
import json
import os
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.contenders import CONTENDERS, FAMILIES, choose
from benchmarks.measure import count_operations
from benchmarks.trees import TREES, stack_layers, stack_shapes

# The compiler for TPUs crashes on `apply_if_finite` around `optax.lars`.
ROWS = [
    "optax.sgd",
    "optax.lars",
    "optax_ext.lars",
    "loss-scaled optax_ext.lars",
    "optax.adamw",
    "loss-scaled optax.adamw",
    "config.AdamW",
    "loss-scaled config.AdamW",
    "optax.lamb",
    "optax_ext.lamb",
    "loss-scaled optax_ext.lamb",
]

# Read when the compilers are loaded, which asking for a topology does: they stand in for the machine and its driver.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no TPU is used, so that the lock of a process that looked for one is no matter
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
}

# What XLA asks a driver for, by NVIDIA's data sheet and the limits of compute capability 9.0.
H100 = """
    gpu_device_info {
      cuda_compute_capability { major: 9 }
      core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
      memory_bandwidth: 3352320000000  device_memory_size: 84929347584  l2_cache_size: 52428800
      threads_per_warp: 32  threads_per_block_limit: 1024  threads_per_core_limit: 2048
      block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
      registers_per_block_limit: 65536  registers_per_core_limit: 65536
      shared_memory_per_block: 49152  shared_memory_per_block_optin: 232448  shared_memory_per_core: 233472
    }
    platform_name: "CUDA"
    dnn_version_info { major: 9 minor: 7 }
    runtime_version { major: 12 minor: 9 }
    device_description_str: "NVIDIA H100 80GB HBM3"
"""
DEVICES: dict[str, dict[str, str]] = {
    "v5e": {"platform": "tpu", "topology_name": "v5e:2x2"},
    "h100": {"platform": "cuda", "topology": "1x1x1", "target_config": H100},
}


def compile_ahead(device: str, name: str, tree: str, dtype: str) -> dict[str, Any]:
    """Compile a row of the benchmarks for a v5e with 2 x 2 chips or an H100, and count what the compiler made."""
    os.environ |= ENVIRONMENT
    topology = topologies.get_topology_desc(**DEVICES[device])
    everywhere = NamedSharding(Mesh(np.array(topology.devices), ("device",)), PartitionSpec())

    def place(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere)

    init, step = CONTENDERS[name].make()
    shapes, axis = TREES[tree](), CONTENDERS[name].stacked_axis
    if axis is not None:
        shapes = stack_layers(shapes, lambda leaves: stack_shapes(leaves, axis))
    params = {path: jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere) for path, shape in shapes.items()}
    state = jax.tree.map(place, jax.eval_shape(init, params))
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()
    cost = compiled.cost_analysis()
    return {
        "row": name,
        "fusions": count_operations(compiled.as_text())["fusion"],
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "accessed_bytes": int(cost["bytes accessed"]) if cost else None,  # the compiler for an H100 does not say
    }


def main() -> None:
    """Print one line of JSON for each row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ahead", description=__doc__)
    parser.add_argument("device", choices=list(DEVICES))
    parser.add_argument("--tree", choices=list(TREES), default="resnet50")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--only", nargs="+", choices=[*FAMILIES, *CONTENDERS], default=ROWS, metavar="NAME")
    arguments = parser.parse_args()
    for name in dict.fromkeys(itertools.chain(*choose(arguments.only).values())):
        print(json.dumps(compile_ahead(arguments.device, name, arguments.tree, arguments.dtype)), flush=True)


if __name__ == "__main__":
    main()
