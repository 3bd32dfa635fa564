"""The wrapper under every loss scale: unscale gradients, check them, and skip steps that are non-finite."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import Scalar, check_flag, check_transformation
from optax_ext._core.norms import AxisName
from optax_ext.loss_scaling._spikes import find_guard, join_axes
from optax_ext.loss_scaling._state import LossScaleState, check_state, loss_scale_states, replicate_like
from optax_ext.loss_scaling._step import count_skips, init_inner, take_step

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
    """Wrap a transformation so that it takes scaled gradients; with `skip_bad_steps` directly inside, by both rules."""
    check_transformation("inner", inner)
    check_flag("skip_nonfinite", skip_nonfinite)
    check_flag("check_updates", check_updates)
    check_flag("count_skipped_steps", count_skipped_steps)
    inner = optax.with_extra_args_support(inner)
    guard = find_guard(inner)

    def init_fn(params: optax.Params) -> LossScaleState:
        inner_state = init_inner(inner, params)
        if loss_scale_states(inner_state):
            raise ValueError("inner must not scale losses itself, got one with a LossScaleState")
        state = LossScaleState(
            loss_scale=jnp.array(initial_scale, jnp.float32),  # a copy: every leaf can be donated
            counter=jnp.zeros([], jnp.int32),
            grads_finite=jnp.ones([], jnp.bool_),
            skipped_steps=jnp.zeros([], jnp.int32),
            consecutive_skips=jnp.zeros([], jnp.int32),
            inner_state=inner_state,
            skips_since_growth=jnp.zeros([], jnp.int32),
            grad_norm=jnp.zeros([], jnp.float32),
            last_step_counted=jnp.ones([], jnp.bool_),
        )
        return replicate_like(params, state)

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, LossScaleState]:
        check_state(state)
        inner_state: Any = state.inner_state
        if guard is not None:
            guard.check_state(inner_state)

        def accept(finite: jax.Array, grad_norm: jax.Array) -> jax.Array:
            return finite if guard is None else guard.accept(state.inner_state, finite, grad_norm)

        step = take_step(
            inner if guard is None else guard.inner,
            updates,
            inner_state if guard is None else inner_state.inner_state,
            params,
            extra_args,
            scale=jnp.asarray(state.loss_scale, jnp.float32),
            accept=accept if skip_nonfinite or guard is not None else None,
            judges_norm=guard is not None and guard.judges_norm,
            check_updates=check_updates or (guard is not None and guard.check_updates),
            count_skipped_steps=count_skipped_steps,
            axis_name=axis_name if guard is None else join_axes(axis_name, guard.axis_name),
        )
        finite = step.checked if check_updates else step.finite
        inner_state = step.inner_state
        if guard is not None:  # which a non-finite step does not reach, where the scale skips it
            reached = finite if skip_nonfinite else jnp.ones_like(finite)
            inner_state = guard.next_state(state.inner_state, step, reached)
        skipped_steps, consecutive_skips = count_skips(state, step.applied)
        loss_scale, counter, skips_since_growth = adapt(state, finite, consecutive_skips)
        return step.updates, LossScaleState(
            loss_scale=loss_scale,
            counter=counter,
            grads_finite=finite,
            skipped_steps=skipped_steps,
            consecutive_skips=consecutive_skips,
            inner_state=inner_state,
            skips_since_growth=skips_since_growth,
            grad_norm=step.grad_norm,
            last_step_counted=jnp.ones_like(step.applied) if count_skipped_steps else step.applied,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
