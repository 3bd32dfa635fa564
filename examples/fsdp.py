"""Split parameters and optimizer state over all devices (FSDP, ZeRO), so that each keeps a part of them.

    python examples/fsdp.py

Under `jit`, an array is one array wherever its parts lie. The norms of LARS and the finite check are therefore those of
whole arrays, and every device takes or skips the same step. The optimizer is the same as for one device.
"""

from collections.abc import Callable, Sequence
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
LARGE = 2**12  # numbers; a smaller array is not worth the messages, and every device keeps a copy

no_biases = optax_ext.path_mask(exclude=["bias"])
schedule = optax_ext.LinearWarmup(optax_ext.CosineDecay(4.0, decay_steps=STEPS - 10, offset=10), warmup_steps=10)
optimizer = optax_ext.lars(schedule, weight_decay=1e-4, weight_decay_mask=no_biases, trust_ratio_mask=no_biases)
optimizer = optax_ext.dynamic_loss_scaling(optimizer)


class State(NamedTuple):
    """All that a step changes."""

    params: dict[str, jax.Array]
    opt_state: Any  # an optax_ext.LossScaleState


def init_state(key: jax.Array) -> State:
    """Return a network with 1024 hidden units, in float32, and the state of its optimizer."""
    hidden, head = jax.random.split(key)
    params = {
        "hidden": jax.random.normal(hidden, (64, 1024)) / 64**0.5,
        "hidden_bias": jnp.zeros(1024),
        "head": jax.random.normal(head, (1024, 10)) / 1024**0.5,
        "head_bias": jnp.zeros(10),
    }
    return State(params, optimizer.init(params))


def sharding_of(leaf: Any, mesh: Mesh) -> NamedSharding:
    """Split a large array along its longest axis that the devices divide; copy every other one to all devices."""
    divisible = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0]
    if leaf.size < LARGE or not divisible:
        return NamedSharding(mesh, P())
    longest = max(divisible, key=lambda axis: leaf.shape[axis])
    return NamedSharding(mesh, P(*[None] * longest, "data"))


def make_train_step(shardings: State, mesh: Mesh) -> Callable[..., tuple[State, jax.Array]]:
    """Return a compiled step that leaves every array where it lies."""

    def gather(leaf: jax.Array) -> jax.Array:
        # First to float16, so that half as many bytes are sent; the gradients are scattered on the way back.
        return jax.lax.with_sharding_constraint(leaf.astype(COMPUTE_DTYPE), NamedSharding(mesh, P()))

    def loss_fn(params: dict[str, jax.Array], images: jax.Array, labels: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(images.astype(COMPUTE_DTYPE) @ gather(params["hidden"]) + gather(params["hidden_bias"]))
        logits = hidden @ gather(params["head"]) + gather(params["head_bias"])
        return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels).mean()

    def train_step(state: State, images: jax.Array, labels: jax.Array) -> tuple[State, jax.Array]:
        loss, grads = optax_ext.value_and_grad(loss_fn, state.opt_state)(state.params, images, labels)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        return State(params, opt_state), loss

    return jax.jit(train_step, donate_argnums=0, out_shardings=(shardings, NamedSharding(mesh, P())))


def train(devices: Sequence[Any]) -> tuple[State, list[float]]:
    """Train on the devices; return the last state and the loss of each step."""
    mesh = Mesh(np.array(devices), ("data",))
    shapes = jax.eval_shape(init_state, jax.random.key(0))  # of the momentum too, which is split as its parameter is
    shardings = jax.tree.map(lambda leaf: sharding_of(leaf, mesh), shapes)
    state = jax.jit(init_state, out_shardings=shardings)(jax.random.key(0))  # no device ever holds all of it
    train_step = make_train_step(shardings, mesh)

    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32) / 16  # the brightest pixel is 16
    random = np.random.default_rng(0)
    losses: list[jax.Array] = []
    for step in range(STEPS):
        batch = random.integers(len(images), size=BATCH_SIZE)
        inputs = images[batch]
        if step == NAN_STEP:
            inputs[-1, 0] = np.nan  # the last example, which is on the last device alone
        split = NamedSharding(mesh, P("data"))
        state, loss = train_step(state, *jax.device_put((inputs, labels[batch]), split))
        losses.append(loss)
    return state, [float(loss) for loss in losses]


def main() -> None:
    """Train on all devices, and say how much of each array one device holds."""
    state, losses = train(jax.devices())
    print(f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last, {losses[NAN_STEP]} in step {NAN_STEP}")
    print(f"{int(state.opt_state.skipped_steps)} step skipped")
    for name, tree in {"parameter": state.params, "momentum": optax.tree.get(state.opt_state, "trace")}.items():
        for path, leaf in tree.items():
            print(f"{name} {path}: {leaf.shape}, of which each device holds {leaf.addressable_shards[0].data.shape}")


if __name__ == "__main__":
    # Eight devices on a computer that has none but its CPU. It has no effect on GPUs and TPUs, which are used if there.
    jax.config.update("jax_num_cpu_devices", 8)
    main()
