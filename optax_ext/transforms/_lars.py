"""LARS: layer-wise adaptive rate scaling."""

from __future__ import annotations  # so that `help` shows types as they are written

import optax
from jax.typing import DTypeLike

from optax_ext._core.arguments import Mask, Scalar, check_flag, check_mask, check_number, check_rate
from optax_ext._core.field_types import Fraction
from optax_ext._core.layers import StackedAxes
from optax_ext._core.norms import AxisName
from optax_ext._core.public import public
from optax_ext._core.synonyms import suggest_arguments
from optax_ext.transforms._chain import chain
from optax_ext.transforms._learning_rate import scale_by_learning_rate
from optax_ext.transforms._momentum import add_momentum
from optax_ext.transforms._separate_norms import add_decay_and_scale
from optax_ext.transforms._trust_ratio import scale_updates_by_trust_ratio
from optax_ext.transforms._weight_decay import add_decayed_weights


@public
@suggest_arguments
def lars(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: Scalar = 0.9,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    trust_coefficient: Scalar = 0.001,
    eps: Scalar = 0.0,
    nesterov: bool = False,
    classic_momentum: bool = True,
    learning_rate_in_momentum: bool = True,
    weight_decay_mask: Mask | None = True,
    trust_ratio_mask: Mask | None = True,
    separate_norms: bool = False,
    min_ratio: Scalar = 0.0,
    max_ratio: Scalar = float("inf"),
    stacked_axes: StackedAxes = None,
    record: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Make the LARS optimizer, for large batches.

    Weight decay comes first. The classic form then scales the gradient before it enters the momentum:

    ```text
    g = g + weight_decay * p
    v = momentum * v + learning_rate * trust(g) * g
    p = p - v
    ```

    With ``learning_rate_in_momentum=False``, as in PyTorch and in the code of BYOL, Barlow Twins and MoCo v3, the rate
    comes after the momentum, which is the same while the rate is constant:

    ```text
    v = momentum * v + trust(g) * g
    p = p - learning_rate * v
    ```

    The popular form scales the momentum itself:

    ```text
    g = g + weight_decay * p
    v = momentum * v + g
    p = p - learning_rate * trust(v) * v
    ```

    ``trust(x)`` is ``trust_coefficient * |p| / (|x| + eps)``, and 1 where either norm is zero or NaN; it is then held
    in [``min_ratio``, ``max_ratio``]. With Nesterov's momentum, the last line of each form uses ``momentum * v + (what
    was just added to v)`` in place of ``v``.

    With ``separate_norms``, the classic form takes the two norms below the line apart, as the paper does. With ``g``
    before weight decay is added:

    ```text
    trust = trust_coefficient * |p| / (|g| + weight_decay * |p| + eps)
    ```

    Args:
      learning_rate: At least 0, or a schedule of the step.
      momentum: In [0, 1].
      weight_decay: At least 0, or a schedule of the step.
      trust_coefficient: At least 0; ``eeta`` in TensorFlow.
      eps: At least 0.
      nesterov: Whether to use Nesterov's momentum.
      classic_momentum: Whether to use the classic form, the paper's, rather than the popular one.
      learning_rate_in_momentum: Whether the classic form sums gradients times their rates, so that after a drop of the
        rate older gradients still count at the old rate; if not, their sum is multiplied by the newest rate. In the
        popular form it always is.
      weight_decay_mask: The parameters that decay: a tree of bool, a prefix of one, or a function from parameters
        to one, such as ``path_mask(exclude=["bias"])``.
      trust_ratio_mask: The parameters whose updates are scaled by the trust ratio, in the same form. Others, and those
        whose norm is 0, move by the learning rate itself, as in SGD: with the default ``trust_coefficient``, some 1000
        times as far.
      separate_norms: Whether the ratio divides by ``|g| + weight_decay * |p| + eps``, as the paper, MLPerf's reference,
        apex and timm do, rather than by the norm of the sum, as TensorFlow does. Only with ``classic_momentum``.
      min_ratio: The smallest ratio, at least 0.
      max_ratio: The largest ratio, positive and at least ``min_ratio``; infinite for no limit.
      stacked_axes: The axes of leaves that count layers, such as ``path_axes({"^blocks/": 0})`` for a scanned model, as
        in [`scale_by_trust_ratio`][optax_ext.scale_by_trust_ratio]. The ranks in masks of ``path_mask`` then count
        without these axes.
      record: Whether the state keeps the ratio and the norm of each layer, for [`metrics`][optax_ext.metrics].
      accumulator_dtype: The dtype of the momentum; None for the dtype of each parameter.
      axis_name: The mesh axis, or axes, over which parameters are split inside ``shard_map``, as in
        [`scale_by_trust_ratio`][optax_ext.scale_by_trust_ratio].

    Returns:
      A transformation that needs ``params``. Its state holds the momentum, as in ``optax.trace``, and the step count
      of each schedule. [`stages_of`][optax_ext.transforms.stages_of] returns its stages by name.

    Raises:
      ValueError: If an argument is out of its range, if ``stacked_axes`` does not fit the parameters, or if ``update``
        is called without ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> tx = optax_ext.lars(0.5, weight_decay=1e-4, weight_decay_mask=optax_ext.path_mask(exclude=["bias"]))
      >>> params = {"kernel": jnp.ones(4), "bias": jnp.zeros(4)}
      >>> grads = {"kernel": jnp.full(4, 2.0), "bias": jnp.full(4, 2.0)}
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> print(optax.apply_updates(params, updates)["kernel"])
      [0.9995 0.9995 0.9995 0.9995]

    References:
      You et al., [arXiv:1708.03888](https://arxiv.org/abs/1708.03888), algorithm 1 and equation 6.

    Differs from TensorFlow:
      Norms accumulate in float32, whatever the dtype of the leaf. Inside loss scaling, a step with a non-finite
      gradient is skipped rather than applied.

    Differs from Optax:
      ``optax.lars`` has only the classic form. A gradient of None raises ValueError there; here its parameter and its
      momentum stay as they are.
    """
    check_rate("learning_rate", learning_rate)
    check_number("momentum", momentum, Fraction)
    check_rate("weight_decay", weight_decay)
    check_flag("nesterov", nesterov)
    check_flag("classic_momentum", classic_momentum)
    check_flag("learning_rate_in_momentum", learning_rate_in_momentum)
    check_flag("separate_norms", separate_norms)
    if separate_norms and not classic_momentum:
        raise ValueError(
            "separate_norms=True needs classic_momentum=True, got classic_momentum=False: the popular form takes the "
            "norm of the momentum, in which gradients and weight decay are no longer apart"
        )
    weight_decay_mask = check_mask("weight_decay_mask", weight_decay_mask, stacked_axes)
    trust_ratio_mask = check_mask("trust_ratio_mask", trust_ratio_mask, stacked_axes)

    add_weight_decay = add_decayed_weights(weight_decay, weight_decay_mask)
    scale_by_trust = scale_updates_by_trust_ratio(
        trust_coefficient,
        eps=eps,
        min_ratio=min_ratio,
        max_ratio=max_ratio,
        stacked_axes=stacked_axes,
        record=record,
        axis_name=axis_name,
    )
    scale_by_rate = scale_by_learning_rate(learning_rate)
    trace = add_momentum(momentum, nesterov=nesterov, accumulator_dtype=accumulator_dtype)
    decay = {"weight decay": add_weight_decay}
    trust = {"trust ratio": optax.masked(scale_by_trust, trust_ratio_mask)}
    if separate_norms:
        decay_and_scale = add_decay_and_scale(weight_decay, weight_decay_mask, scale_by_trust, trust_ratio_mask)
        decay, trust = {"weight decay and trust ratio": decay_and_scale}, {}
    if not classic_momentum:
        return chain({**decay, "momentum": trace, **trust, "learning rate": scale_by_rate})
    if not learning_rate_in_momentum:
        return chain({**decay, **trust, "momentum": trace, "learning rate": scale_by_rate})
    return chain({**decay, **trust, "learning rate": scale_by_rate, "momentum": trace})
