"""Chains of named stages, which leave integers alone and compute cheap values again rather than keep them."""

from collections.abc import Mapping
from typing import Any

import optax

from optax_ext._core.public import public
from optax_ext._core.remat import remat_scope
from optax_ext.transforms._inexact import for_inexact


@public
class Chain(optax.GradientTransformationExtraArgs):
    """A chain that knows its stages.

    Attributes:
      stages: The transformations that are chained, in order, by what each is called.
    """

    stages: Mapping[str, optax.GradientTransformation]


@public
def chain(stages: Mapping[str, optax.GradientTransformation]) -> Chain:
    """Chain named transformations as ``optax.chain`` does, for floating and complex parameters alone.

    Integer parameters, keys and gradients of type float0 are hidden from every stage: their updates are zero. A
    stage may compute again what another one has made, where that is faster than to read it from memory.

    Args:
      stages: Transformations in order, by what each is called.

    Returns:
      A transformation whose state is that of ``optax.chain`` of the stages, and which has the ``stages`` as an
      attribute.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from optax_ext import transforms
      >>> tx = transforms.chain({"clip": optax.clip(1.0), "learning rate": optax.scale(-0.5)})
      >>> params = {"kernel": jnp.ones(2), "table": jnp.arange(2)}
      >>> grads = {"kernel": jnp.array([4.0, 0.5]), "table": jnp.zeros(2)}
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> print(updates["kernel"], updates["table"], list(tx.stages))
      [-0.5  -0.25] [0 0] ['clip', 'learning rate']
    """
    inner = for_inexact(optax.chain(*stages.values()))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        with remat_scope():
            return inner.update(updates, state, params, **extra_args)

    chained = Chain(inner.init, update_fn)
    chained.stages = dict(stages)
    return chained
