"""Momentum that survives a missing gradient."""

from __future__ import annotations  # so that `help` shows types as they are written

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from optax_ext._core.arguments import Scalar
from optax_ext._core.precision import keep_without_gradient
from optax_ext._core.public import public
from optax_ext._core.trees import is_none
from optax_ext.transforms._float32 import accumulator_dtype_of


@public
def add_momentum(
    momentum: Scalar, *, nesterov: bool, accumulator_dtype: DTypeLike | None = None
) -> optax.GradientTransformation:
    """Add momentum to updates, as ``optax.trace`` does.

    ```text
    v = momentum * v + u
    u = v, or with Nesterov's momentum: momentum * v + u
    ```

    Args:
      momentum: In [0, 1].
      nesterov: Whether to use Nesterov's momentum.
      accumulator_dtype: The dtype of the trace ``v``; None for the dtype of each parameter.

    Returns:
      A transformation whose state is an ``optax.TraceState``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.add_momentum(0.5, nesterov=False)
      >>> params = jnp.zeros(2)
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.ones(2), state, params)
      >>> print(updates)
      [1.5 1.5]

    Differs from Optax:
      A parameter whose gradient is None keeps its trace; ``optax.trace`` replaces it by None, which discards the
      momentum and changes the structure of the state. The trace never changes its dtype, whatever the dtype of the
      updates.
    """
    trace = optax.trace(momentum, nesterov=nesterov)  # its sums are cast below, leaf by leaf

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        wide, new_state = trace.update(updates, state, params)
        new_state = keep_without_gradient(new_state, state)

        def narrow(wide: Any, update: Any, trace: jax.Array) -> Any:
            return None if update is None else wide.astype(jnp.result_type(update, trace))

        return (
            jax.tree.map(narrow, wide, updates, state.trace, is_leaf=is_none),
            jax.tree.map(lambda new, old: new.astype(old.dtype), new_state, state),
        )

    def init_fn(params: optax.Params) -> optax.TraceState:
        def zeros(param: Any) -> jax.Array:
            return jnp.zeros_like(param, dtype=accumulator_dtype_of(param, accumulator_dtype))

        return optax.TraceState(trace=jax.tree.map(zeros, params))

    return optax.GradientTransformation(init_fn, update_fn)
