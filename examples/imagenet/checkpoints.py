"""Checkpoints by Orbax: the state of the training and the place in its images."""

import contextlib
import signal
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import grain
import jax
import orbax.checkpoint as ocp

from examples.imagenet.data import Batch
from examples.imagenet.training import State

Batches = grain.DatasetIterator[Batch]


def open_checkpoints(folder: Path) -> ocp.CheckpointManager:
    """Return what keeps the last two checkpoints in a folder, which all hosts must see."""
    return ocp.CheckpointManager(folder.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=2))


def save(manager: ocp.CheckpointManager, step: int, state: State, batches: Batches) -> None:
    """Save in the background, while the next steps run."""
    args = ocp.args.Composite(state=ocp.args.StandardSave(state), batches=grain.checkpoint.CheckpointSave(batches))
    manager.save(step, args=args, force=True)


def restore(manager: ocp.CheckpointManager, state: State, batches: Batches) -> tuple[State, int]:
    """Return the last state that was saved and its step, with `batches` moved there; or the given state and 0."""
    step = manager.latest_step()
    if step is None:
        return state, 0
    args = ocp.args.Composite(
        state=ocp.args.StandardRestore(state), batches=grain.checkpoint.CheckpointRestore(batches)
    )
    return manager.restore(step, args=args)["state"], step


@contextlib.contextmanager
def preemption(manager: ocp.CheckpointManager) -> Generator[Callable[[int], bool]]:
    """Yield what says after each step whether to save and stop: SIGTERM came, and if only to one host of several."""
    if jax.process_count() > 1:
        yield manager.reached_preemption  # `jax.distributed` handles the signal; all hosts stop after the same step
        return
    notice = threading.Event()
    previous = signal.signal(signal.SIGTERM, lambda *_: notice.set())
    try:
        yield lambda step: notice.is_set()
    finally:
        signal.signal(signal.SIGTERM, previous)
