"""The layer-wise trust ratio of LARS and LAMB."""

from __future__ import annotations  # so that `help` shows types as they are written

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import Scalar, check_number
from optax_ext._core.field_types import NonNegativeNumber
from optax_ext._core.norms import AxisName, norms
from optax_ext._core.precision import widen
from optax_ext._core.public import public
from optax_ext._core.remat import read_alone
from optax_ext._core.synonyms import suggest_arguments
from optax_ext._core.trees import is_none
from optax_ext.transforms._inexact import for_inexact


@public
@suggest_arguments
def scale_by_trust_ratio(
    trust_coefficient: Scalar = 1.0, *, eps: Scalar = 0.0, axis_name: AxisName | None = None
) -> optax.GradientTransformationExtraArgs:
    """Scale the update of each layer to the size of its parameters.

    Each leaf ``u`` of the updates, with parameter ``p``, becomes

    ```text
    u * trust_coefficient * |p| / (|u| + eps)
    ```

    and stays ``u`` where either norm is zero or NaN, as for biases at zero and zero gradients. Norms are of whole
    leaves and accumulate in at least float32: in float16 a gradient of 256 would overflow and freeze the layer.

    Args:
      trust_coefficient: A factor for the ratio, at least 0.
      eps: Added to the norm of the update, at least 0.
      axis_name: The mesh axis, or axes, over which the leaves are split inside ``shard_map`` or ``pmap``. Norms
        are then taken over all parts. Leave it out under ``jit`` with shardings, where every norm is global. A leaf
        that is replicated on n devices counts n times in both norms: its ratio is the same, but ``eps`` weighs less.

    Returns:
      A stateless transformation that needs ``params``. The update of a leaf has the dtype that update and parameter
      promote to.

    Raises:
      ValueError: If an argument is out of its range, or ``update`` is called without ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax_ext
      >>> tx = optax_ext.scale_by_trust_ratio(trust_coefficient=0.5)
      >>> params, grads = jnp.array([3.0, 4.0]), jnp.array([0.0, 10.0])
      >>> updates, _ = tx.update(grads, tx.init(params), params)
      >>> print(updates)
      [0.  2.5]

    References:
      You et al., LARS, [arXiv:1708.03888](https://arxiv.org/abs/1708.03888), equation 6.
      You et al., LAMB, [arXiv:1904.00962](https://arxiv.org/abs/1904.00962), algorithm 2.

    Differs from Optax:
      ``optax.scale_by_trust_ratio`` computes norms in the dtype of the leaf, and returns NaN where a norm is NaN.
    """
    check_number("trust_coefficient", trust_coefficient, NonNegativeNumber)
    check_number("eps", eps, NonNegativeNumber)
    return scale_updates_by_trust_ratio(trust_coefficient, eps, axis_name)


def scale_updates_by_trust_ratio(
    trust_coefficient: Scalar, eps: Scalar, axis_name: AxisName | None, *, may_overflow: bool = True
) -> optax.GradientTransformationExtraArgs:
    """Scale by the trust ratio; `may_overflow=False` is for updates whose squares are known not to overflow."""

    def scale(update: Any, param: Any) -> Any:
        if update is None:
            return None
        update = read_alone(update)
        if may_overflow:
            update_norm, param_norm = norms([update], [param], axis_name=axis_name)
        else:
            (update_norm,) = norms([update], axis_name=axis_name, may_overflow=False)
            (param_norm,) = norms([param], axis_name=axis_name)
        trusted = (param_norm > 0) & (update_norm > 0)
        # The quotient must be finite even where it is not selected, or the derivative of the selection is not.
        ratio = jnp.where(trusted, trust_coefficient * param_norm / jnp.where(trusted, update_norm + eps, 1), 1)
        wide = widen(update)
        return (wide * ratio.astype(wide.dtype)).astype(jnp.promote_types(update.dtype, param.dtype))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.EmptyState]:
        if params is None:
            raise ValueError("scale_by_trust_ratio needs the parameters: call update(updates, state, params), got None")
        return jax.tree.map(scale, updates, params, is_leaf=is_none), state

    return for_inexact(optax.GradientTransformation(optax.init_empty_state, update_fn))
