"""Train in float16 with Equinox, its filtered transforms and batch normalization; one batch is bad, and is skipped.

The batch statistics of a skipped step are not kept:

    python examples/equinox_mlp.py
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import optax_ext

STEPS, BATCH_SIZE, BAD_STEP = 100, 128, 50
optimizer = optax_ext.dynamic_loss_scaling(optax.adamw(3e-3), growth_steps=20)  # 2000 in a long run


def make_network(key: jax.Array) -> eqx.nn.Sequential:
    """Return two dense layers with batch normalization between them, with parameters in float32."""
    first, second = jax.random.split(key)
    norm = eqx.nn.BatchNorm(128, axis_name="batch", mode="batch", momentum=0.9)
    layers = [eqx.nn.Linear(64, 128, key=first), norm, eqx.nn.Lambda(jax.nn.relu), eqx.nn.Linear(128, 10, key=second)]
    return eqx.nn.Sequential(layers)


@eqx.filter_jit
def predict(network: eqx.nn.Sequential, stats: eqx.nn.State, images: Any) -> tuple[jax.Array, eqx.nn.State]:
    """Return the logits, in float32, and new batch statistics; all before the logits is in float16."""
    floats, rest = eqx.partition((network, images), eqx.is_inexact_array)
    network, images = eqx.combine(jax.tree.map(lambda leaf: leaf.astype(jnp.float16), floats), rest)
    over_batch = jax.vmap(network, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    logits, stats = over_batch(images, stats)
    return logits.astype(jnp.float32), stats


def loss_fn(network: Any, stats: eqx.nn.State, images: Any, labels: Any) -> tuple[jax.Array, eqx.nn.State]:
    """Return the mean cross-entropy and new batch statistics."""
    logits, stats = predict(network, stats, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), stats


@eqx.filter_jit(donate="all-except-first")  # all but the batch
def train_step(batch: tuple[Any, Any], network: Any, stats: eqx.nn.State, opt_state: optax.OptState) -> Any:
    """Take one step, or skip it if a gradient is non-finite; return what changed, and the loss."""
    value_and_grad = optax_ext.value_and_grad(loss_fn, opt_state, has_aux=True, transform=eqx.filter_value_and_grad)
    (loss, new_stats), grads = value_and_grad(network, stats, *batch)
    updates, opt_state = optimizer.update(grads, opt_state, eqx.filter(network, eqx.is_inexact_array))
    applied = optax_ext.metrics(opt_state)["consecutive_skips"] == 0
    return eqx.apply_updates(network, updates), optax.tree.where(applied, new_stats, stats), opt_state, loss


def main() -> tuple[eqx.nn.Sequential, eqx.nn.State, optax.OptState]:
    """Train, and print the accuracy on images that were held out."""
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    random = np.random.default_rng(0)
    order = random.permutation(len(pixels))
    images, labels = np.asarray(pixels[order] / 16, np.float32), labels[order]
    network, stats = eqx.nn.make_with_state(make_network)(jax.random.key(0))
    opt_state = optimizer.init(eqx.filter(network, eqx.is_inexact_array))
    for step, batch in enumerate(random.integers(1500, size=(STEPS, BATCH_SIZE))):
        factor = np.float32(np.nan if step == BAD_STEP else 1)
        network, stats, opt_state, _ = train_step((images[batch] * factor, labels[batch]), network, stats, opt_state)
    logits, _ = predict(eqx.nn.inference_mode(network), stats, jnp.asarray(images[1500:]))
    accuracy, last = np.mean(np.asarray(logits).argmax(1) == labels[1500:]), optax_ext.metrics(opt_state)
    print(f"accuracy {accuracy:.3f}, skipped steps {last['skipped_steps']}, loss scale {last['loss_scale']:.0f}")
    return network, stats, opt_state


if __name__ == "__main__":
    main()
