"""The learning rate, which leaves the dtype of updates alone."""

from __future__ import annotations  # so that `help` shows types as they are written

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_ext._core.public import public


@public
def scale_by_learning_rate(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Multiply updates by minus the learning rate, and keep their dtype.

    Args:
      learning_rate: A number, or a schedule of the step.

    Returns:
      A transformation with the state of ``optax.scale_by_learning_rate``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.scale_by_learning_rate(0.5)
      >>> grads = jnp.array([2.0])
      >>> print(tx.update(grads, tx.init(grads))[0])
      [-1.]

    Differs from Optax:
      With a float32 array as the rate, ``optax.scale`` turns bfloat16 updates into float32, and momentum after it then
      changes its dtype.
    """
    if callable(learning_rate) or not isinstance(learning_rate, jax.Array | np.ndarray | np.generic):
        return optax.scale_by_learning_rate(learning_rate)

    def scale(update: Any, param: Any = None) -> Any:
        del param
        return jnp.asarray(-learning_rate, update.dtype) * update

    return optax.stateless_with_tree_map(scale)
