"""Momentum that outlives a missing gradient."""

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
    """Trace past updates with `optax.trace`, keeping the trace of a parameter that has no gradient this time.

    `optax.trace` puts None in its place, which loses the momentum and changes the structure of the state. Nor does the
    trace change its dtype with a wider update.
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
