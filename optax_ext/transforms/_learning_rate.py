"""The learning rate, which leaves the dtype of updates alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def scale_by_learning_rate(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Multiply updates by minus the learning rate, as Optax does, and keep their dtype.

    `optax.scale` with a float32 array turns bfloat16 updates into float32, and momentum after it then changes its
    dtype.
    """
    if callable(learning_rate) or not isinstance(learning_rate, jax.Array | np.ndarray | np.generic):
        return optax.scale_by_learning_rate(learning_rate)

    def scale(update: Any, param: Any = None) -> Any:
        del param
        return jnp.asarray(-learning_rate, update.dtype) * update

    return optax.stateless_with_tree_map(scale)
