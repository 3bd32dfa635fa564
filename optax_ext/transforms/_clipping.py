"""Clipping of gradients by norm, as Keras optimizers do it before anything else."""

from __future__ import annotations  # so that `help` shows types as they are written

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.layers import Layers, StackedAxes, check_stacked_axes, layers_of
from optax_ext._core.norms import AxisName, norms
from optax_ext._core.precision import widen
from optax_ext._core.public import public
from optax_ext._core.remat import read_alone, rematerializable
from optax_ext.transforms._inexact import for_inexact


@public
def clip_by_norm(
    max_norm: float, *, stacked_axes: StackedAxes = None, axis_name: AxisName | None = None
) -> optax.GradientTransformationExtraArgs:
    """Clip each leaf to a norm of its own, as Keras's ``clipnorm`` does: ``u * min(1, max_norm / |u|)``.

    Optax clips by value, by global norm and by blocks of leaves.

    Args:
      max_norm: The largest norm of each leaf, at least 0. Norms are taken in at least float32.
      stacked_axes: The axes of leaves that count layers, each of which is then clipped to a norm of its own, as in
        [`scale_by_trust_ratio`][optax_ext.scale_by_trust_ratio].
      axis_name: The mesh axis, or axes, over which layers are split inside ``shard_map``, as there.

    Returns:
      A stateless transformation. Integer parameters and keys have an update of zero.

    Raises:
      ValueError: If ``stacked_axes`` does not fit the parameters.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.clip_by_norm(1.0)
      >>> grads = {"large": jnp.array([3.0, 4.0]), "small": jnp.array([0.5])}
      >>> updates, _ = tx.update(grads, tx.init(grads))
      >>> print(updates["large"], updates["small"])
      [0.6 0.8] [0.5]
    """
    check_stacked_axes("stacked_axes", stacked_axes)

    def init_fn(params: optax.Params) -> optax.OptState:
        layers_of(stacked_axes, params)  # to find what does not fit
        return optax.EmptyState()

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params

        def clip(update: jax.Array, layers: Layers) -> jax.Array:
            (norm,) = norms([update], axis_name=axis_name, layers=layers)
            return _shrink(update, norm, max_norm)

        return jax.tree.map(clip, updates, layers_of(stacked_axes, updates)), state

    return for_inexact(optax.GradientTransformation(init_fn, update_fn))


@public
def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Clip all leaves by their common norm: ``u * min(1, max_norm / norm)``.

    Args:
      max_norm: The largest norm of all leaves together, at least 0. The norm is taken in at least float32.

    Returns:
      A stateless transformation.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.clip_by_global_norm(1.0)
      >>> grads = {"kernel": jnp.array([3.0]), "bias": jnp.array([4.0])}
      >>> updates, _ = tx.update(grads, tx.init(grads))
      >>> print(updates["kernel"], updates["bias"])
      [0.6] [0.8]

    Differs from Optax:
      ``optax.clip_by_global_norm`` takes the norm in the dtype of the leaves, where float16 overflows and clips to
      zero, and keeps a clipped copy of all leaves in memory.
    """

    def clip(updates: Any, params: Any) -> Any:
        del params
        leaves = jax.tree.leaves(updates)
        if not leaves:
            return updates
        (norm,) = jax.lax.optimization_barrier(norms(leaves))  # or each leaf adds up all the sums again
        return jax.tree.map(lambda update: _shrink(update, norm, max_norm), updates)

    return optax.stateless(clip)


def _shrink(update: jax.Array, norm: jax.Array, max_norm: float) -> jax.Array:
    update = read_alone(update)
    factor = max_norm / jnp.where(norm > max_norm, norm, 1)

    def shrink(update: jax.Array, norm: jax.Array, factor: jax.Array) -> jax.Array:
        wide = widen(update)
        return jnp.where(norm > max_norm, wide * factor.astype(wide.dtype), wide).astype(update.dtype)

    return rematerializable(shrink, update, norm, factor)
