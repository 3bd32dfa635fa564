"""The scaling of Adamax, with the epsilon of TensorFlow."""

from __future__ import annotations  # so that `help` shows types as they are written

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.public import public
from optax_ext.transforms._float32 import in_float32
from optax_ext.transforms._moments import average, divide


@public
def scale_by_adamax(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Scale the running mean of gradients by the largest of their magnitudes so far, which decays.

    ```text
    m = b1 * m + (1 - b1) * g
    n = max(b2 * n, |g|)
    u = m / (1 - b1**t) / (n + eps)
    ```

    Args:
      b1: The decay of the mean, in [0, 1).
      b2: The decay of the largest magnitude, in [0, 1).
      eps: At least 0.

    Returns:
      A transformation with the state of ``optax.scale_by_adamax``, in at least float32.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.scale_by_adamax(0.5, 0.75, 1.0)
      >>> grads = jnp.array([3.0, -1.0])
      >>> updates, state = tx.update(grads, tx.init(grads))
      >>> print(updates)
      [ 0.75 -0.5 ]

    References:
      Kingma and Ba, [arXiv:1412.6980](https://arxiv.org/abs/1412.6980), algorithm 2.

    Differs from Optax:
      ``optax.scale_by_adamax`` adds epsilon to ``|g|`` before it takes the larger of the two. Here strict promotion is
      supported.
    """

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        count = jnp.asarray(optax.safe_increment(state.count))
        correction = 1 - b1 ** count.astype(jnp.result_type(float))

        def largest(update: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.maximum(jnp.asarray(b2, old.real.dtype) * old.real, jnp.abs(update)).astype(old.dtype)

        mu = jax.tree.map(lambda g, m: average(m, g, b1), updates, state.mu)
        nu = jax.tree.map(largest, updates, state.nu)
        updates = jax.tree.map(lambda m, n: divide(m / correction.astype(m.dtype), n.real, eps), mu, nu)
        return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return in_float32(optax.GradientTransformation(optax.scale_by_adamax(b1, b2, eps).init, update_fn))
