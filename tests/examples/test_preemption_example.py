"""A training that SIGTERM stops saves the step it stops at, and goes on from there to the same end in every bit."""

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from examples import preemption

ROOT = Path(__file__).parents[2]
SAVE_STEPS, BAD_STEPS, SIGNAL_STEP = 20, 7, 27
TIMEOUT_SECONDS = 300  # for five seconds; a busy machine may take long, a hang must end

# Runs the example, says when the step of the signal has come, and then takes its time: JAX looks for SIGTERM once a
# second, and all steps would be over by then. It has as many devices as this process, for sums in the same order.
PROGRAM = f"""
import pathlib, sys, time
import jax
jax.config.update("jax_num_cpu_devices", 8)
from examples import preemption
preemption.DIRECTORY = pathlib.Path(sys.argv[1])
preemption.SAVE_STEPS, preemption.BAD_STEPS = {SAVE_STEPS}, {BAD_STEPS}
train_step, steps = preemption.train_step, iter(range(1, 100_000))
def slow_step(*arguments):
    step = next(steps)
    if step == {SIGNAL_STEP}:
        print("now", flush=True)
    time.sleep(0.05 if step >= {SIGNAL_STEP} else 0)
    return train_step(*arguments)
preemption.train_step = slow_step
preemption.main()
"""


def preempt(directory: Path, log: Path) -> int:
    """Run the example in a process of its own, stop it with SIGTERM, and return the step that it says it saved."""
    with log.open("w") as errors:
        command = [sys.executable, "-c", PROGRAM, str(directory)]
        process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=errors)
    timer = threading.Timer(TIMEOUT_SECONDS, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n", log.read_text()
        process.send_signal(signal.SIGTERM)
        printed = process.stdout.read()
        assert process.wait() == 0, log.read_text()
    finally:
        timer.cancel()
        process.kill()
        process.communicate()
    (step,) = re.findall(r"^preempted after step (\d+), which is saved", printed, re.MULTILINE)
    return int(step)


def in_bytes(state: Any) -> dict[str, tuple[str, bytes]]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): (str(leaf.dtype), np.asarray(leaf).tobytes()) for path, leaf in leaves}


def test_a_preempted_training_ends_as_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped_at = preempt(tmp_path / "preempted", tmp_path / "log")
    saved = sorted(int(path.name) for path in (tmp_path / "preempted").iterdir())
    assert saved[-1] == stopped_at >= SIGNAL_STEP

    monkeypatch.setattr(preemption, "SAVE_STEPS", SAVE_STEPS)
    monkeypatch.setattr(preemption, "BAD_STEPS", BAD_STEPS)
    monkeypatch.setattr(preemption, "STEPS", stopped_at + 2 * BAD_STEPS)
    resumed = preemption.train(tmp_path / "preempted")
    assert f"resumed after step {stopped_at} " in capsys.readouterr().out
    undisturbed = preemption.train(tmp_path / "undisturbed")
    assert "resumed" not in capsys.readouterr().out
    assert in_bytes(resumed) == in_bytes(undisturbed)
    assert (tmp_path / "undisturbed" / str(preemption.STEPS)).is_dir()  # the end is saved, whatever SAVE_STEPS is
    assert undisturbed.opt_state.skipped_steps == preemption.STEPS // BAD_STEPS
