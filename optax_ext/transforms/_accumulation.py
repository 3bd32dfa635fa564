"""The mean of the gradients of several steps, for batches that do not fit in memory."""

from __future__ import annotations  # so that `help` shows types as they are written

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import check_number
from optax_ext._core.field_types import PositiveInteger
from optax_ext._core.precision import is_inexact, widen
from optax_ext._core.public import public
from optax_ext._core.trees import is_none


@public
def accumulate_gradients(inner: optax.GradientTransformation, steps: int) -> optax.GradientTransformationExtraArgs:
    """Average the gradients of several calls of ``update``, and let only the last of them move the parameters.

    Args:
      inner: The transformation of the mean. It sees one update for ``steps`` calls.
      steps: Number of calls, at least 1.

    Returns:
      A transformation with the state of ``optax.MultiSteps``, whose means are in at least float32. Its updates are zero
      before the last of the calls.

    Raises:
      ValueError: If ``steps`` is out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from optax_ext import transforms
      >>> tx = transforms.accumulate_gradients(optax.sgd(0.5), 2)
      >>> params = jnp.zeros(1)
      >>> state = tx.init(params)
      >>> for gradient in (1.0, 3.0):
      ...     updates, state = tx.update(jnp.array([gradient]), state, params)
      ...     print(updates)
      [0.]
      [-1.]

    Differs from Optax:
      ``optax.MultiSteps`` loses the imaginary part of complex gradients, and fails where a gradient is None or of type
      float0. Here a gradient of None is left out of the mean, and ``inner`` is given None if it is the last; gradients
      of integer parameters are not averaged.
    """
    check_number("steps", steps, PositiveInteger)
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: optax.Params) -> optax.MultiStepsState:
        def zeros(param: Any) -> jax.Array | None:
            return jnp.zeros_like(widen(param)) if is_inexact(param) else None

        means, start = jax.tree.map(zeros, params), jnp.zeros([], jnp.int32)
        return optax.MultiStepsState(start, jnp.zeros([], jnp.int32), inner.init(params), means, ())

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.MultiStepsState]:
        calls = jnp.asarray(state.mini_step) + 1
        is_last = calls >= steps  # more, if the state is of a transformation of more steps

        def add(update: Any, mean: Any) -> Any:
            if update is None or mean is None:
                return mean
            return mean + (jnp.asarray(update).astype(mean.dtype) - mean) / calls.astype(mean.dtype)

        def narrow(update: Any, mean: Any) -> Any:
            return update if update is None or mean is None else mean.astype(jnp.result_type(update))

        means = jax.tree.map(add, updates, state.acc_grads, is_leaf=is_none)
        shown = jax.tree.map(narrow, updates, means, is_leaf=is_none)

        def move() -> tuple[Any, Any, Any]:
            moved, inner_state = inner.update(shown, state.inner_opt_state, params, **extra_args)
            return moved, inner_state, jax.tree.map(jnp.zeros_like, means)

        def wait() -> tuple[Any, Any, Any]:
            moved, _, _ = jax.eval_shape(move)
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), moved), state.inner_opt_state, means

        moved, inner_state, left = jax.lax.cond(is_last, move, wait)
        return moved, optax.MultiStepsState(
            jnp.where(is_last, 0, calls),
            jnp.where(is_last, optax.safe_increment(state.gradient_step), state.gradient_step),
            inner_state,
            left,
            state.skip_state,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
