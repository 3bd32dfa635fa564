"""The learning rate, in the dtype of what it scales."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def scale_by_learning_rate(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Multiply by minus the learning rate with Optax, leaving the dtype of the updates.

    `optax.scale` makes bfloat16 times a float32 array float32, and momentum that comes after it changes its type.
    """
    if callable(learning_rate) or not isinstance(learning_rate, jax.Array | np.ndarray | np.generic):
        return optax.scale_by_learning_rate(learning_rate)

    def scale(update: Any, param: Any = None) -> Any:
        del param
        return jnp.asarray(-learning_rate, update.dtype) * update

    return optax.stateless_with_tree_map(scale)
