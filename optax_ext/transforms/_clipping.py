"""Clipping of gradients by norm, as Keras optimizers do it before anything else."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext.transforms._precision import widen


def clip_by_norm(max_norm: float) -> optax.GradientTransformation:
    """Shrink each leaf whose own norm is more than `max_norm` to that norm; norms are taken in float32.

    Optax clips by value and by global norm, not leaf by leaf.
    """

    def clip(updates: Any, params: Any) -> Any:
        del params
        return jax.tree.map(lambda update: _shrink(update, optax.tree.norm(widen(update)), max_norm), updates)

    return optax.stateless(clip)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Shrink all leaves alike if their common norm is more than `max_norm`; the norm is taken in float32.

    `optax.clip_by_global_norm` takes it in the dtype of the leaves, where float16 overflows and clips to zero.
    """

    def clip(updates: Any, params: Any) -> Any:
        del params
        norm = optax.tree.norm(jax.tree.map(widen, updates))
        return jax.tree.map(lambda update: _shrink(update, norm, max_norm), updates)

    return optax.stateless(clip)


def _shrink(update: jax.Array, norm: Any, max_norm: float) -> jax.Array:
    shrunk = widen(update) * (max_norm / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))
    return jnp.where(norm > max_norm, shrunk, widen(update)).astype(update.dtype)
