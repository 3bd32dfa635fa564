"""The scaling of Lion, in at least float32."""

from __future__ import annotations  # so that `help` shows types as they are written

import optax

from optax_ext._core.public import public
from optax_ext.transforms._float32 import in_float32


@public
def scale_by_lion(b1: float, b2: float) -> optax.GradientTransformation:
    """Replace gradients by the sign of a mean of themselves and of their momentum, as ``optax.scale_by_lion`` does.

    ```text
    u = sign(b1 * m + (1 - b1) * g)
    m = b2 * m + (1 - b2) * g
    ```

    The sign of a complex number ``x`` is ``x / |x|``.

    Args:
      b1: The share of the momentum in the update, in [0, 1].
      b2: The decay of the momentum, in [0, 1).

    Returns:
      A transformation with the state of ``optax.scale_by_lion``, in at least float32.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.scale_by_lion(0.9, 0.99)
      >>> grads = jnp.array([3.0, -0.1, 0.0])
      >>> updates, state = tx.update(grads, tx.init(grads))
      >>> print(updates)
      [ 1. -1.  0.]

    References:
      Chen et al., [arXiv:2302.06675](https://arxiv.org/abs/2302.06675), algorithm 2.

    Differs from Optax:
      The momentum is in at least float32, and a parameter whose gradient is None keeps it.
    """
    return in_float32(optax.scale_by_lion(b1, b2))
