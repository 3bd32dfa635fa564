"""Train with Orbax checkpoints: stopped with SIGTERM and run again, it ends bit-identical to a run that never stopped.

    timeout 6 python examples/preemption.py  # SIGTERM after 6 seconds
    python examples/preemption.py

A checkpoint is saved every `SAVE_STEPS` steps, and when SIGTERM says that the machine is about to be taken away. It
holds the parameters, the optimizer's state with momentum, loss scale and skips, and the random state of the data.
"""

import functools
import socket
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from sklearn.datasets import load_digits

import optax_ext

STEPS, SAVE_STEPS, BATCH_SIZE = 4000, 500, 128
BAD_STEPS = 750  # every so many steps, the batch is NaN
DIRECTORY = Path("outputs/preemption").absolute()

no_biases = optax_ext.path_mask(exclude=["bias"])
schedule = optax_ext.LinearWarmup(optax_ext.CosineDecay(8.0, decay_steps=STEPS - 200, offset=200), warmup_steps=200)
optimizer = optax_ext.lars(schedule, weight_decay=1e-4, weight_decay_mask=no_biases, trust_ratio_mask=no_biases)
optimizer = optax_ext.dynamic_loss_scaling(optimizer, growth_steps=400)  # 2000 is usual; 400 lets the scale grow


class State(NamedTuple):
    """All that a step changes."""

    params: dict[str, jax.Array]
    opt_state: Any  # an optax_ext.LossScaleState


def init_state(key: jax.Array) -> State:
    """Return a network with 128 hidden units, in float32, and the state of its optimizer."""
    hidden, head = jax.random.split(key)
    params = {
        "hidden": jax.random.normal(hidden, (64, 128)) / 64**0.5,
        "hidden_bias": jnp.zeros(128),
        "head": jax.random.normal(head, (128, 10)) / 128**0.5,
        "head_bias": jnp.zeros(10),
    }
    return State(params, optimizer.init(params))


def loss_fn(params: dict[str, jax.Array], images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy, in float32; all before it is in float16."""
    params, images = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), (params, images))
    hidden = jax.nn.relu(images @ params["hidden"] + params["hidden_bias"])
    logits = hidden @ params["head"] + params["head_bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels).mean()


@functools.partial(jax.jit, donate_argnums=0)
def train_step(state: State, images: jax.Array, labels: jax.Array) -> State:
    """Take one step, or skip it if a gradient is non-finite."""
    _, grads = optax_ext.value_and_grad(loss_fn, state.opt_state)(state.params, images, labels)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params: Any = optax.apply_updates(state.params, updates)
    return State(params, opt_state)


def train(directory: Path) -> State:
    """Train from the last checkpoint in a directory, or from scratch, until the end or until SIGTERM."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32) / 16  # the brightest pixel is 16
    state, random, last_step = init_state(jax.random.key(0)), np.random.default_rng(0), 0
    options = ocp.CheckpointManagerOptions(save_interval_steps=SAVE_STEPS, max_to_keep=2)
    with ocp.CheckpointManager(directory, options=options) as manager:
        latest = manager.latest_step()
        if latest is not None:
            args = ocp.args.Composite(state=ocp.args.StandardRestore(state), data=ocp.args.JsonRestore())
            restored = manager.restore(latest, args=args)
            state, random.bit_generator.state, last_step = restored.state, restored.data, latest
            print(f"resumed after step {last_step} with loss scale {state.opt_state.loss_scale:.0f}", flush=True)

        for step in range(last_step + 1, STEPS + 1):
            batch = random.integers(len(images), size=BATCH_SIZE)
            inputs = images[batch] * (np.nan if step % BAD_STEPS == 0 else 1)
            state = train_step(state, inputs, labels[batch])
            data = ocp.args.JsonSave(random.bit_generator.state)
            args = ocp.args.Composite(state=ocp.args.StandardSave(state), data=data)
            # This saves if it is time, after SIGTERM or at the end, and writes in the background.
            manager.save(step, args=args, force=step == STEPS)
            if manager.reached_preemption(step):
                manager.wait_until_finished()
                print(f"preempted after step {step}, which is saved: run this again to go on", flush=True)
                return state
    skipped, scale = state.opt_state.skipped_steps, state.opt_state.loss_scale
    print(f"finished after step {STEPS}: {skipped} steps skipped, loss scale {scale:.0f}", flush=True)
    return state


def main() -> None:
    """Train, and notice SIGTERM."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # a free port
        port = listener.getsockname()[1]
    # JAX's coordination service receives SIGTERM, and lets all hosts stop after the same step. Orbax asks it, even on
    # one host. On a cluster, `initialize()` finds its arguments by itself.
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=1, process_id=0)
    train(DIRECTORY)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main()
