"""A training that is resumed from its Orbax checkpoints: LARS and averaged parameters in float16, with bad steps.

As a program, `python -m tests.restart.training DIRECTORY RESULT [UNENDING]`, it says on standard output what it does,
one line each, and takes its last step only when a line comes in. The save at the step UNENDING does not end. So whoever
reads along knows that the training is not done, and that the save is not, however slow either may be.
"""

import functools
import hashlib
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

import optax_ext

LAST_STEP, SAVE_STEPS = 90, 6
FEATURES, CLASSES = 512, 1024  # large enough that a save takes its time, small enough for a step of milliseconds

State = dict[str, Any]

rate = optax_ext.LinearWarmup(optax_ext.CosineDecay(2.0, LAST_STEP), 20)
mask = optax_ext.path_mask(exclude=["bias"])
lars = optax_ext.lars(rate, weight_decay=1e-4, weight_decay_mask=mask, trust_ratio_mask=mask)
tx = optax_ext.dynamic_loss_scaling(
    optax.chain(lars, optax_ext.params_ema(0.9)), initial_scale=2.0**15, growth_steps=3, hysteresis=2
)


def init_state() -> State:
    kernel = jax.random.normal(jax.random.key(0), (FEATURES, CLASSES)) / FEATURES**0.5
    params = {"kernel": kernel, "bias": jnp.zeros(CLASSES, jnp.bfloat16)}
    return {"params": params, "opt": tx.init(params)}


def make_batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the batch of a step, from its number alone; every 13th holds an infinity."""
    random = np.random.default_rng(step)
    images = random.normal(size=(16, FEATURES)).astype(np.float16)
    images[0, 0] = np.inf if step % 13 == 0 else images[0, 0]
    return images, random.integers(CLASSES, size=16)


@functools.partial(jax.jit, donate_argnums=0)
def train_step(state: State, images: jax.Array, labels: jax.Array) -> State:
    """Take one step in float16, whose gradients overflow when the scale has grown."""

    def loss_fn(params: Any) -> jax.Array:
        logits = images @ params["kernel"].astype(jnp.float16) + params["bias"].astype(jnp.float16)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).sum().astype(jnp.float32)

    _, grads = optax_ext.value_and_grad(loss_fn, state["opt"])(state["params"])
    updates, opt = tx.update(grads, state["opt"], state["params"])
    return {"params": optax.apply_updates(state["params"], updates), "opt": opt}


LeafBytes = dict[str, tuple[str, tuple[int, ...], bytes]]


def leaf_bytes(tree: Any) -> LeafBytes:
    """Return the dtype, shape and bytes of every leaf by its path: what equals this is equal in every bit."""
    leaves = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    return {path: (str(leaf.dtype), leaf.shape, leaf.tobytes()) for path, leaf in leaves.items()}


def digest(tree: Any) -> str:
    parts = hashlib.sha256()
    for path, (dtype, shape, data) in leaf_bytes(tree).items():
        parts.update(f"{path} {dtype} {shape} ".encode() + data)
    return parts.hexdigest()


def keep_from_ending(save: int) -> None:
    """Keep the save of a step from ending, which Orbax does by giving a complete directory its name."""

    def wait_before_rename(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and Path(os.fsdecode(arguments[1])).name == str(save):
            time.sleep(600)  # it is killed long before, unless whoever started it is gone

    sys.addaudithook(wait_before_rename)


def main(directory: Path, result: Path, unending_save: int | None = None) -> None:
    if unending_save is not None:
        keep_from_ending(unending_save)
    manager = ocp.CheckpointManager(directory, options=ocp.CheckpointManagerOptions(max_to_keep=3))
    state, start = init_state(), manager.latest_step()
    if start is not None:
        print("restoring", start, flush=True)
        state = manager.restore(start, args=ocp.args.StandardRestore(jax.eval_shape(lambda: state)))
    for step in range((start or 0) + 1, LAST_STEP + 1):
        if step == LAST_STEP:
            print("waiting", step, flush=True)
            if not sys.stdin.readline():
                return  # whoever reads along is gone
        state = train_step(state, *make_batch(step))
        print("step", step, digest(state), state["opt"].loss_scale, state["opt"].skipped_steps, flush=True)
        if step % SAVE_STEPS == 0 and step != LAST_STEP:
            print("saving", step, flush=True)
            manager.save(step, args=ocp.args.StandardSave(state))  # in the background, while the next steps run
    manager.wait_until_finished()
    manager.close()
    result.write_bytes(pickle.dumps(leaf_bytes(state)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
