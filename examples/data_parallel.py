"""Train on all devices at once: each has a copy of the parameters and an equal part of every batch.

    python examples/data_parallel.py

Under `jit`, an array is one array wherever its parts lie. The finite check therefore sees the gradients of the whole
batch, and every device takes or skips the same step. The step and the optimizer are the same as for one device.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

import optax_ext

STEPS, BATCH_SIZE = 60, 256
NAN_STEP = 40  # the step in which one device gets a NaN
COMPUTE_DTYPE = jnp.float16

optimizer = optax_ext.dynamic_loss_scaling(optax.adamw(3e-3))


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
    """Return the mean cross-entropy of the whole batch."""
    params, images = jax.tree.map(lambda leaf: leaf.astype(COMPUTE_DTYPE), (params, images))
    hidden = jax.nn.relu(images @ params["hidden"] + params["hidden_bias"])
    logits = hidden @ params["head"] + params["head_bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels).mean()


@functools.partial(jax.jit, donate_argnums=0)
def train_step(state: State, images: jax.Array, labels: jax.Array) -> tuple[State, jax.Array]:
    """Take one step, or skip it if a gradient is non-finite: the same code as for one device."""
    loss, grads = optax_ext.value_and_grad(loss_fn, state.opt_state)(state.params, images, labels)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params: Any = optax.apply_updates(state.params, updates)
    return State(params, opt_state), loss


def train(devices: Sequence[Any]) -> tuple[State, list[float]]:
    """Train on the devices; return the last state and the loss of each step."""
    mesh = Mesh(np.array(devices), ("data",))
    replicated, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    state = jax.jit(init_state, out_shardings=replicated)(jax.random.key(0))

    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32) / 16  # the brightest pixel is 16
    random = np.random.default_rng(0)
    losses: list[jax.Array] = []
    for step in range(STEPS):
        batch = random.integers(len(images), size=BATCH_SIZE)
        inputs = images[batch]
        if step == NAN_STEP:
            inputs[-1, 0] = np.nan  # the last example, which is on the last device alone
        state, loss = train_step(state, *jax.device_put((inputs, labels[batch]), split))
        losses.append(loss)
    return state, [float(loss) for loss in losses]


def main() -> None:
    """Train on all devices, and say what each of them counted."""
    state, losses = train(jax.devices())
    skips = [int(shard.data) for shard in state.opt_state.skipped_steps.addressable_shards]
    print(f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last, {losses[NAN_STEP]} in step {NAN_STEP}")
    print(f"skipped steps, as each of {len(skips)} devices counted them: {skips}")


if __name__ == "__main__":
    # Eight devices on a computer that has none but its CPU. It has no effect on GPUs and TPUs, which are used if there.
    jax.config.update("jax_num_cpu_devices", 8)
    main()
