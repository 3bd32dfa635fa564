"""The rule for spikes: a norm far above the average of those applied; and the wrapper that carries it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import Scalar
from optax_ext._core.field_types import FLOAT32_MAX
from optax_ext._core.norms import AxisName
from optax_ext.loss_scaling._state import SkipBadStepsState, check_state
from optax_ext.loss_scaling._step import Step, count_skips


class Guard(optax.GradientTransformationExtraArgs):
    """A transformation of `skip_bad_steps` that knows its parts, so that a loss scale around it checks only once.

    Private, since a class of Optax's has no type that a typed package may show.
    """

    inner: optax.GradientTransformationExtraArgs
    max_norm_ratio: Scalar | None
    norm_decay: Scalar
    warmup_steps: Scalar
    check_updates: bool
    axis_name: AxisName | None

    @property
    def judges_norm(self) -> bool:
        """Whether any step is judged by its norm."""
        return self.max_norm_ratio is not None

    def check_state(self, state: Any) -> None:
        """Raise ValueError unless it is a state of this wrapper."""
        check_state(state, SkipBadStepsState)

    def accept(self, state: SkipBadStepsState, finite: jax.Array, grad_norm: jax.Array) -> jax.Array:
        """Return whether a step is applied, given whether all that was checked is finite, and the norm."""
        if self.max_norm_ratio is None:
            return finite
        average = jnp.asarray(state.average_norm, jnp.float32)
        is_judged = (jnp.asarray(state.applied_steps) >= self.warmup_steps) & (average > 0)
        is_spike = grad_norm > jnp.asarray(self.max_norm_ratio, jnp.float32) * average
        return finite & ~(is_judged & is_spike)

    def next_state(self, state: SkipBadStepsState, step: Step, reached: jax.Array | None = None) -> SkipBadStepsState:
        """Return the state after a step; with only the inner state's changes where a step did not reach this wrapper.

        The average is kept divided by the sum of its weights, so that a state can be read as it is. It is a sum of two
        positive numbers: a difference from the old average would lose all digits after a large spike.
        """
        decay = jnp.asarray(self.norm_decay, jnp.float32)
        average, weight = (jnp.asarray(x, jnp.float32) for x in (state.average_norm, state.average_weight))
        new_weight = decay * weight + (1 - decay)
        new_average = decay * weight / new_weight * average + (1 - decay) / new_weight * step.grad_norm
        new_average = jnp.minimum(new_average, FLOAT32_MAX)
        applied_steps = jnp.asarray(state.applied_steps)
        skipped_steps, consecutive_skips = count_skips(state, step.applied)
        new = SkipBadStepsState(
            grads_finite=step.checked,
            skipped_steps=skipped_steps,
            consecutive_skips=consecutive_skips,
            inner_state=None,
            grad_norm=step.grad_norm,
            average_norm=jnp.where(step.applied, new_average, average),
            average_weight=jnp.where(step.applied, new_weight, weight),
            applied_steps=jnp.where(step.applied, optax.safe_increment(applied_steps), applied_steps),
        )
        if reached is not None:
            new = jax.tree.map(lambda n, o: jnp.where(reached, n, o), new, state._replace(inner_state=None))
        return new._replace(inner_state=step.inner_state)


def find_guard(inner: optax.GradientTransformation) -> Guard | None:
    """Return a transformation as the guard that it is, unless it is another one, or a changed copy of one."""
    return inner if isinstance(inner, Guard) and hasattr(inner, "inner") else None


def join_axes(first: AxisName | None, second: AxisName | None) -> AxisName | None:
    """Return the axes of both, each once."""
    names = [
        name for axes in (first, second) if axes is not None for name in (axes if isinstance(axes, tuple) else [axes])
    ]
    return tuple(dict.fromkeys(names)) or None
