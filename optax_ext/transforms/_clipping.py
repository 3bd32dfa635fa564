"""Clipping of gradients by norm, as Keras optimizers do it before anything else."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.norms import norms
from optax_ext._core.precision import widen
from optax_ext._core.public import public
from optax_ext._core.remat import read_alone, rematerializable


@public
def clip_by_norm(max_norm: float) -> optax.GradientTransformation:
    """Shrink each leaf whose own norm is more than `max_norm` to that norm; norms are taken in float32.

    Optax clips by value and by global norm, not leaf by leaf.
    """

    def clip(updates: Any, params: Any) -> Any:
        del params
        return jax.tree.map(lambda update: _shrink(update, norms([update])[0], max_norm), updates)

    return optax.stateless(clip)


@public
def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Shrink all leaves alike if their common norm is more than `max_norm`; the norm is taken in float32.

    `optax.clip_by_global_norm` takes it in the dtype of the leaves, where float16 overflows and clips to zero, and
    keeps a clipped copy of all of them.
    """

    def clip(updates: Any, params: Any) -> Any:
        del params
        leaves = jax.tree.leaves(updates)
        if not leaves:
            return updates
        (norm,) = jax.lax.optimization_barrier(norms(leaves))  # or each leaf's fusion adds up all of the sums again
        return jax.tree.map(lambda update: _shrink(update, norm, max_norm), updates)

    return optax.stateless(clip)


def _shrink(update: jax.Array, norm: jax.Array, max_norm: float) -> jax.Array:
    update = read_alone(update)
    factor = max_norm / jnp.where(norm > max_norm, norm, 1)

    def shrink(update: jax.Array, norm: jax.Array, factor: jax.Array) -> jax.Array:
        wide = widen(update)
        return jnp.where(norm > max_norm, wide * factor.astype(wide.dtype), wide).astype(update.dtype)

    return rematerializable(shrink, update, norm, factor)
