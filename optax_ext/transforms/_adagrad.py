"""Adagrad with the epsilon of TensorFlow."""

from __future__ import annotations  # so that `help` shows types as they are written

from typing import Any

import jax
import optax

from optax_ext._core.norms import root
from optax_ext._core.public import public
from optax_ext.transforms._float32 import in_float32
from optax_ext.transforms._moments import clip_to_finite, divide, square


@public
def scale_by_rss(initial_accumulator_value: float, eps: float, *, eps_in_sqrt: bool) -> optax.GradientTransformation:
    """Scale gradients by the root of the sum of their squares so far.

    ```text
    a = a + g**2
    u = g / (sqrt(a) + eps)             or, with eps_in_sqrt: g / sqrt(a + eps)
    ```

    Args:
      initial_accumulator_value: The first ``a``, at least 0.
      eps: At least 0.
      eps_in_sqrt: Whether epsilon is added inside the root.

    Returns:
      A transformation with the state of ``optax.scale_by_rss``, in at least float32.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.scale_by_rss(0.0, 1e-7, eps_in_sqrt=False)
      >>> grads = jnp.array([3.0, -4.0])
      >>> updates, state = tx.update(grads, tx.init(grads))
      >>> print(updates)
      [ 1. -1.]

    Differs from Optax:
      In ``optax.scale_by_rss`` epsilon is always inside the root, and the update is 0 where the sum is 0. Here strict
      promotion is supported, and the derivative is finite where a gradient is zero.
    """
    rss = optax.scale_by_rss(initial_accumulator_value)

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        total = jax.tree.map(lambda g, a: clip_to_finite(a + square(g).astype(a.dtype)), updates, state.sum_of_squares)

        def scale(update: jax.Array, total: jax.Array) -> jax.Array:
            return divide(update, root(total.real + eps), 0) if eps_in_sqrt else divide(update, root(total), eps)

        return jax.tree.map(scale, updates, total), optax.ScaleByRssState(sum_of_squares=total)

    return in_float32(optax.GradientTransformation(rss.init, update_fn))
