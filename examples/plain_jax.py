"""Train a small network on handwritten digits in plain JAX, in float16 with dynamic loss scaling."""

import functools

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import optax_ext

Params = dict[str, jax.Array]


def init_params(key: jax.Array) -> Params:
    """Return the parameters of a network with 128 hidden units, in float32."""
    hidden, output = jax.random.split(key)
    return {
        "hidden": jax.random.normal(hidden, (64, 128)) / 64**0.5,
        "hidden_bias": jnp.zeros(128),
        "output": jax.random.normal(output, (128, 10)) / 128**0.5,
        "output_bias": jnp.zeros(10),
    }


def loss_fn(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy, in float32; all before it is in float16."""
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), (params, images))
    x = jax.nn.relu(x @ params["hidden"] + params["hidden_bias"])
    logits = x @ params["output"] + params["output_bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels).mean()


no_biases = optax_ext.path_mask(exclude=["bias"])
optimizer = optax_ext.lars(4.0, weight_decay=1e-4, weight_decay_mask=no_biases, trust_ratio_mask=no_biases)
optimizer = optax_ext.dynamic_loss_scaling(optimizer, growth_steps=20)


@functools.partial(jax.jit, donate_argnames=("params", "opt_state"))
def train_step(params: Params, opt_state: optax.OptState, images: jax.Array, labels: jax.Array):
    """Take one step, or skip it if a gradient is not finite; return the loss with what changed."""
    loss, grads = optax_ext.value_and_grad(loss_fn, opt_state)(params, images, labels)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


if __name__ == "__main__":
    pixels, labels = map(jnp.asarray, load_digits(return_X_y=True))
    params = init_params(jax.random.key(0))
    opt_state = optimizer.init(params)
    for step in range(1, 101):
        params, opt_state, loss = train_step(params, opt_state, pixels / 16, labels)
        if step % 20 == 0:
            scale = optax.tree.get(opt_state, "loss_scale")
            print(f"step {step:3}  loss {loss:.4f}  loss scale {scale:.0f}")
