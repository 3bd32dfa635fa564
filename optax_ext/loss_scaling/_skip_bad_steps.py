"""Skipping bad steps without a loss scale: non-finite gradients, and spikes."""

from __future__ import annotations  # so that `help` shows types as they are written

from typing import Any

import jax.numpy as jnp
import optax

from optax_ext._core.arguments import Scalar, check_flag, check_integer, check_number, check_transformation
from optax_ext._core.field_types import FractionBelowOne, NonNegativeInteger, NumberAboveOne
from optax_ext._core.norms import AxisName
from optax_ext._core.public import public
from optax_ext._core.synonyms import suggest_arguments
from optax_ext._core.trees import find_nodes
from optax_ext.loss_scaling._spikes import Guard
from optax_ext.loss_scaling._state import SkipBadStepsState, loss_scale_states, replicate_like
from optax_ext.loss_scaling._step import init_inner, take_step


@public
@suggest_arguments
def skip_bad_steps(
    inner: optax.GradientTransformation,
    *,
    max_norm_ratio: Scalar | None = None,
    norm_decay: Scalar = 0.99,
    warmup_steps: Scalar = 100,
    check_updates: bool = False,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Wrap a transformation so that steps with non-finite gradients are skipped, and with a ratio spikes as well.

    This is the skip of [`dynamic_loss_scaling`][optax_ext.dynamic_loss_scaling] without a scale, for training in
    float32 and bfloat16. A skipped step has an update of zero and leaves the inner state bit-identical. A non-finite
    gradient is never applied, not after any number of failures.

    With ``max_norm_ratio``, a finite step is skipped too if the norm of its gradients is far above the running average.
    With ``n`` the norm of all gradients together, ``d`` the decay, and ``a`` and ``w`` the average and its weight:

    ```text
    skipped:  n is not finite, or n > max_norm_ratio * a
    applied:  a = (d * w * a + (1 - d) * n) / (d * w + (1 - d))
              w = d * w + (1 - d)
    ```

    The average is thus exponential, with bias correction. It never learns from a step that is skipped, so that no
    spike raises the limit for the next one.

    Args:
      inner: What to wrap: an optimizer, or a chain with its clips.
      max_norm_ratio: How many times the average a norm may be, more than 1; None for no limit. Norms of healthy steps
        vary, most with small batches: about 10 skips the spikes that clipping cannot repair.
      norm_decay: The weight of the average before in the one after, in [0, 1). The average spans about
        ``1 / (1 - norm_decay)`` steps.
      warmup_steps: How many steps are applied before norms are judged, at least 0, since norms fall quickly at the
        start of a training. Non-finite steps are always skipped. Nothing is judged while the average is 0, as before
        the first step.
      check_updates: Whether a step is also skipped if it would make a parameter non-finite in its own dtype.
      axis_name: The mesh axis, or axes, of ``shard_map`` or ``pmap`` whose devices must agree on each skip. Leave it
        out under ``jit`` with shardings, where the check and the norm are global. In ``shard_map`` with ``check_vma``,
        a gradient that varies over an axis counts as split over it, and the norm is that of all parts together. Without
        that check, and in ``pmap``, JAX does not say which gradients are split: all count as copies, so that the norm
        of split ones is the root of the mean square over devices. A ratio of norms is the same either way.

    Returns:
      A transformation whose state is a [`SkipBadStepsState`][optax_ext.SkipBadStepsState]. It passes ``params`` and all
      extra arguments to ``inner``. As in loss scaling, integer parameters and keys have an update of zero, float16
      parameters and their gradients are shown to ``inner`` in float32, and other gradients in the dtype of their
      parameters.

    Raises:
      ValueError: If an argument is out of its range; in ``init``, if ``inner`` scales losses or skips bad steps itself;
        in ``update``, if the state of ``inner`` changes its structure.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> tx = optax_ext.skip_bad_steps(optax.sgd(0.5), max_norm_ratio=10.0, warmup_steps=2)
      >>> params = jnp.array([1.0])
      >>> state = tx.init(params)
      >>> for gradient in (1.0, 3.0, 1000.0, jnp.nan, 2.0):
      ...     updates, state = tx.update(jnp.array([gradient]), state, params)
      ...     print(updates, state.consecutive_skips, f"{state.average_norm:.2f}")
      [-0.5] 0 1.00
      [-1.5] 0 2.01
      [0.] 1 2.01
      [0.] 2 2.01
      [-1.] 0 2.00

    Note:
      Batch statistics, averages of them, and fp8 state are not in the optimizer's state: keep the new ones only of
      applied steps, where ``optax_ext.metrics(state)["consecutive_skips"] == 0``. ``grads_finite`` does not tell: the
      gradients of a spike are finite.

      A spike during the warm-up is applied and averaged: one of ``k`` times the usual norm raises the average by about
      ``k / m`` times that norm, with ``m`` the smaller of the steps so far and ``1 / (1 - norm_decay)``. What it added
      fades by ``norm_decay`` with each step that is applied, by half in 69 steps with 0.99, and until then spikes below
      the higher limit pass.

      A level of norms that rises permanently by more than the ratio, as after a change of the data or the loss, is
      never learned: every step from then on is skipped. A phase of small or zero gradients, such as that of batches
      without targets, is applied and lowers the average, by half in 69 steps with 0.99; once it is below the usual norm
      divided by the ratio, the return to the usual norm is skipped permanently as well.
      [`raise_if_stalled`][optax_ext.raise_if_stalled] ends such a run, and names the norm and the average.

      With a loss scale, put this directly inside: ``dynamic_loss_scaling(skip_bad_steps(inner, max_norm_ratio=10.0))``
      checks once and selects once. The scale counts all skips and shrinks only for non-finite gradients; a non-finite
      step leaves this state as it is.

      Norms are those of gradients before any clip in ``inner``. Around this, ``optax.clip_by_global_norm`` would hide
      every spike.
    """
    check_transformation("inner", inner)
    if max_norm_ratio is not None:
        check_number("max_norm_ratio", max_norm_ratio, NumberAboveOne)
    check_number("norm_decay", norm_decay, FractionBelowOne)
    warmup_steps = check_integer("warmup_steps", warmup_steps, NonNegativeInteger)
    check_flag("check_updates", check_updates)
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: optax.Params) -> SkipBadStepsState:
        inner_state = init_inner(inner, params)
        if loss_scale_states(inner_state):
            raise ValueError(
                "inner must not scale losses, since norms would be those of scaled gradients, got one with a "
                "LossScaleState: put loss scaling outside, dynamic_loss_scaling(skip_bad_steps(inner))"
            )
        if find_nodes(inner_state, SkipBadStepsState):
            raise ValueError("inner must not skip bad steps itself, got one with a SkipBadStepsState")
        state = SkipBadStepsState(
            grads_finite=jnp.ones([], jnp.bool_),
            skipped_steps=jnp.zeros([], jnp.int32),
            consecutive_skips=jnp.zeros([], jnp.int32),
            inner_state=inner_state,
            grad_norm=jnp.zeros([], jnp.float32),
            average_norm=jnp.zeros([], jnp.float32),
            average_weight=jnp.zeros([], jnp.float32),
            applied_steps=jnp.zeros([], jnp.int32),
        )
        return replicate_like(params, state)

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, SkipBadStepsState]:
        guard.check_state(state)
        step = take_step(
            inner,
            updates,
            state.inner_state,
            params,
            extra_args,
            scale=None,
            accept=lambda finite, grad_norm: guard.accept(state, finite, grad_norm),
            judges_norm=guard.judges_norm,
            check_updates=check_updates,
            count_skipped_steps=False,
            axis_name=axis_name,
        )
        return step.updates, guard.next_state(state, step)

    guard = Guard(init_fn, update_fn)
    guard.inner = inner
    guard.max_norm_ratio, guard.norm_decay, guard.warmup_steps = max_norm_ratio, norm_decay, warmup_steps
    guard.check_updates, guard.axis_name = check_updates, axis_name
    return guard
