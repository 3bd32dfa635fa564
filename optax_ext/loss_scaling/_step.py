"""The step of every wrapper that skips: unscale gradients, check them, and apply the inner update or nothing."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import compress
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import is_eager
from optax_ext._core.norms import AxisName
from optax_ext._core.overwritten import refuse_overwritten
from optax_ext._core.remat import remat_scope
from optax_ext.loss_scaling._early_selection import read_gradients, select_leaf, trace_update
from optax_ext.loss_scaling._finite import agree, all_finite_after
from optax_ext.loss_scaling._grad_norm import finite_and_norm
from optax_ext.loss_scaling._master_weights import masters_of
from optax_ext.loss_scaling._precision import unscale_by, widen_range, zero_where_not_inexact
from optax_ext.loss_scaling._state import (
    LossScaleState,
    SkipBadStepsState,
    copy_strongly_typed,
    increment_counts,
    keep_structure,
)


class Step(NamedTuple):
    """What a step found, and what it did.

    Attributes:
      updates: Those of the inner transformation, or zeros.
      inner_state: Its next state, or the one before.
      finite: Whether the gradients were finite.
      checked: Whether the updates were finite as well, if they were checked.
      applied: Whether it was applied.
      grad_norm: The norm of the gradients, infinite if they were non-finite.
    """

    updates: optax.Updates
    inner_state: optax.OptState
    finite: jax.Array
    checked: jax.Array
    applied: jax.Array
    grad_norm: jax.Array


# Takes whether everything checked was finite, and the norm of the gradients; returns whether the step is applied.
Accept = Callable[[jax.Array, jax.Array], jax.Array]


def init_inner(inner: optax.GradientTransformation, params: optax.Params) -> optax.OptState:
    """Return the first state of the inner transformation, each leaf a copy of its own."""
    refuse_overwritten(params)
    inner_state = inner.init(widen_range(params))
    inner_state = masters_of(inner_state, lambda: inner.init(params))
    return jax.tree.map(copy_strongly_typed, inner_state)


def take_step(
    inner: optax.GradientTransformationExtraArgs,
    updates: optax.Updates,
    inner_state: optax.OptState,
    params: optax.Params | None,
    extra_args: Mapping[str, Any],
    *,
    scale: jax.Array | None,
    accept: Accept | None,
    judges_norm: bool,
    check_updates: bool,
    count_skipped_steps: bool,
    axis_name: AxisName | None,
) -> Step:
    """Apply the inner transformation to unscaled gradients, or skip it, with one check and one selection.

    Args:
      inner: The inner transformation.
      updates: The gradients, scaled.
      inner_state: Its state.
      params: The parameters, if given.
      extra_args: What `inner` is given besides.
      scale: What gradients are divided by; None if they are not scaled.
      accept: The rule; None if every step is applied.
      judges_norm: Whether the rule looks at the norm.
      check_updates: Whether what `inner` returns is checked as well.
      count_skipped_steps: Whether a skipped step advances the counts of the inner state.
      axis_name: The axes whose devices must agree.
    """
    scaled = updates

    def unscaled_update(scaled: optax.Updates, inner_state: optax.OptState) -> tuple[optax.Updates, optax.OptState]:
        with remat_scope():
            shown = widen_range(params)
            grads = unscale_by(scale, scaled, shown)
            updates, new_state = inner.update(grads, inner_state, shown, **extra_args)
        return zero_where_not_inexact(updates, params), keep_structure(new_state, inner_state)

    def check(reads: Sequence[bool] | None = None) -> tuple[jax.Array, jax.Array]:
        with remat_scope():
            leaves = jax.tree.leaves(scaled)
            unscaled = jax.tree.leaves(unscale_by(scale, scaled, widen_range(params)))
            if reads is not None:
                leaves, unscaled = [*compress(leaves, reads)], [*compress(unscaled, reads)]
            return finite_and_norm(scale, leaves, unscaled, axis_name)

    # A step that is not compiled is traced only to find out which gradients are read: where that decides about it.
    eager = is_eager(*jax.tree.leaves((updates, inner_state, params, scale, extra_args)))
    traced = None if eager else trace_update(unscaled_update, scaled, inner_state)
    reads = traced.reads if traced else None
    if eager and judges_norm:
        reads = read_gradients(unscaled_update, scaled, inner_state)
    finite, grad_norm = check(reads)
    if eager and not judges_norm and not finite:
        finite, grad_norm = check(read_gradients(unscaled_update, scaled, inner_state))

    kept = increment_counts(inner_state) if count_skipped_steps else inner_state
    checked = finite
    if traced and accept and not check_updates:
        applied = accept(finite, grad_norm)
        updates, inner_state = traced(applied, kept)
    else:
        updates, inner_state = unscaled_update(scaled, inner_state)
        if check_updates:
            checked &= agree(all_finite_after(updates, params), axis_name)
        applied = accept(checked, grad_norm) if accept else jnp.ones_like(checked)
        inner_state = jax.tree.map(partial(select_leaf, applied), inner_state, kept)
    updates = jax.tree.map(lambda update: jnp.where(applied, update, jnp.zeros_like(update)), updates)
    return Step(updates, inner_state, finite, checked, applied, grad_norm)


def count_skips(state: LossScaleState | SkipBadStepsState, applied: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return how many steps are skipped after one more, in all and in a row."""
    skipped_steps, consecutive_skips = jnp.asarray(state.skipped_steps), jnp.asarray(state.consecutive_skips)
    return (
        jnp.where(applied, skipped_steps, optax.safe_increment(skipped_steps)),
        jnp.where(applied, 0, optax.safe_increment(consecutive_skips)),
    )
