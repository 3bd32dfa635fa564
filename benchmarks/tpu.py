"""Compile steps for four TPUs without having one: `pip install libtpu`, then `python -m benchmarks.tpu`.

The real compiler, ahead of time, on shapes alone. What it makes is counted: fusions, which is what runs on the device
one after the other, and temporary memory.
"""

import argparse
import json
import os
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.contenders import CONTENDERS, OURS, SCALED, SGD
from benchmarks.measure import count_operations
from benchmarks.trees import TREES

# The compiler crashes on `apply_if_finite` around `optax.lars`.
ROWS = [SGD, "optax.lars", OURS, SCALED]


def compile_for_tpu(name: str, tree: str, dtype: str) -> dict[str, Any]:
    """Compile a row of the benchmarks for a v5e with 2 x 2 chips, and count what the compiler made."""
    # Read by libtpu when it is loaded, which happens here: they stand in for the machine that it would ask.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    everywhere = NamedSharding(Mesh(np.array(topology.devices), ("device",)), PartitionSpec())

    def place(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere)

    init, step = CONTENDERS[name]()
    shapes = TREES[tree]().items()
    params = {path: jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere) for path, shape in shapes}
    state = jax.tree.map(place, jax.eval_shape(init, params))
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()
    return {
        "row": name,
        "fusions": count_operations(compiled.as_text())["fusion"],
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


def main() -> None:
    """Print one line of JSON for each row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tpu", description=__doc__)
    parser.add_argument("--tree", choices=list(TREES), default="resnet50")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=ROWS, metavar="ROW")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    arguments = parser.parse_args()
    for name in arguments.only:
        print(json.dumps(compile_for_tpu(name, arguments.tree, arguments.dtype)), flush=True)


if __name__ == "__main__":
    main()
