"""What low precision needs: arithmetic in at least float32, and the check that numbers are finite."""

from typing import Any

import jax
import jax.numpy as jnp


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf holds floating or complex numbers; integers, keys and float0 do not."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def widen(x: jax.Array) -> jax.Array:
    """Return floats narrower than float32 as float32, and everything else as it is."""
    return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4 else x


def all_finite(tree: Any) -> jax.Array:
    """Return whether every inexact number of a tree is finite; an empty tree is."""
    finite = jnp.asarray(True)
    for leaf in jax.tree.leaves(tree):
        if is_inexact(leaf):
            finite &= jnp.isfinite(leaf).all()
    return finite
