"""Small convolutional networks for signals of 40 numbers, in plain JAX."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

Params = dict[str, jax.Array]


def init_params(key: jax.Array, channels: Sequence[int], strides: Sequence[int]) -> Params:
    """Return a convolution of width 3 for each number of channels, and a classifier."""
    params, before, length = {}, 1, 40
    *keys, last = jax.random.split(key, len(channels) + 1)
    for index, (key, after, stride) in enumerate(zip(keys, channels, strides, strict=True)):
        kernel = jax.random.normal(key, (3 * before, after)) * (2 / (3 * before)) ** 0.5
        params |= {f"conv{index}/kernel": kernel, f"conv{index}/bias": jnp.zeros(after)}
        before, length = after, length // stride
    head = jax.random.normal(last, (length * before, 10)) / (length * before) ** 0.5
    return params | {"head/kernel": head, "head/bias": jnp.zeros(10)}


def apply(
    params: Params, signals: jax.Array, strides: Sequence[int], probes: Sequence[jax.Array] | None = None
) -> jax.Array:
    """Return the logits, in float32; all before them is in the dtype of the parameters.

    A convolution is a product with windows, which stays fast when weights are vmapped. Probes are added to what each
    layer returns before its nonlinearity: the gradient of a probe of zeros is that of the layer's output.
    """
    x = signals.astype(params["head/kernel"].dtype)[..., None]
    for index, stride in enumerate(strides):
        length = x.shape[1] // stride
        x = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        windows = jnp.concatenate([x[:, shift : shift + stride * length : stride] for shift in range(3)], axis=-1)
        x = windows @ params[f"conv{index}/kernel"] + params[f"conv{index}/bias"]
        x = jax.nn.relu(x if probes is None else x + probes[index])
    logits = x.reshape(len(x), -1) @ params["head/kernel"] + params["head/bias"]
    return (logits if probes is None else logits + probes[-1]).astype(jnp.float32)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> Any:
    """Return the mean over a batch."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
