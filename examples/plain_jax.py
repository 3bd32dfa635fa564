"""Train in float16 in plain JAX, with LARS inside dynamic loss scaling; one batch is bad, and is skipped.

Loss scaling is around the optimizer, and `optax_ext.value_and_grad` is in place of `jax.value_and_grad`:

    python examples/plain_jax.py
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import optax_ext

STEPS, BATCH_SIZE, BAD_STEP = 200, 128, 100
Params = dict[str, jax.Array]
no_biases = optax_ext.path_mask(exclude=["bias"])
schedule = optax_ext.LinearWarmup(optax_ext.CosineDecay(4.0, decay_steps=STEPS - 20, offset=20), warmup_steps=20)
optimizer = optax_ext.lars(schedule, weight_decay=1e-4, weight_decay_mask=no_biases, trust_ratio_mask=no_biases)
optimizer = optax_ext.dynamic_loss_scaling(optimizer, growth_steps=20)  # 2000 in a long run


def init_params(key: jax.Array) -> Params:
    """Return the parameters of a network with 128 hidden units, in float32."""
    hidden, output = jax.random.split(key)
    return {
        "hidden": jax.random.normal(hidden, (64, 128)) / 64**0.5,
        "hidden_bias": jnp.zeros(128),
        "output": jax.random.normal(output, (128, 10)) / 128**0.5,
        "output_bias": jnp.zeros(10),
    }


@jax.jit
def predict(params: Params, images: Any) -> jax.Array:
    """Return the logits, in float32; all before them is in float16."""
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), (params, images))
    x = jax.nn.relu(x @ params["hidden"] + params["hidden_bias"])
    return (x @ params["output"] + params["output_bias"]).astype(jnp.float32)


def loss_fn(params: Params, images: Any, labels: Any) -> jax.Array:
    """Return the mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(predict(params, images), labels).mean()


@functools.partial(jax.jit, donate_argnames=("params", "opt_state"))
def train_step(params: Params, opt_state: optax.OptState, images: Any, labels: Any) -> Any:
    """Take one step, or skip it if a gradient is non-finite; return the loss with what changed."""
    loss, grads = optax_ext.value_and_grad(loss_fn, opt_state)(params, images, labels)
    updates, opt_state = optimizer.update(grads, opt_state, params)  # unscales and checks the gradients
    return optax.apply_updates(params, updates), opt_state, loss


def main() -> tuple[Params, optax.OptState]:
    """Train, and print the accuracy on images that were held out."""
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    random = np.random.default_rng(0)
    order = random.permutation(len(pixels))
    images, labels = np.asarray(pixels[order] / 16, np.float32), labels[order]
    params = jax.jit(init_params)(jax.random.key(0))
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
