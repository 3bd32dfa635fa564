"""Two real processes train as one does, though only one of them meets what is not finite."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from tests.distributed import small_training

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 240  # ten are enough; a busy machine may take long, a hang must end

# Something else may have taken the port meanwhile, and gloo's processes wait for each other for 30 seconds only.
NOT_THEIR_FAULT = ("Failed to start RPC server", "Gloo context initialization failed")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_workers(folder):
    """Run both workers to their end; return whether both succeeded, and what they printed."""
    port = free_port()
    # The workers find the package beside the tests, installed or not, and set up devices of their own.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    }
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    logs = [folder / f"worker_{index}.log" for index in range(2)]
    workers = []
    try:
        for index, log in enumerate(logs):
            worker = [sys.executable, "-m", "tests.distributed.two_processes_worker"]
            command = [*worker, str(index), str(port), str(folder / f"found_{index}.npz")]
            with log.open("wb") as output:
                process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
            workers.append(process)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while any(worker.poll() is None for worker in workers):
            failed = any(worker.poll() for worker in workers)  # then the other waits in vain
            if failed or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        succeeded = all(worker.poll() == 0 for worker in workers)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return succeeded, "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')}" for log in logs)


def test_two_processes_train_as_one_does(tmp_path):
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        succeeded, output = run_workers(folder)
        if succeeded or not any(reason in output for reason in NOT_THEIR_FAULT):
            break
    assert succeeded, f"the workers failed, or did not end within {TIMEOUT_SECONDS} s\n{output}"

    expected = small_training.train_on_one_device("lars")
    structure = jax.tree.structure(expected)
    found = [np.load(folder / f"found_{index}.npz") for index in range(2)]
    for how in ("jit", "shard_map"):
        leaves = [[part[f"{how}/{index}"] for index in range(structure.num_leaves)] for part in found]
        runs = [structure.unflatten(part) for part in leaves]
        jax.tree.map(np.testing.assert_array_equal, *runs)  # each process holds the same as the other, to the bit
        small_training.assert_same_training(runs[0], expected)
