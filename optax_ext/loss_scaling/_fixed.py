"""Fixed loss scaling: a scale that stays."""

from __future__ import annotations  # so that `help` shows types as they are written

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import Scalar, check_number
from optax_ext._core.field_types import PositiveNumber
from optax_ext._core.norms import AxisName
from optax_ext._core.public import public
from optax_ext._core.synonyms import suggest_arguments
from optax_ext.loss_scaling._skip import skip_nonfinite_steps
from optax_ext.loss_scaling._state import LossScaleState


@public
@suggest_arguments
def fixed_loss_scaling(
    inner: optax.GradientTransformation,
    scale: Scalar,
    *,
    skip_nonfinite: bool = True,
    check_updates: bool = False,
    count_skipped_steps: bool = False,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Wrap a transformation so that it takes gradients scaled by a constant.

    This is [`dynamic_loss_scaling`][optax_ext.dynamic_loss_scaling] with a constant scale. Steps with non-finite
    gradients are skipped as well.

    Args:
      inner: What to wrap.
      scale: The scale, positive.
      skip_nonfinite: Whether to skip updates with a non-finite gradient. False applies them, as TensorFlow does.
      check_updates: Whether a step is also skipped if it would make a parameter non-finite in its own dtype.
      count_skipped_steps: Whether a skipped step advances the inner state's scalar integer fields named ``count``.
      axis_name: The mesh axis, or axes, of ``shard_map`` or ``pmap`` whose devices must agree on each skip.

    Returns:
      A transformation whose state is a [`LossScaleState`][optax_ext.LossScaleState]. A state that was restored from
      another loss scaling, fixed or dynamic, takes this scale in the next step.

    Raises:
      ValueError: If the scale is not positive and finite, or, in ``init``, if ``inner`` already scales losses.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> tx = optax_ext.fixed_loss_scaling(optax.sgd(0.5), 128.0)
      >>> params = jnp.array([1.0])
      >>> updates, state = tx.update(jnp.array([256.0]), tx.init(params), params)
      >>> print(updates, state.loss_scale)
      [-1.] 128.0

    Differs from TensorFlow:
      A fixed ``LossScaleOptimizer`` applies NaN and infinity; here only ``skip_nonfinite=False`` does.
    """
    check_number("scale", scale, PositiveNumber)

    def keep(
        state: LossScaleState, finite: jax.Array, consecutive_skips: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        del finite, consecutive_skips
        zero = jnp.zeros_like(jnp.asarray(state.counter))
        return jnp.full_like(jnp.asarray(state.loss_scale), scale, dtype=jnp.float32), zero, zero

    return skip_nonfinite_steps(
        inner,
        scale,
        keep,
        skip_nonfinite=skip_nonfinite,
        check_updates=check_updates,
        count_skipped_steps=count_skipped_steps,
        axis_name=axis_name,
    )
