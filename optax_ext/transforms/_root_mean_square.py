"""Adafactor's two uses of the root mean square of a layer: to clip its update, and to scale it to its parameters."""

from __future__ import annotations  # so that `help` shows types as they are written

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.layers import Layers, StackedAxes, check_stacked_axes, layers_of
from optax_ext._core.norms import norms
from optax_ext._core.precision import widen
from optax_ext._core.public import public
from optax_ext._core.trees import is_none


@public
def clip_by_rms(max_rms: float, *, stacked_axes: StackedAxes = None) -> optax.GradientTransformation:
    """Clip each leaf to a root mean square of its own: ``u * min(1, max_rms / rms(u))``.

    Args:
      max_rms: The largest root mean square of each leaf, positive. It is taken in at least float32.
      stacked_axes: The axes of leaves that count layers, each of which is then clipped by itself, as in
        [`scale_by_trust_ratio`][optax_ext.scale_by_trust_ratio].

    Returns:
      A stateless transformation.

    Raises:
      ValueError: If ``stacked_axes`` does not fit the parameters.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.clip_by_rms(1.0)
      >>> grads = {"large": jnp.array([2.0, -2.0]), "small": jnp.array([0.5])}
      >>> updates, _ = tx.update(grads, tx.init(grads))
      >>> print(updates["large"], updates["small"])
      [ 1. -1.] [0.5]

    References:
      Shazeer and Stern, [arXiv:1804.04235](https://arxiv.org/abs/1804.04235), section 6.

    Differs from Optax:
      ``optax.clip_by_block_rms`` takes the root mean square of whole leaves in their own dtype, and its derivative is
      NaN where an update is zero.
    """

    def factor(update: Any, param: Any, layers: Layers) -> jax.Array:
        del param
        rms = _rms(update, layers)
        return jnp.where(rms > max_rms, max_rms / jnp.where(rms > max_rms, rms, 1), 1)

    return _scale_layers(factor, stacked_axes, reads_params=False)


@public
def scale_by_param_rms(min_rms: float, *, stacked_axes: StackedAxes = None) -> optax.GradientTransformation:
    """Scale the update of each leaf by the root mean square of its parameter: ``u * max(min_rms, rms(p))``.

    Args:
      min_rms: The smallest factor, at least 0, so that parameters at zero move too.
      stacked_axes: The axes of leaves that count layers, each of which then has a factor of its own, as in
        [`scale_by_trust_ratio`][optax_ext.scale_by_trust_ratio].

    Returns:
      A stateless transformation that needs ``params``.

    Raises:
      ValueError: If ``stacked_axes`` does not fit the parameters, or if ``update`` is called without ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.scale_by_param_rms(0.001)
      >>> params, grads = jnp.array([3.0, -3.0]), jnp.array([1.0, 0.5])
      >>> print(tx.update(grads, tx.init(params), params)[0])
      [3.  1.5]

    References:
      Shazeer and Stern, [arXiv:1804.04235](https://arxiv.org/abs/1804.04235), section 8.

    Differs from Optax:
      ``optax.scale_by_param_block_rms`` takes the root mean square of whole leaves in their own dtype.
    """

    def factor(update: Any, param: Any, layers: Layers) -> jax.Array:
        del update
        rms = _rms(param, layers)
        return jnp.maximum(rms, jnp.asarray(min_rms, rms.dtype))

    return _scale_layers(factor, stacked_axes, reads_params=True)


def _rms(leaf: Any, layers: Layers) -> jax.Array:
    """Return the root mean square of each layer, in an array of the rank of the leaf if there are several."""
    (norm,) = norms([leaf], layers=layers)
    numbers = math.prod(leaf.shape[axis] for axis in layers.reduced(leaf.ndim))
    return norm / math.sqrt(max(numbers, 1))


def _scale_layers(factor: Any, stacked_axes: StackedAxes, *, reads_params: bool) -> optax.GradientTransformation:
    """Multiply each layer by a factor of its own, computed from its update and its parameter."""
    check_stacked_axes("stacked_axes", stacked_axes)

    def init_fn(params: optax.Params) -> optax.OptState:
        layers_of(stacked_axes, params)  # to find what does not fit
        return optax.EmptyState()

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        if reads_params and params is None:
            raise ValueError("scale_by_param_rms needs the parameters: call update(updates, state, params), got None")

        def scale(update: Any, param: Any, layers: Layers) -> Any:
            if update is None:
                return None
            wide = widen(update)
            return (wide * factor(update, param, layers).astype(wide.dtype)).astype(update.dtype)

        like = updates if params is None else params
        return jax.tree.map(scale, updates, like, layers_of(stacked_axes, like), is_leaf=is_none), state

    return optax.GradientTransformation(init_fn, update_fn)
