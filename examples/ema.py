"""Evaluate with averaged parameters and averaged batch statistics: Flax Linen with batch normalization, on digits.

python examples/ema.py
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from sklearn.datasets import load_digits

import optax_ext
from optax_ext import config


class Network(nn.Module):
    """Two dense layers that compute in float16, with parameters and batch statistics in float32."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Return the logits of ten digits."""
        x = nn.Dense(64, dtype=jnp.float16)(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=jnp.float16)(x))
        return nn.Dense(10, dtype=jnp.float16)(x).astype(jnp.float32)


network: Any = Network()
ema = config.ParamsEma(average_decay=0.99, trainable_weights_only=False)
optimizer = config.OptimizationConfig(config.SGD(0.5, momentum=0.9), config.DynamicLossScale(), ema).make()
stats_ema = ema.make()  # the optimizer averages the parameters, which it updates; this one the batch statistics


def init_state(key: jax.Array) -> dict[str, Any]:
    """Return parameters, batch statistics, and the states of the optimizer and of the average of the statistics."""
    variables = network.init(key, jnp.zeros((1, 64)), train=True)
    opt, stats_opt = optimizer.init(variables["params"]), stats_ema.init(variables["batch_stats"])
    return {**variables, "opt": opt, "stats_opt": stats_opt}


@functools.partial(jax.jit, donate_argnums=0)
def train_step(state: dict[str, Any], images: jax.Array, labels: jax.Array) -> tuple[dict[str, Any], jax.Array]:
    """Take one step; a skipped one leaves the batch statistics and their average alone too."""

    def loss_fn(params: Any) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": state["batch_stats"]}
        logits, changed = network.apply(variables, images, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), changed["batch_stats"]

    (loss, stats), grads = optax_ext.value_and_grad(loss_fn, state["opt"], has_aux=True)(state["params"])
    updates, opt = optimizer.update(grads, state["opt"], state["params"])
    _, stats_opt = stats_ema.update(jax.tree.map(jnp.zeros_like, stats), state["stats_opt"], stats)
    new, old = {"batch_stats": stats, "stats_opt": stats_opt}, {k: state[k] for k in ("batch_stats", "stats_opt")}
    kept = optax.tree.where(optax_ext.metrics(opt)["consecutive_skips"] == 0, new, old)
    return {"params": optax.apply_updates(state["params"], updates), "opt": opt, **kept}, loss


def averaged(state: dict[str, Any]) -> dict[str, Any]:
    """Return the variables to evaluate with."""
    return {"params": optax_ext.ema_params(state["opt"]), "batch_stats": optax_ext.ema_params(state["stats_opt"])}


if __name__ == "__main__":
    images, labels = map(jnp.asarray, load_digits(return_X_y=True))
    state = init_state(jax.random.key(0))
    for key in jax.random.split(jax.random.key(1), 200):
        batch = jax.random.choice(key, 1500, (64,), replace=False)
        state, _ = train_step(state, images[batch] / 16, labels[batch])
    last = {"params": state["params"], "batch_stats": state["batch_stats"]}
    for name, variables in {"last": last, "averaged": averaged(state)}.items():
        logits = network.apply(variables, images[1500:] / 16, train=False)
        print(f"accuracy with {name} variables: {(logits.argmax(1) == labels[1500:]).mean():.3f}")
