"""Train in float16 with Flax Linen, its `TrainState` and batch normalization; one batch is bad, and is skipped.

The batch statistics of a skipped step are not kept:

    python examples/flax_linen.py
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training import train_state
from sklearn.datasets import load_digits

import optax_ext

STEPS, BATCH_SIZE, BAD_STEP = 100, 128, 50


class Network(nn.Module):
    """Two dense layers that compute in float16, with parameters and batch statistics in float32."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Return the logits of ten digits, in float32."""
        x = nn.Dense(128, dtype=jnp.float16)(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=jnp.float16)(x))
        return nn.Dense(10, dtype=jnp.float16)(x).astype(jnp.float32)


class TrainState(train_state.TrainState):
    """The state of a training: of Flax's fields, `step` counts skipped steps too."""

    batch_stats: Any


def make_state(key: jax.Array) -> TrainState:
    """Return the state before the first step."""
    network: Any = Network()
    variables = network.init(key, jnp.zeros((1, 64)), train=True)
    tx = optax_ext.dynamic_loss_scaling(optax.adamw(3e-3), growth_steps=20)  # 2000 in a long run
    return TrainState.create(apply_fn=network.apply, tx=tx, **variables)


@functools.partial(jax.jit, donate_argnames="state")
def train_step(state: TrainState, images: Any, labels: Any) -> tuple[TrainState, jax.Array]:
    """Take one step, or skip it if a gradient is non-finite."""

    def loss_fn(params: Any) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, changed = state.apply_fn(variables, images, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), changed["batch_stats"]

    (loss, batch_stats), grads = optax_ext.value_and_grad(loss_fn, state.opt_state, has_aux=True)(state.params)
    new = state.apply_gradients(grads=grads)  # unscales the gradients, checks them, and adapts the scale
    applied = optax_ext.metrics(new.opt_state)["consecutive_skips"] == 0
    return new.replace(batch_stats=optax.tree.where(applied, batch_stats, state.batch_stats)), loss


def main() -> TrainState:
    """Train, and print the accuracy on images that were held out."""
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    random = np.random.default_rng(0)
    order = random.permutation(len(pixels))
    images, labels = np.asarray(pixels[order] / 16, np.float32), labels[order]
    state = jax.jit(make_state)(jax.random.key(0))
    for step, batch in enumerate(random.integers(1500, size=(STEPS, BATCH_SIZE))):
        factor = np.float32(np.nan if step == BAD_STEP else 1)
        state, _ = train_step(state, images[batch] * factor, labels[batch])
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = jax.jit(state.apply_fn, static_argnames="train")(variables, images[1500:], train=False)
    accuracy = np.mean(np.asarray(logits).argmax(1) == labels[1500:])
    last = optax_ext.metrics(state.opt_state)
    print(f"accuracy {accuracy:.3f}, skipped steps {last['skipped_steps']}, loss scale {last['loss_scale']:.0f}")
    return state


if __name__ == "__main__":
    main()
