"""Train in float16 with Haiku; one batch is bad, and is skipped.

Parameters are in float32, and copies of them in float16 compute:

    python examples/haiku_mlp.py
"""

import functools
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import optax_ext

STEPS, BATCH_SIZE, BAD_STEP = 100, 128, 50
network = hk.without_apply_rng(hk.transform(lambda images: hk.nets.MLP([128, 128, 10])(images)))
no_biases = optax_ext.path_mask(exclude=["/b$"])  # Haiku calls them b, as in mlp/~/linear_0/b
optimizer = optax.adamw(3e-3, weight_decay=1e-2, mask=no_biases)
optimizer = optax_ext.dynamic_loss_scaling(optimizer, growth_steps=20)  # 2000 in a long run


@jax.jit
def predict(params: hk.Params, images: Any) -> jax.Array:
    """Return the logits, in float32; all before them is in float16."""
    params, images = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), (params, images))
    return network.apply(params, images).astype(jnp.float32)


def loss_fn(params: hk.Params, images: Any, labels: Any) -> jax.Array:
    """Return the mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(predict(params, images), labels).mean()


@functools.partial(jax.jit, donate_argnames=("params", "opt_state"))
def train_step(params: hk.Params, opt_state: optax.OptState, images: Any, labels: Any) -> Any:
    """Take one step, or skip it if a gradient is non-finite; return the loss with what changed."""
    loss, grads = optax_ext.value_and_grad(loss_fn, opt_state)(params, images, labels)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


def main() -> tuple[hk.Params, optax.OptState]:
    """Train, and print the accuracy on images that were held out."""
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    random = np.random.default_rng(0)
    order = random.permutation(len(pixels))
    images, labels = np.asarray(pixels[order] / 16, np.float32), labels[order]
    params = jax.jit(network.init)(jax.random.key(0), images[:1])
    opt_state = optimizer.init(params)
    for step, batch in enumerate(random.integers(1500, size=(STEPS, BATCH_SIZE))):
        factor = np.float32(np.nan if step == BAD_STEP else 1)
        params, opt_state, _ = train_step(params, opt_state, images[batch] * factor, labels[batch])
    logits = np.asarray(predict(params, images[1500:]))
    accuracy = np.mean(logits.argmax(1) == labels[1500:])
    last = optax_ext.metrics(opt_state)
    print(f"accuracy {accuracy:.3f}, skipped steps {last['skipped_steps']}, loss scale {last['loss_scale']:.0f}")
    return params, opt_state


if __name__ == "__main__":
    main()
