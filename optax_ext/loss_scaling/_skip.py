"""The wrapper under every loss scale: unscale gradients, check them, and skip steps that are non-finite."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import compress
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import Scalar, check_flag, check_transformation, is_eager
from optax_ext._core.norms import AxisName
from optax_ext._core.remat import remat_scope
from optax_ext.loss_scaling._early_selection import read_gradients, select_leaf, trace_update
from optax_ext.loss_scaling._finite import agree, all_finite_after, all_finite_unscaled
from optax_ext.loss_scaling._master_weights import masters_of
from optax_ext.loss_scaling._overwritten import refuse_overwritten
from optax_ext.loss_scaling._precision import unscale_by, widen_range, zero_where_not_inexact
from optax_ext.loss_scaling._state import (
    LossScaleState,
    check_state,
    copy_strongly_typed,
    increment_counts,
    keep_structure,
    loss_scale_states,
    replicate_like,
)

# Takes the state before a step, whether its gradients were finite, and how many skips in a row there are now; returns
# the next scale, counter and skips since growth.
Adapt = Callable[[LossScaleState, jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]


def skip_nonfinite_steps(
    inner: optax.GradientTransformation,
    initial_scale: Scalar,
    adapt: Adapt,
    *,
    skip_nonfinite: bool = True,
    check_updates: bool,
    count_skipped_steps: bool,
    axis_name: AxisName | None,
) -> optax.GradientTransformationExtraArgs:
    check_transformation("inner", inner)
    check_flag("skip_nonfinite", skip_nonfinite)
    check_flag("check_updates", check_updates)
    check_flag("count_skipped_steps", count_skipped_steps)
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: optax.Params) -> LossScaleState:
        refuse_overwritten(params)
        inner_state = inner.init(widen_range(params))
        inner_state = masters_of(inner_state, lambda: inner.init(params))
        if loss_scale_states(inner_state):
            raise ValueError("inner must not scale losses itself, got one with a LossScaleState")
        state = LossScaleState(
            loss_scale=jnp.array(initial_scale, jnp.float32),  # a copy: every leaf can be donated
            counter=jnp.zeros([], jnp.int32),
            grads_finite=jnp.ones([], jnp.bool_),
            skipped_steps=jnp.zeros([], jnp.int32),
            consecutive_skips=jnp.zeros([], jnp.int32),
            inner_state=jax.tree.map(copy_strongly_typed, inner_state),
            skips_since_growth=jnp.zeros([], jnp.int32),
        )
        return replicate_like(params, state)

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, LossScaleState]:
        check_state(state)
        scaled, scale = updates, jnp.asarray(state.loss_scale, jnp.float32)

        def unscaled_update(scaled: optax.Updates, inner_state: optax.OptState) -> tuple[optax.Updates, optax.OptState]:
            with remat_scope():
                shown = widen_range(params)
                grads = unscale_by(scale, scaled, shown)
                updates, new_state = inner.update(grads, inner_state, shown, **extra_args)
            return zero_where_not_inexact(updates, params), keep_structure(new_state, inner_state)

        def grads_finite(reads: Sequence[bool] | None = None) -> jax.Array:
            with remat_scope():
                leaves = jax.tree.leaves(scaled)
                unscaled = jax.tree.leaves(unscale_by(scale, scaled, widen_range(params)))
                if reads is not None:
                    leaves, unscaled = [*compress(leaves, reads)], [*compress(unscaled, reads)]
                return agree(all_finite_unscaled(scale, leaves, unscaled), axis_name)

        # A step that is not compiled is traced only to find out whether non-finite gradients are read at all.
        eager = is_eager(*jax.tree.leaves((updates, state, params, extra_args)))
        traced = None if eager else trace_update(unscaled_update, scaled, state.inner_state)
        finite = grads_finite(traced.reads if traced else None)
        if eager and not finite:
            finite = grads_finite(read_gradients(unscaled_update, scaled, state.inner_state))

        kept = increment_counts(state.inner_state) if count_skipped_steps else state.inner_state
        if traced and skip_nonfinite and not check_updates:
            applied = finite
            updates, inner_state = traced(applied, kept)
        else:
            updates, inner_state = unscaled_update(scaled, state.inner_state)
            if check_updates:
                finite &= agree(all_finite_after(updates, params), axis_name)
            applied = finite if skip_nonfinite else jnp.ones_like(finite)
            inner_state = jax.tree.map(partial(select_leaf, applied), inner_state, kept)
        updates = jax.tree.map(lambda update: jnp.where(applied, update, jnp.zeros_like(update)), updates)

        consecutive_skips = jnp.where(applied, 0, optax.safe_increment(jnp.asarray(state.consecutive_skips)))
        loss_scale, counter, skips_since_growth = adapt(state, finite, consecutive_skips)
        skipped_steps = jnp.asarray(state.skipped_steps)
        return updates, LossScaleState(
            loss_scale=loss_scale,
            counter=counter,
            grads_finite=finite,
            skipped_steps=jnp.where(applied, skipped_steps, optax.safe_increment(skipped_steps)),
            consecutive_skips=consecutive_skips,
            inner_state=inner_state,
            skips_since_growth=skips_since_growth,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
