"""Chains of named stages, which leave integers alone and rematerialize cheap values rather than keep them."""

from __future__ import annotations  # so that `help` shows types as they are written

from collections.abc import Mapping
from typing import Any

import optax

from optax_ext._core.public import public
from optax_ext._core.remat import remat_scope
from optax_ext.transforms._inexact import for_inexact


class _Chain(optax.GradientTransformationExtraArgs):
    """A chain that knows its stages: private, since a class of Optax's has no type that a typed package may show."""

    stages: Mapping[str, optax.GradientTransformation]


@public
def chain(stages: Mapping[str, optax.GradientTransformation]) -> optax.GradientTransformationExtraArgs:
    """Chain named transformations as ``optax.chain`` does, for floating-point and complex parameters only.

    Integer parameters and keys are hidden from every stage, and their updates are zero. A stage may rematerialize what
    an earlier one computed, where that is faster than reading it from memory.

    Args:
      stages: Transformations in order, by name.

    Returns:
      A transformation with the state of ``optax.chain``, whose stages
      [`stages_of`][optax_ext.transforms.stages_of] returns.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from optax_ext import transforms
      >>> tx = transforms.chain({"clip": optax.clip(1.0), "learning rate": optax.scale(-0.5)})
      >>> params = {"kernel": jnp.ones(2), "table": jnp.arange(2)}
      >>> grads = {"kernel": jnp.array([4.0, 0.5]), "table": jnp.zeros(2)}
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> print(updates["kernel"], updates["table"])
      [-0.5  -0.25] [0 0]
      >>> list(transforms.stages_of(tx))
      ['clip', 'learning rate']
    """
    inner = for_inexact(optax.chain(*stages.values()))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        with remat_scope():
            return inner.update(updates, state, params, **extra_args)

    chained = _Chain(inner.init, update_fn)
    chained.stages = dict(stages)
    return chained


@public
def stages_of(transformation: optax.GradientTransformation) -> Mapping[str, optax.GradientTransformation]:
    """Return the stages of a transformation that [`chain`][optax_ext.transforms.chain] made, such as ``lars``.

    Args:
      transformation: What ``chain``, ``lars`` or ``lamb`` returned.

    Returns:
      The transformations that are chained, in order, by what each is called.

    Raises:
      TypeError: If it is any other transformation, whose stages are not known.

    Examples:
      >>> from optax_ext import transforms
      >>> list(transforms.stages_of(transforms.lars(0.1)))
      ['weight decay', 'trust ratio', 'learning rate', 'momentum']
    """
    stages = getattr(transformation, "stages", None) if isinstance(transformation, _Chain) else None
    if stages is None:  # it is no chain, or a changed copy of one
        raise TypeError(
            f"stages_of takes a transformation of transforms.chain, lars or lamb, got {type(transformation).__name__}"
        )
    return stages
