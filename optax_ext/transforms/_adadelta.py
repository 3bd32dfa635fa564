"""The scaling of Adadelta."""

from __future__ import annotations  # so that `help` shows types as they are written

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.norms import root
from optax_ext._core.public import public
from optax_ext.transforms._float32 import in_float32
from optax_ext.transforms._moments import average, divide, square


@public
def scale_by_adadelta(rho: float, eps: float) -> optax.GradientTransformation:
    """Scale gradients by the root of the mean square of earlier updates over that of gradients.

    ```text
    a = rho * a + (1 - rho) * g**2
    u = sqrt(d + eps) / sqrt(a + eps) * g
    d = rho * d + (1 - rho) * u**2
    ```

    Args:
      rho: The decay of the running means, in [0, 1).
      eps: Positive.

    Returns:
      A transformation with the state of ``optax.scale_by_adadelta``, in at least float32.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.scale_by_adadelta(0.75, 1.0)
      >>> grads = jnp.array([2.0, 0.0])
      >>> updates, state = tx.update(grads, tx.init(grads))
      >>> print(updates)
      [1.4142135 0.       ]

    References:
      Zeiler, [arXiv:1212.5701](https://arxiv.org/abs/1212.5701), algorithm 1.

    Differs from Optax:
      Means never become infinite, those of complex numbers are of magnitudes, and strict promotion is supported.
    """

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params

        def rms(mean: jax.Array) -> jax.Array:
            return root(mean.real + jnp.asarray(eps, mean.real.dtype))

        def scale(update: jax.Array, of_grads: jax.Array, of_updates: jax.Array) -> jax.Array:
            return divide(rms(of_updates), rms(of_grads), 0).astype(update.dtype) * update  # which does not overflow

        e_g = jax.tree.map(lambda g, mean: average(mean, square(g), rho), updates, state.e_g)
        updates = jax.tree.map(scale, updates, e_g, state.e_x)
        e_x = jax.tree.map(lambda u, mean: average(mean, square(u), rho), updates, state.e_x)
        return updates, optax.ScaleByAdaDeltaState(e_g=e_g, e_x=e_x)

    return in_float32(optax.GradientTransformation(optax.scale_by_adadelta(rho, eps).init, update_fn))
