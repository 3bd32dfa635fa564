"""Train in two processes, as on two hosts, one of which gets a NaN: both skip the step, and end with the same numbers.

    python examples/two_processes.py

This starts both processes on this computer. On a cluster, each host runs the same program, and
`jax.distributed.initialize()` finds the others: Slurm and TPUs tell it where they are.
"""

import argparse
import hashlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

import optax_ext

STEPS, BATCH_SIZE = 40, 256
NAN_STEP, NAN_PROCESS = 20, 1
COMMAND = [sys.executable, __file__]

optimizer = optax_ext.dynamic_loss_scaling(optax.adam(1e-2))


def loss_fn(params: dict[str, jax.Array], images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy of the batch of all processes."""
    kernel, bias, images = (leaf.astype(jnp.float16) for leaf in (params["kernel"], params["bias"], images))
    logits = (images @ kernel + bias).astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@jax.jit
def train_step(params: Any, opt_state: optax.OptState, images: jax.Array, labels: jax.Array) -> tuple[Any, ...]:
    """Take one step, or skip it if a gradient is non-finite on any host: the same code as for one device."""
    loss, grads = optax_ext.value_and_grad(loss_fn, opt_state)(params, images, labels)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


def train(process_id: int, port: int) -> None:
    """Train as one of two processes."""
    # Two processes on one computer: on its CPU, by way of gloo. On hosts with GPUs or TPUs, leave out these two lines.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=process_id)
    mesh = Mesh(np.array(jax.devices()), ("data",))  # the devices of all processes
    replicated, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    params = {"kernel": np.zeros((64, 10), np.float32), "bias": np.zeros(10, np.float32)}
    params = jax.device_put(params, replicated)
    opt_state = jax.jit(optimizer.init, out_shardings=replicated)(params)

    pixels, labels = load_digits(return_X_y=True)
    pixels, labels = (pixels[process_id::2] / 16).astype(np.float32), labels[process_id::2]  # its own half
    random, loss = np.random.default_rng(process_id), jnp.nan
    for step in range(STEPS):
        batch = random.integers(len(labels), size=BATCH_SIZE // 2)
        images = pixels[batch]
        if (step, process_id) == (NAN_STEP, NAN_PROCESS):
            images[0, 0] = np.nan
        local = images, labels[batch].astype(np.int32)
        global_batch = (jax.make_array_from_process_local_data(split, array) for array in local)
        params, opt_state, loss = train_step(params, opt_state, *global_batch)

    ours = jax.device_get(params)  # the copy of this process
    digest = hashlib.sha256(b"".join(leaf.tobytes() for leaf in jax.tree.leaves(ours))).hexdigest()[:12]
    skipped = int(opt_state.skipped_steps)
    print(f"process {process_id}: loss {float(loss):.4f}, {skipped} step skipped, parameters {digest}", flush=True)
    multihost_utils.assert_equal(ours, "the processes ended with different parameters")
    if process_id == 0:
        print("both processes ended with the same parameters", flush=True)
    jax.distributed.shutdown()


def start_both() -> None:
    """Run this program twice, and end both processes when one fails."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # a free port
        port = listener.getsockname()[1]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for process_id in range(2):
            arguments = ["--process-id", str(process_id), "--port", str(port)]
            processes.append(subprocess.Popen([*COMMAND, *arguments]))
        while any(process.poll() is None for process in processes) and not any(process.poll() for process in processes):
            time.sleep(0.1)
    finally:  # also on Ctrl-C: a process would wait for the other one in vain
        for process in processes:
            process.kill()
            process.wait()
    if any(process.returncode for process in processes):
        raise SystemExit(f"exit statuses: {[process.returncode for process in processes]}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--process-id", type=int, help="0 or 1; without it, both are started")
    parser.add_argument("--port", type=int, default=12345, help="of process 0 (%(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.process_id is None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that it ends them first
        start_both()
    else:
        train(arguments.process_id, arguments.port)


if __name__ == "__main__":
    main()
