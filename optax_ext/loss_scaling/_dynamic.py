"""Dynamic loss scaling: a scale that follows what the gradients can bear."""

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
    r"""Wrap a transformation so that it takes scaled gradients, with a scale that follows what they can bear.

    Each update divides the gradients by the scale $s$ in float32 and looks whether all are finite. If they are, the
    inner transformation is applied, and after ``growth_steps`` such steps in a row
    $s \leftarrow s \cdot \mathrm{multiplier}$, unless that is more than ``max_scale`` or overflows. If not, the update
    is zero, the inner state stays bit by bit as it was, and
    $s \leftarrow \max(s / \mathrm{multiplier}, \mathrm{min\_scale})$. A non-finite gradient is never applied: not after
    any number of failures, and not at the smallest scale.

    The inner transformation sees float16 and float8 parameters and their gradients in float32, so that what scaling
    saved is not lost again; its state and its updates are then in float32, and ``optax.apply_updates`` rounds once.
    bfloat16 has the range of float32: gradients of bfloat16 parameters are cast to it, and the state stays narrow. With
    [`master_weights`][optax_ext.master_weights] inside, small updates count in either.

    Gradients are what is checked. What the inner transformation makes of finite ones is its own, unless
    ``check_updates`` looks at that too.

    Scale the loss with [`value_and_grad`][optax_ext.value_and_grad] or [`scale_loss`][optax_ext.scale_loss].

    Args:
      inner: What to wrap: an optimizer, a chain, ``optax.MultiSteps(...).gradient_transformation()``.
      initial_scale: The first scale, in [``min_scale``, ``max_scale``].
      growth_steps: Finite steps in a row after which the scale grows, at least 1.
      multiplier: The factor by which the scale grows and shrinks, more than 1.
      min_scale: The smallest scale, more than 0.
      max_scale: The largest scale, more than 0; may be infinite. A scale that was restored from elsewhere is held in
        both limits from the next step on.
      hysteresis: Skips from which on the scale shrinks, at least 1. With 2, a single bad batch is skipped but leaves
        the scale alone.
      consecutive_hysteresis: Whether a finite step forgives the skips before it, so that only skips in a row count
        towards ``hysteresis``. If not, all count since ``growth_steps`` finite steps in a row were last reached, so
        that a scale too large for every second batch comes down; the other mode of DeepSpeed.
      check_updates: Whether a step is also skipped if a parameter would not be finite after it, in its own dtype. Then
        no parameter that is finite ever becomes anything else. It costs a pass over the updates, and memory for the
        states before and after the step, as benchmarks/RESULTS.md shows.
      count_skipped_steps: Whether a skipped step still advances the inner state's scalar integer fields named
        ``count``, as TensorFlow's ``iterations`` advances, so that schedules go on. Nothing else moves.
      axis_name: The mesh axis, or axes, of ``shard_map`` or ``pmap`` whose devices must agree on each skip. Not for
        ``jit`` with shardings, where the check is global by itself.

    Returns:
      A transformation whose state is a [`LossScaleState`][optax_ext.LossScaleState]. It gives the inner one
      ``params`` and all extra arguments. Integer parameters and keys have an update of zero.

    Raises:
      ValueError: If an argument is out of its range; in ``init``, if ``inner`` scales losses already; in ``update``, if
        the state of ``inner`` changes its structure, as that of ``optax.monitor`` does.

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
      Gradients that the inner transformation never reads, as ``set_to_zero`` reads none, need not be finite. An
      accumulator reads all of them, so ``optax.MultiSteps`` belongs around the group that trains, inside ``partition``.

      float8 parameters: JAX adds no float8 to the float32 of an update, so apply it with
      ``jax.tree.map(lambda p, u: (p.astype(u.dtype) + u).astype(p.dtype), params, updates)`` instead of
      ``optax.apply_updates``. ``eqx.apply_updates`` of Equinox does not cast back at all, and makes float16 parameters
      float32: use ``optax.apply_updates`` on the arrays that ``eqx.filter`` gives, and ``eqx.combine``.

      Keys: Optax's own optimizers cannot compute with typed random keys among the parameters. Keep them elsewhere.

      Around ``optax.MultiSteps``, each micro-batch is unscaled and checked by itself, and a bad one is left out: use
      this order. ``growth_steps`` then counts micro-batches. Inside it, the accumulator adds up scaled gradients, and
      one NaN stays in it for ever: nothing moves any more, and the scale sinks to ``min_scale``. There
      ``should_skip_update_fn=optax.skip_not_finite`` keeps the accumulator clean, but hides every overflow from the
      scale, which then never shrinks, and it knows no ``axis_name``.

      Under ``jax_debug_nans``, a compiled step that skips does not raise, since what it returns is finite, unless it
      returns the loss or the gradients: give ``jnp.where(state.grads_finite, loss, -1)``. A step that is not compiled
      raises at the first operation that meets what is not finite.

      ``optax.inject_hyperparams(dynamic_loss_scaling)`` works; give it ``hyperparam_dtype=jnp.float32`` with
      parameters in float16, in which a scale of 65536 is infinite.

    References:
      Micikevicius et al., Mixed precision training, [arXiv:1710.03740](https://arxiv.org/abs/1710.03740),
      section 3.2.

    Differs from TensorFlow:
      Gradients are unscaled in float32, not in their own dtype. The step count does not advance on a skip
      unless asked to. ``min_scale``, ``max_scale`` and ``hysteresis`` are new, and scales that are zero, negative
      or NaN are errors.
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
        # A NaN or an infinity that was restored is no scale, and the smallest is one that every run can start from.
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
