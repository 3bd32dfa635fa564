"""LAMB: Adam with a layer-wise trust ratio."""

from __future__ import annotations  # so that `help` shows types as they are written

import optax
from jax.typing import DTypeLike

from optax_ext._core.arguments import Mask, Scalar, check_mask, check_number, check_rate
from optax_ext._core.field_types import FractionBelowOne, NonNegativeNumber
from optax_ext._core.layers import StackedAxes
from optax_ext._core.norms import AxisName
from optax_ext._core.public import public
from optax_ext._core.synonyms import suggest_arguments
from optax_ext.transforms._adam import scale_by_adam
from optax_ext.transforms._chain import chain
from optax_ext.transforms._learning_rate import scale_by_learning_rate
from optax_ext.transforms._trust_ratio import scale_updates_by_trust_ratio
from optax_ext.transforms._weight_decay import add_decayed_weights


@public
@suggest_arguments
def lamb(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = True,
    trust_ratio_mask: Mask | None = True,
    min_ratio: Scalar = 0.0,
    max_ratio: Scalar = float("inf"),
    stacked_axes: StackedAxes = None,
    record: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Make the LAMB optimizer, for large batches of attention models.

    ```text
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    u = (m / (1 - b1**t)) / (sqrt(v / (1 - b2**t)) + eps) + weight_decay * p
    p = p - learning_rate * (|p| / |u|) * u
    ```

    The ratio of the norms is 1 where either norm is zero or NaN, and is then held in [``min_ratio``, ``max_ratio``].

    Args:
      learning_rate: At least 0, or a schedule of the step.
      b1: The decay of the first moment, in [0, 1).
      b2: The decay of the second moment, in [0, 1).
      eps: At least 0.
      weight_decay: At least 0, or a schedule of the step.
      weight_decay_mask: The parameters that decay: a tree of bool, a prefix of one, or a function from parameters
        to one, such as ``path_mask(exclude=["bias"])``.
      trust_ratio_mask: The parameters whose updates are scaled by the trust ratio, in the same form.
      min_ratio: The smallest ratio, at least 0.
      max_ratio: The largest ratio, positive and at least ``min_ratio``; infinite for no limit, and 10 in many recipes.
      stacked_axes: The axes of leaves that count layers, such as ``path_axes({"^blocks/": 0})`` for a scanned model, as
        in [`scale_by_trust_ratio`][optax_ext.scale_by_trust_ratio]. The ranks in masks of ``path_mask`` then count
        without these axes.
      record: Whether the state keeps the ratio and the norm of each layer, for [`metrics`][optax_ext.metrics].
      accumulator_dtype: The dtype of the first moment; None for that of each parameter, but at least float32.
      axis_name: The mesh axis, or axes, over which parameters are split inside ``shard_map``, as in
        [`scale_by_trust_ratio`][optax_ext.scale_by_trust_ratio].

    Returns:
      A transformation that needs ``params``. Its state holds the moments, as in ``optax.scale_by_adam`` but in at least
      float32, and the step count of each schedule. [`stages_of`][optax_ext.transforms.stages_of] returns its stages by
      name.

    Raises:
      ValueError: If an argument is out of its range, if ``stacked_axes`` does not fit the parameters, or if ``update``
        is called without ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> tx = optax_ext.lamb(0.01)
      >>> params, grads = jnp.ones(4), jnp.full(4, 2.0)
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> print(optax.apply_updates(params, updates))
      [0.99 0.99 0.99 0.99]

    References:
      You et al., [arXiv:1904.00962](https://arxiv.org/abs/1904.00962), algorithm 2.

    Differs from Optax:
      ``optax.lamb`` has a mask for weight decay but none for the trust ratio, and computes norms and moments in the
      dtype of the leaf. It fails where a gradient is None.
    """
    check_rate("learning_rate", learning_rate)
    check_number("b1", b1, FractionBelowOne)
    check_number("b2", b2, FractionBelowOne)
    check_number("eps", eps, NonNegativeNumber)
    check_rate("weight_decay", weight_decay)
    weight_decay_mask = check_mask("weight_decay_mask", weight_decay_mask, stacked_axes)
    trust_ratio_mask = check_mask("trust_ratio_mask", trust_ratio_mask, stacked_axes)
    scale_by_trust = scale_updates_by_trust_ratio(
        1.0,
        eps=0.0,
        min_ratio=min_ratio,
        max_ratio=max_ratio,
        stacked_axes=stacked_axes,
        record=record,
        axis_name=axis_name,
        may_overflow=False,  # what Adam makes of gradients of any size is not large, nor is what decays of parameters
    )
    return chain(
        {
            "moments": scale_by_adam(b1, b2, eps, epsilon_hat=False, mu_dtype=accumulator_dtype),
            "weight decay": add_decayed_weights(weight_decay, weight_decay_mask),
            "trust ratio": optax.masked(scale_by_trust, trust_ratio_mask),
            "learning rate": scale_by_learning_rate(learning_rate),
        }
    )
