"""Weight decay that norms can rematerialize."""

from __future__ import annotations  # so that `help` shows types as they are written

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import Mask
from optax_ext._core.public import public
from optax_ext._core.remat import rematerializable
from optax_ext._core.trees import is_none


@public
def add_decayed_weights(weight_decay: optax.ScalarOrSchedule, mask: Mask) -> optax.GradientTransformation:
    """Add weight decay to updates: ``u + weight_decay * p``.

    Args:
      weight_decay: At least 0, or a schedule of the step.
      mask: The parameters that decay: a tree of bool, a prefix of one, or a function from parameters to one.

    Returns:
      A transformation that needs ``params``, with the state of ``optax.add_decayed_weights``.

    Raises:
      ValueError: If ``update`` is called without ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.add_decayed_weights(0.5, True)
      >>> params, grads = jnp.array([2.0]), jnp.array([3.0])
      >>> print(tx.update(grads, tx.init(params), params)[0])
      [4.]

    Differs from Optax:
      A schedule, or a traced number, leaves a bfloat16 update in bfloat16, as a Python number does. Norms can
      rematerialize the sums rather than read them from memory.
    """

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        if params is None:
            raise ValueError("weight decay needs the parameters: call update(updates, state, params), got None")
        if isinstance(weight_decay, int | float) and weight_decay == 0:
            return updates, state
        rate = weight_decay(state.count) if callable(weight_decay) else weight_decay

        def decay(update: Any, param: Any) -> Any:
            if update is None:
                return None
            update, param = jnp.asarray(update), jnp.asarray(param)
            dtype = jnp.promote_types(update.dtype, param.dtype)

            def add(update: jax.Array, param: jax.Array, rate: jax.Array) -> jax.Array:
                return update.astype(dtype) + rate * param.astype(dtype)

            return rematerializable(add, update, param, jnp.asarray(rate).astype(dtype))

        if callable(weight_decay):
            state = state._replace(count=optax.safe_increment(state.count))
        return jax.tree.map(decay, updates, params, is_leaf=is_none), state

    init_fn = optax.add_decayed_weights(weight_decay).init
    return optax.masked(optax.GradientTransformation(init_fn, update_fn), mask)
