"""Dynamic loss scaling: a scale that follows what the gradients can bear."""

from __future__ import annotations  # so that `help` shows types as they are written

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import Scalar, check_flag, check_integer, check_number, is_concrete
from optax_ext._core.field_types import FLOAT32_MAX, NumberAboveOne, PositiveInteger, PositiveNumber
from optax_ext._core.norms import AxisName
from optax_ext._core.public import public
from optax_ext._core.steps import true_divide
from optax_ext._core.synonyms import suggest_arguments
from optax_ext.loss_scaling._skip import skip_nonfinite_steps
from optax_ext.loss_scaling._state import LossScaleState


@public
@suggest_arguments
def dynamic_loss_scaling(
    inner: optax.GradientTransformation,
    *,
    initial_scale: Scalar = 2.0**15,
    growth_steps: Scalar = 2000,
    multiplier: Scalar = 2.0,
    min_scale: Scalar = 1.0,
    max_scale: Scalar = FLOAT32_MAX,
    hysteresis: Scalar = 1,
    consecutive_hysteresis: bool = True,
    check_updates: bool = False,
    count_skipped_steps: bool = False,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Wrap a transformation so that it takes scaled gradients, with a loss scale that adapts to them.

    Each update divides the gradients by the scale in float32 and checks whether all of them are finite:

    ```text
    all finite:      apply the inner transformation;
                     after growth_steps such steps in a row, scale = scale * multiplier, up to max_scale
    any non-finite:  the update is zero, the inner state stays bit-identical,
                     and scale = max(scale / multiplier, min_scale)
    ```

    A non-finite gradient is never applied: not after any number of failures, and not at the smallest scale.

    The inner transformation sees float16 and float8 parameters and their gradients in float32, so that gradients which
    scaling kept from underflowing do not underflow again. Its state and updates are then in float32, and
    ``optax.apply_updates`` rounds once. bfloat16 has the range of float32: gradients of bfloat16 parameters are cast to
    bfloat16, and the state stays narrow. With [`master_weights`][optax_ext.master_weights] inside, updates too small
    for either dtype accumulate.

    By default only gradients are checked. ``check_updates`` checks what the inner transformation returns as well.

    Scale the loss with [`value_and_grad`][optax_ext.value_and_grad] or [`scale_loss`][optax_ext.scale_loss].

    Args:
      inner: What to wrap: an optimizer, a chain, ``optax.MultiSteps(...).gradient_transformation()``.
      initial_scale: The first scale, in [``min_scale``, ``max_scale``].
      growth_steps: How many finite steps in a row make the scale grow, at least 1.
      multiplier: The factor by which the scale grows and shrinks, more than 1.
      min_scale: The smallest scale, positive.
      max_scale: The largest scale, positive; may be infinite. A restored scale outside of both limits is moved into
        them in the next step.
      hysteresis: From which skip on the scale shrinks, at least 1. With 2, a single bad batch is skipped but leaves the
        scale unchanged.
      consecutive_hysteresis: Whether only consecutive skips count towards ``hysteresis``, so that a finite step resets
        the count. If False, all skips count since ``growth_steps`` finite steps in a row were last reached, so that a
        scale too large for every second batch still shrinks; DeepSpeed has both modes.
      check_updates: Whether a step is also skipped if it would make a parameter non-finite in its own dtype. Finite
        parameters then stay finite permanently. This costs a pass over the updates, and memory for the states before
        and after the step, as benchmarks/RESULTS.md shows.
      count_skipped_steps: Whether a skipped step still advances the inner state's scalar integer fields named
        ``count``, as TensorFlow's ``iterations`` advances, so that schedules go on. Nothing else moves.
      axis_name: The mesh axis, or axes, of ``shard_map`` or ``pmap`` whose devices must agree on each skip. Leave it
        out under ``jit`` with shardings, where the check is global.

    Returns:
      A transformation whose state is a [`LossScaleState`][optax_ext.LossScaleState]. It passes ``params`` and all extra
      arguments to ``inner``. Integer parameters and keys have an update of zero.

    Raises:
      ValueError: If an argument is out of its range; in ``init``, if ``inner`` already scales losses; in ``update``, if
        the state of ``inner`` changes its structure, as the state of ``optax.monitor`` does.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> tx = optax_ext.dynamic_loss_scaling(optax.sgd(0.5), initial_scale=8.0)
      >>> params = jnp.array([1.0])
      >>> state = tx.init(params)
      >>> loss, grads = optax_ext.value_and_grad(lambda p: jnp.sum(p**2), state)(params)
      >>> print(loss, grads)
      1.0 [16.]
      >>> updates, state = tx.update(grads, state, params)
      >>> print(updates, state.loss_scale)
      [-1.] 8.0
      >>> updates, state = tx.update(jnp.array([jnp.inf]), state, params)
      >>> print(updates, state.loss_scale, state.skipped_steps)
      [0.] 4.0 1

    Note:
      Frozen parameters: put this around ``optax.partition({"train": tx, "frozen": optax.set_to_zero()}, labels)``.
      Gradients that the inner transformation never reads, such as those of ``set_to_zero``, need not be finite. An
      accumulator reads all of them, so put ``optax.MultiSteps`` around the group that trains, inside ``partition``.

      float8 parameters: JAX adds no float8 to the float32 of an update, so apply it with
      ``jax.tree.map(lambda p, u: (p.astype(u.dtype) + u).astype(p.dtype), params, updates)`` instead of
      ``optax.apply_updates``. ``eqx.apply_updates`` of Equinox does not cast back at all, and makes float16 parameters
      float32: use ``optax.apply_updates`` on the arrays that ``eqx.filter`` gives, and ``eqx.combine``.

      Keys: Optax's own optimizers fail on typed random keys among the parameters. Keep keys elsewhere.

      Gradient accumulation: put loss scaling around ``optax.MultiSteps``. Each micro-batch is then unscaled and checked
      separately, a bad one is left out, and ``growth_steps`` counts micro-batches. Inside ``MultiSteps``, the
      accumulator would add up scaled gradients and keep a NaN permanently: no parameter would move again, and the scale
      would fall to ``min_scale``. There, ``should_skip_update_fn=optax.skip_not_finite`` keeps the accumulator finite,
      but hides every overflow from the scale, which then never shrinks, and does not support ``axis_name``.

      ``jax_debug_nans``: a compiled step that skips does not raise, since its outputs are finite, unless it returns the
      loss or the gradients: return ``jnp.where(state.grads_finite, loss, -1)``. A step that is not compiled raises at
      the first operation with a non-finite result.

      ``optax.inject_hyperparams(dynamic_loss_scaling)`` works. With float16 parameters pass
      ``hyperparam_dtype=jnp.float32``, since a scale of 65536 is infinite in float16.

    References:
      Micikevicius et al., Mixed precision training, [arXiv:1710.03740](https://arxiv.org/abs/1710.03740),
      section 3.2.

    Differs from TensorFlow:
      Gradients are unscaled in float32, not in their own dtype. A skipped step does not advance the step count unless
      ``count_skipped_steps`` is set. ``min_scale``, ``max_scale`` and ``hysteresis`` are new, and scales that are zero,
      negative or NaN are errors.
    """
    growth_steps = check_integer("growth_steps", growth_steps, PositiveInteger)
    check_number("multiplier", multiplier, NumberAboveOne)
    check_number("min_scale", min_scale, PositiveNumber)
    check_number("max_scale", max_scale, PositiveNumber, or_infinite=True)
    hysteresis = check_integer("hysteresis", hysteresis, PositiveInteger)
    check_flag("consecutive_hysteresis", consecutive_hysteresis)
    check_number("initial_scale", initial_scale, PositiveNumber)
    if is_concrete(initial_scale, min_scale, max_scale) and not min_scale <= initial_scale <= max_scale:
        raise ValueError(
            f"initial_scale must be in [min_scale, max_scale] = [{min_scale}, {max_scale}], got {initial_scale!r}"
        )

    def adapt(
        state: LossScaleState, finite: jax.Array, consecutive_skips: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        scale = jnp.asarray(state.loss_scale, jnp.float32)
        factor, smallest, largest = (jnp.asarray(x, scale.dtype) for x in (multiplier, min_scale, max_scale))
        counter = jnp.where(finite, optax.safe_increment(jnp.asarray(state.counter)), 0)
        full = counter >= growth_steps
        skips = jnp.asarray(state.skips_since_growth)
        skips_since_growth = jnp.where(full, 0, jnp.where(finite, skips, optax.safe_increment(skips)))
        grown = scale * factor
        grown = jnp.where(jnp.isfinite(grown) & (grown <= largest), grown, scale)
        patience_ends = (consecutive_skips if consecutive_hysteresis else skips_since_growth) >= hysteresis
        shrunk = jnp.where(patience_ends, true_divide(scale, factor), scale)
        scale = jnp.where(finite, jnp.where(full, grown, scale), shrunk)
        # A restored scale of NaN or infinity is replaced by the smallest scale, from which every run can recover.
        scale = jnp.minimum(jnp.where(jnp.isfinite(scale) & (scale > smallest), scale, smallest), largest)
        return scale, jnp.where(full, 0, counter), skips_since_growth

    return skip_nonfinite_steps(
        inner,
        initial_scale,
        adapt,
        check_updates=check_updates,
        count_skipped_steps=count_skipped_steps,
        axis_name=axis_name,
    )
