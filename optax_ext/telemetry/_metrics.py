"""What the last step did, as a flat dict of scalars."""

from __future__ import annotations  # so that `help` shows types as they are written

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import check_flag
from optax_ext._core.opt_states import check_opt_state, find_one
from optax_ext._core.public import public
from optax_ext.loss_scaling import LossScaleState, SkipBadStepsState
from optax_ext.telemetry._learning_rate import learning_rate_metrics
from optax_ext.telemetry._records import record_metrics
from optax_ext.telemetry._scalar import scalar

if TYPE_CHECKING:
    from optax_ext import config

_SCALE = {"loss_scale": jnp.float32}
_SKIPS = {
    "grads_finite": jnp.bool_,
    "skipped_steps": jnp.int32,
    "consecutive_skips": jnp.int32,  # 0 after a step that was applied
    "grad_norm": jnp.float32,
}
_GUARD = {"average_norm": jnp.float32}


@public
def metrics(
    opt_state: optax.OptState,
    learning_rate: optax.ScalarOrSchedule | config.UpdateRule | config.OptimizationConfig | None = None,
    *,
    per_layer: bool = False,
) -> dict[str, jax.Array]:
    """Return what the last step did, as a flat dict of scalars for a logger.

    Everything is read from the state that ``tx.update`` returned; gradients and parameters are not read again. Call it
    inside the compiled step, where it costs next to nothing, or outside.

    ```text
    with a loss scale
      loss_scale           the factor for the next loss
    with a loss scale or skip_bad_steps
      grads_finite         whether the last gradients were finite; with check_updates, the parameters after them too
      skipped_steps        how many steps were skipped so far
      consecutive_skips    how many steps in a row were skipped up to now: 0 if the last step was applied
      grad_norm            the norm of the last gradients, unscaled and before any clip; infinite if non-finite
    with skip_bad_steps
      average_norm         the running average of the norms of applied steps
    where the rate is known
      learning_rate        the rate that the last step used
      learning_rate/GROUP  of each group that has one, where there are groups
    with record=True of lars, lamb or scale_by_trust_ratio
      trust_ratio/min      over all layers: the smallest ratio, the middle one, and the largest
      trust_ratio/median
      trust_ratio/max
      update_norm/min      likewise, the norm of the update before it was multiplied by the ratio
      update_norm/median
      update_norm/max
    with per_layer=True
      trust_ratio/PATH     of each layer by its path, as path_mask writes paths: trust_ratio/conv1/kernel
      trust_ratio/PATH/0   of each of the layers that are stacked in a leaf; PATH/0/3 along two axes
      update_norm/...      likewise
    ```

    A skipped step leaves the inner state as it was: ratios and norms of layers are then those of the last step that was
    applied.

    Args:
      opt_state: What ``tx.init`` and ``tx.update`` return, with any wrappers around and inside; for a
        ``flax.nnx.Optimizer`` its ``opt_state``. Of several optimizers, give one.
      learning_rate: What the optimizer was given: a number, a schedule, or the recipe that made it, whose ``decay``
        counts. If ``make(hyperparameters=["learning_rate"])`` keeps its rate in the state, that one counts. The step
        of a schedule comes from the counts in the state. A step that was skipped was computed with the
        count as it still is, an applied one with the count before. Between the updates of ``optax.MultiSteps``, the
        rate is that of the last update; with ``count_skipped_steps=True`` around it, each step skipped since then
        moves the rate on by one count, since the state does not tell skips from updates. After a non-finite step that
        ``optax.apply_if_finite`` applied because its patience had ended, the rate is that of the step to come, since
        the state does not tell this either. With None, there is a rate where ``optax.inject_hyperparams`` keeps one:
        after a skipped step, that of the last applied step. Several rates, in groups of ``optax.partition``, are
        ``learning_rate/GROUP``, and so are those of a recipe with groups: 0 of a group that has not started, and
        without the factors that parameters have of their own.
      per_layer: Whether each layer that ``record=True`` keeps has an entry as well.

    Returns:
      A dict of scalars: float32, except ``grads_finite``, which is bool, and the two counts of skips, which are int32.
      The keys depend on the structure of the state and on the arguments alone, so that ``jax.lax.scan`` can stack them.
      Each scalar is an array of its own, which outlives a state that is donated. A parameter that is called ``min``,
      ``median`` or ``max``, outside of any module, is ``trust_ratio/./min``.

    Raises:
      TypeError: If ``opt_state`` is a transformation, a model or parameters.
      ValueError: If it holds several loss scales, guards, or records of one parameter: give the part with the one to
        read. If ``learning_rate`` is neither a finite number of at least 0, nor a schedule, nor a recipe. If a schedule
        is given, and there is no count, or counts that not all steps reach alike. If the state has a leading axis, as
        of ``pmap``: use ``jax.vmap``.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax_ext
      >>> schedule = optax_ext.CosineDecay(0.5, decay_steps=10)
      >>> tx = optax_ext.dynamic_loss_scaling(optax_ext.lars(schedule, record=True), initial_scale=4.0)
      >>> params = {"conv1": jnp.array([3.0, 4.0]), "conv2": jnp.array([6.0, 8.0])}
      >>> grads = {"conv1": jnp.array([0.0, 40.0]), "conv2": jnp.array([0.0, 4.0])}  # scaled
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> for name, value in optax_ext.metrics(state, schedule, per_layer=True).items():
      ...     print(f"{name:20} {value:.4g}")
      loss_scale           4
      grads_finite         1
      skipped_steps        0
      consecutive_skips    0
      grad_norm            10.05
      learning_rate        0.5
      trust_ratio/min      0.0005
      trust_ratio/median   0.00525
      trust_ratio/max      0.01
      trust_ratio/conv1    0.0005
      trust_ratio/conv2    0.01
      update_norm/min      1
      update_norm/median   5.5
      update_norm/max      10
      update_norm/conv1    10
      update_norm/conv2    1

    Note:
      With both a loss scale and ``skip_bad_steps``, ``skipped_steps`` counts the skips of both. Directly inside a loss
      scale, ``skip_bad_steps`` shares its count; in any other place, such as a chain inside, each has a count of its
      own, ``consecutive_skips`` is the larger, and ``grads_finite`` and ``grad_norm`` are those of the loss scale.

      In ``shard_map``, ratios of layers that are split over devices along a stacked axis are those of the device;
      outside, all are there.
    """
    check_flag("per_layer", per_layer)
    scaling, guard = find_one(opt_state, LossScaleState), find_one(opt_state, SkipBadStepsState)
    if scaling is None and guard is None:
        check_opt_state(opt_state)
    found: dict[str, jax.Array] = {}
    skipping = guard if scaling is None else scaling
    for state, fields in ((scaling, _SCALE), (skipping, _SKIPS), (guard, _GUARD)):
        if state is not None:
            found |= {name: scalar(name, getattr(state, name), dtype) for name, dtype in fields.items()}
    if scaling is not None and guard is not None:
        found |= _skips_of_both(scaling, guard)
    found |= learning_rate_metrics(opt_state, learning_rate)
    return found | record_metrics(opt_state, per_layer)


def _skips_of_both(scaling: LossScaleState, guard: SkipBadStepsState) -> dict[str, jax.Array]:
    """Return the counts of skips, of which the loss scale knows those of a guard that is directly inside it."""
    skipped_steps, consecutive_skips = (
        [scalar(name, getattr(state, name), jnp.int32) for state in (scaling, guard)]
        for name in ("skipped_steps", "consecutive_skips")
    )
    combine = jnp.maximum if scaling.inner_state is guard else jnp.add
    return {"skipped_steps": combine(*skipped_steps), "consecutive_skips": jnp.maximum(*consecutive_skips)}
