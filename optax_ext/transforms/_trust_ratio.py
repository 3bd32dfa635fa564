"""The layer-wise trust ratio of LARS and LAMB."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import Scalar, check_flag, check_number, is_concrete
from optax_ext._core.field_types import NonNegativeNumber, PositiveNumber
from optax_ext._core.layers import Layers, StackedAxes, check_stacked_axes, layers_of
from optax_ext._core.norms import AxisName, norms
from optax_ext._core.precision import keep_without_gradient, widen
from optax_ext._core.public import public
from optax_ext._core.remat import read_alone
from optax_ext._core.synonyms import suggest_arguments
from optax_ext._core.trees import PyTree, is_none
from optax_ext.transforms._inexact import for_inexact


@public
class TrustRatioState(NamedTuple):
    """What `scale_by_trust_ratio` with ``record=True`` keeps of the last step, in the structure of the parameters.

    Each leaf is a float32 scalar, or for stacked layers an array with one number a layer; 0 before the first step.

    Attributes:
      trust_ratio: The factor by which the update of each layer was multiplied.
      update_norm: The norm of the update of each layer before it was multiplied; with ``separate_norms`` of
        [`lars`][optax_ext.lars], the sum of norms that takes its place.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax_ext
      >>> tx = optax_ext.scale_by_trust_ratio(record=True)
      >>> params, grads = jnp.array([3.0, 4.0]), jnp.array([0.0, 10.0])
      >>> _, state = tx.update(grads, tx.init(params), params)
      >>> print(state.trust_ratio, state.update_norm)
      0.5 10.0
    """

    trust_ratio: PyTree
    update_norm: PyTree


@public
@suggest_arguments
def scale_by_trust_ratio(
    trust_coefficient: Scalar = 1.0,
    *,
    eps: Scalar = 0.0,
    min_ratio: Scalar = 0.0,
    max_ratio: Scalar = float("inf"),
    stacked_axes: StackedAxes = None,
    record: bool = False,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Scale the update of each layer to the size of its parameters.

    Each leaf ``u`` of the updates, with parameter ``p``, becomes

    ```text
    u * trust(u),  trust(u) = trust_coefficient * |p| / (|u| + eps)
    ```

    ``trust(u)`` is 1 where either norm is zero or NaN, as for biases at zero and zero gradients, and is then held in
    [``min_ratio``, ``max_ratio``]. Norms are of whole leaves, unless ``stacked_axes`` says that a leaf holds several
    layers, and accumulate in at least float32: in float16 a gradient of 256 would overflow and freeze the layer.

    Args:
      trust_coefficient: A factor for the ratio, at least 0.
      eps: Added to the norm of the update, at least 0.
      min_ratio: The smallest ratio, at least 0.
      max_ratio: The largest ratio, positive and at least ``min_ratio``; infinite for no limit.
      stacked_axes: The axes of leaves that count layers, as scanned models store them: an axis, a tuple of axes, or
        None for none; for leaves that differ, a tree of these, a prefix of one, or a function from parameters to one,
        such as ``path_axes({"^blocks/": 0})``. Each entry along them has norms and a ratio of its own, so that a
        scanned model takes the same steps as its unrolled twin. A tuple of integers always means axes: for parameters
        in a tuple, give a function or one-tuples.
      record: Whether the state keeps the ratios and norms of the last step, for [`metrics`][optax_ext.metrics].
      axis_name: The mesh axis, or axes, over which layers are split inside ``shard_map`` or ``pmap``. Norms are then
        taken over all parts. Leave it out under ``jit`` with shardings, where every norm is global, and for leaves that
        are split along a stacked axis only, so that each device has whole layers; with leaves of both kinds, use
        ``optax.partition`` with a transformation for each. A leaf that is replicated on n devices counts n times in
        both norms: its ratio is the same, but ``eps`` weighs less.

    Returns:
      A transformation that needs ``params``. Its state is a
      [`TrustRatioState`][optax_ext.transforms.TrustRatioState] with ``record``, else empty. The update of a leaf has
      the dtype that update and parameter promote to.

    Raises:
      ValueError: If an argument is out of its range; if ``stacked_axes`` does not fit the parameters; or if ``update``
        is called without ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax_ext
      >>> tx = optax_ext.scale_by_trust_ratio(trust_coefficient=0.5)
      >>> params, grads = jnp.array([3.0, 4.0]), jnp.array([0.0, 10.0])
      >>> updates, _ = tx.update(grads, tx.init(params), params)
      >>> print(updates)
      [0.  2.5]

      Two layers in one leaf:

      >>> tx = optax_ext.scale_by_trust_ratio(stacked_axes=0)
      >>> params, grads = jnp.array([[1.0, 1.0], [10.0, 10.0]]), jnp.ones((2, 2))
      >>> updates, _ = tx.update(grads, tx.init(params), params)
      >>> print(updates)
      [[ 1.  1.]
       [10. 10.]]

      The clipped ratio of LARC is ``min(trust(u), rate) / rate``, for a rate that is not 0:

      >>> rate = 0.1
      >>> larc = optax_ext.scale_by_trust_ratio(0.001 / rate, max_ratio=1.0)

    References:
      You et al., LARS, [arXiv:1708.03888](https://arxiv.org/abs/1708.03888), equation 6.
      You et al., LAMB, [arXiv:1904.00962](https://arxiv.org/abs/1904.00962), algorithm 2.

    Differs from Optax:
      ``optax.scale_by_trust_ratio`` computes norms in the dtype of the leaf, and returns NaN where a norm is NaN.
    """
    scale = scale_updates_by_trust_ratio(
        trust_coefficient,
        eps=eps,
        min_ratio=min_ratio,
        max_ratio=max_ratio,
        stacked_axes=stacked_axes,
        record=record,
        axis_name=axis_name,
    )
    return for_inexact(scale)


def scale_updates_by_trust_ratio(
    trust_coefficient: Scalar,
    *,
    eps: Scalar,
    min_ratio: Scalar,
    max_ratio: Scalar,
    stacked_axes: StackedAxes,
    record: bool,
    axis_name: AxisName | None,
    may_overflow: bool = True,
) -> optax.GradientTransformation:
    """Scale by the trust ratio; `may_overflow=False` is for updates whose squares are known not to overflow.

    Its `update` may also be given, as `gradients` and `decay_rates`, the updates before weight decay was added and the
    rate of each: the sum of the norms of gradient and decay then takes the place of the norm of their sum.
    """
    check_number("trust_coefficient", trust_coefficient, NonNegativeNumber)
    check_number("eps", eps, NonNegativeNumber)
    check_number("min_ratio", min_ratio, NonNegativeNumber)
    check_number("max_ratio", max_ratio, PositiveNumber, or_infinite=True)
    if is_concrete(min_ratio, max_ratio) and min_ratio > max_ratio:
        raise ValueError(f"min_ratio must be at most max_ratio = {max_ratio}, got {min_ratio}")
    check_stacked_axes("stacked_axes", stacked_axes)
    check_flag("record", record)

    def scale(update: Any, param: Any, layers: Layers, gradient: Any = None, decay_rate: Any = None) -> Any:
        if update is None:
            return None
        update = read_alone(update)
        measured = update if gradient is None else gradient
        if may_overflow:
            update_norm, param_norm = norms([measured], [param], axis_name=axis_name, layers=layers)
        else:
            (update_norm,) = norms([measured], axis_name=axis_name, may_overflow=False, layers=layers)
            (param_norm,) = norms([param], axis_name=axis_name, layers=layers)
        trusted = (param_norm > 0) & (update_norm > 0)
        if decay_rate is not None:
            update_norm = update_norm + jnp.asarray(decay_rate, param_norm.dtype) * param_norm
        # The quotient must be finite even where it is not selected, or the derivative of the selection is not.
        ratio = jnp.where(trusted, trust_coefficient * param_norm / jnp.where(trusted, update_norm + eps, 1), 1)
        if not is_concrete(min_ratio) or min_ratio > 0:
            ratio = jnp.maximum(ratio, jnp.asarray(min_ratio, ratio.dtype))
        if not is_concrete(max_ratio) or max_ratio < float("inf"):
            ratio = jnp.minimum(ratio, jnp.asarray(max_ratio, ratio.dtype))
        wide = widen(update)
        scaled = (wide * ratio.astype(wide.dtype)).astype(jnp.promote_types(update.dtype, param.dtype))
        if not record:
            return _Scaled(scaled)
        return _Scaled(scaled, _per_layer(ratio, param, layers), _per_layer(update_norm, param, layers))

    def init_fn(params: optax.Params) -> optax.OptState:
        layers = layers_of(stacked_axes, params)  # also to find what does not fit
        if not record:
            return optax.EmptyState()

        def zeros(param: Any, layers: Layers) -> jax.Array:
            # A sum, and not zeros of its shape, so that layers on several devices have their zeros there.
            return jnp.sum(jnp.zeros_like(param, dtype=jnp.float32), axis=layers.reduced(param.ndim))

        return TrustRatioState(jax.tree.map(zeros, params, layers), jax.tree.map(zeros, params, layers))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        gradients: optax.Updates | None = None,
        decay_rates: Any = None,
    ) -> tuple[optax.Updates, optax.OptState]:
        if params is None:
            raise ValueError("scale_by_trust_ratio needs the parameters: call update(updates, state, params), got None")
        layers = layers_of(stacked_axes, params)
        separate = () if gradients is None else (gradients, decay_rates)
        results = jax.tree.map(scale, updates, params, layers, *separate, is_leaf=is_none)

        def collect(field: str) -> Any:
            return jax.tree.map(lambda result: getattr(result, field), results, is_leaf=_is_scaled)

        if record:
            recorded = TrustRatioState(collect("trust_ratio"), collect("update_norm"))
            state = keep_without_gradient(recorded, state)
        return collect("update"), state

    return optax.GradientTransformation(init_fn, update_fn)


class _Scaled(NamedTuple):
    update: jax.Array
    trust_ratio: jax.Array | None = None
    update_norm: jax.Array | None = None


def _is_scaled(node: object) -> bool:
    return isinstance(node, _Scaled)


def _per_layer(norm: jax.Array, param: Any, layers: Layers) -> jax.Array:
    """Return what was computed for each layer without the axes of size 1, in the dtype of the record."""
    return norm.reshape(layers.shape(param)).astype(jnp.float32)
