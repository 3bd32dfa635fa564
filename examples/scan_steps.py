"""Train an epoch in one compiled call: `jax.lax.scan` over the steps, whose metrics come back stacked.

One image is broken, so that one step of each epoch is skipped:

    python examples/scan_steps.py
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import optax_ext

EPOCHS, IMAGES, BATCH_SIZE = 10, 1500, 50
Params = dict[str, jax.Array]
schedule = optax_ext.CosineDecay(4e-3, decay_steps=EPOCHS * IMAGES // BATCH_SIZE)
optimizer = optax_ext.dynamic_loss_scaling(optax.adamw(schedule), hysteresis=2)  # one skip leaves the scale as it is


class TrainState(NamedTuple):
    """What a step changes. All of it keeps its shapes and dtypes, as `scan` demands."""

    params: Params
    opt_state: optax.OptState


def make_state(random: np.random.Generator) -> TrainState:
    """Return the state before the first step, with parameters in float32."""
    params = {
        "hidden": jnp.asarray(random.standard_normal((64, 128), np.float32) / 64**0.5),
        "hidden_bias": jnp.zeros(128),
        "output": jnp.asarray(random.standard_normal((128, 10), np.float32) / 128**0.5),
        "output_bias": jnp.zeros(10),
    }
    return TrainState(params, optimizer.init(params))


@jax.jit
def predict(params: Params, images: Any) -> jax.Array:
    """Return the logits, in float32; all before them is in float16."""
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), (params, images))
    x = jax.nn.relu(x @ params["hidden"] + params["hidden_bias"])
    return (x @ params["output"] + params["output_bias"]).astype(jnp.float32)


def loss_fn(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(predict(params, images), labels).mean()


@functools.partial(jax.jit, donate_argnames="state")
def train_epoch(
    state: TrainState, batches: Any, images: jax.Array, labels: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Take a step with each batch, a row of indices in `batches`; return the metrics of all steps, stacked."""

    def step(state: TrainState, batch: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        loss, grads = optax_ext.value_and_grad(loss_fn, state.opt_state)(state.params, images[batch], labels[batch])
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        return TrainState(params, opt_state), {"loss": loss} | optax_ext.metrics(opt_state, schedule)

    return jax.lax.scan(step, state, batches)


def main() -> tuple[TrainState, dict[str, np.ndarray]]:
    """Train, and print the accuracy on images that were held out; return the metrics of all steps as well."""
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    random = np.random.default_rng(0)
    order = random.permutation(len(pixels))
    images, labels = np.asarray(pixels[order] / 16, np.float32), labels[order]
    images[0] = np.nan
    train_images, train_labels = jnp.asarray(images[:IMAGES]), jnp.asarray(labels[:IMAGES])  # on the device, once
    state, epochs = make_state(random), []
    for _ in range(EPOCHS):
        batches = random.permutation(IMAGES).reshape(-1, BATCH_SIZE)
        state, metrics = train_epoch(state, batches, train_images, train_labels)
        epochs.append(metrics)  # still on the device: nothing waits here for the epoch
    history: dict[str, Any] = jax.tree.map(lambda *parts: np.concatenate(parts), *epochs)
    logits = np.asarray(predict(state.params, images[IMAGES:]))
    accuracy = np.mean(logits.argmax(1) == labels[IMAGES:])
    skips, steps = history["skipped_steps"][-1], len(history["loss"])
    print(f"accuracy {accuracy:.3f} after {EPOCHS} calls; {skips} of {steps} steps skipped, one in each call")
    return state, history


if __name__ == "__main__":
    main()
