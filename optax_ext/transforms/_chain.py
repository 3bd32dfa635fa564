"""Chains of named stages, which leave integers alone and rematerialize cheap values rather than keep them."""

from collections.abc import Mapping
from typing import Any

import optax

from optax_ext._core.remat import remat_scope
from optax_ext.transforms._inexact import for_inexact


class Chain(optax.GradientTransformationExtraArgs):
    """A transformation that knows which stages it chains.

    Attributes:
      init: From parameters to the state, as of any transformation.
      update: From updates, the state and parameters to new updates and the next state.
      stages: The chained transformations in order, by name.
    """

    stages: Mapping[str, optax.GradientTransformation]


def chain(stages: Mapping[str, optax.GradientTransformation]) -> Chain:
    """Chain named transformations as ``optax.chain`` does, for floating-point and complex parameters only.

    Integer parameters and keys are hidden from every stage, and their updates are zero. A stage may rematerialize what
    an earlier one computed, where that is faster than reading it from memory.

    Args:
      stages: Transformations in order, by name.

    Returns:
      A transformation with the state of ``optax.chain``, and with the ``stages`` as an attribute.

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
