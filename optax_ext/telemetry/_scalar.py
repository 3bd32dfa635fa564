"""Scalars of a state, as metrics return them."""

from typing import Any

import jax
import jax.numpy as jnp


def scalar(name: str, value: Any, dtype: Any) -> jax.Array:
    """Return a scalar, which may be in a box of Flax NNX, as an array of its own, strongly typed.

    It is a copy: the state may be donated to the next step before the scalar is logged.

    Raises:
      ValueError: If it is no scalar, as in a state with a leading axis.
    """
    (value,) = jax.tree.leaves(value)
    if jnp.ndim(value) != 0:
        raise ValueError(
            f"{name} must be a scalar, got the shape {jnp.shape(value)}: for a state with a leading axis, as of pmap "
            "or of several runs under vmap, use jax.vmap over metrics, or give one entry of the state"
        )
    return jnp.array(value, dtype, copy=True)
