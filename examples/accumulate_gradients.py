"""Accumulate the gradients of micro-batches in float16, in the optimizer and by hand: the steps of a large batch.

With a NaN in a micro-batch, the optimizer leaves it out and takes the next one in its place; by hand, the whole step is
skipped:

    python examples/accumulate_gradients.py
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import optax_ext
from optax_ext import transforms

STEPS, BATCH_SIZE, PARTS = 20, 256, 4
Params = dict[str, jax.Array]
inner = optax.sgd(0.2, momentum=0.9)
optimizer = optax_ext.dynamic_loss_scaling(inner)
# Loss scaling stands outside, so that each micro-batch is unscaled and checked before it is added to the others. In a
# recipe, `accumulate_steps: 4` makes the same.
accumulating = optax_ext.dynamic_loss_scaling(transforms.accumulate_gradients(inner, PARTS))


def init_params() -> Params:
    """Return the parameters of a network with 64 hidden units, in float32."""
    random = np.random.default_rng(0)
    shapes = {"hidden": (64, 64), "output": (64, 10)}
    return {name: jnp.asarray(random.standard_normal(shape, np.float32) / 8) for name, shape in shapes.items()}


def loss_fn(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy, in float32; all before it is in float16."""
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), (params, images))
    logits = jax.nn.relu(x @ params["hidden"]) @ params["output"]
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels).mean()


@functools.partial(jax.jit, static_argnames="tx")
def train_step(tx: optax.GradientTransformation, params: Params, opt_state: Any, images: Any, labels: Any) -> Any:
    """Take one step; with `accumulating`, the parameters move in every fourth call."""
    _, grads = optax_ext.value_and_grad(loss_fn, opt_state)(params, images, labels)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


@jax.jit
def train_step_by_hand(params: Params, opt_state: Any, images: Any, labels: Any) -> Any:
    """Take one step with the mean gradients of micro-batches, which the first axis counts."""
    value_and_grad = optax_ext.value_and_grad(loss_fn, opt_state)  # one scale for all micro-batches

    def add(total: Params, part: Any) -> tuple[Params, None]:
        _, grads = value_and_grad(params, *part)
        return jax.tree.map(lambda t, g: t + g / PARTS, total, grads), None  # scaled, in the float32 of the parameters

    grads, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), (images, labels))
    updates, opt_state = optimizer.update(grads, opt_state, params)  # unscales and checks them once
    return optax.apply_updates(params, updates), opt_state


def train(how: str, images: np.ndarray, labels: np.ndarray) -> tuple[Params, optax.OptState]:
    """Train with batches of shape [STEPS, BATCH_SIZE, ...]."""
    tx = accumulating if how == "optimizer" else optimizer
    params = init_params()
    opt_state = tx.init(params)
    for batch in zip(images, labels, strict=True):
        parts = tuple(array.reshape(PARTS, -1, *array.shape[1:]) for array in batch)
        if how == "large":
            params, opt_state = train_step(tx, params, opt_state, *batch)
        elif how == "hand":
            params, opt_state = train_step_by_hand(params, opt_state, *parts)
        else:
            for part in zip(*parts, strict=True):
                params, opt_state = train_step(tx, params, opt_state, *part)
    return params, opt_state


def main() -> None:
    """Compare both ways with the large batch, and then put a NaN into a micro-batch."""
    pixels, labels = load_digits(return_X_y=True)
    batches = np.random.default_rng(0).integers(len(pixels), size=(STEPS, BATCH_SIZE))
    images, labels = (pixels[batches] / 16).astype(np.float32), labels[batches]
    broken = images.copy()
    broken[10, 70] = np.nan  # in the second micro-batch of a step
    start, large = init_params(), train("large", images, labels)[0]
    for how, unit in {"optimizer": "micro-batches", "hand": "steps"}.items():
        params, _ = train(how, images, labels)
        difference = optax.tree.norm(optax.tree.sub(params, large)) / optax.tree.norm(optax.tree.sub(large, start))
        skips = optax_ext.metrics(train(how, broken, labels)[1])["skipped_steps"]
        print(f"{how}: {difference:.2%} off the large batch; with a NaN, skipped {unit}: {skips}")


if __name__ == "__main__":
    main()
