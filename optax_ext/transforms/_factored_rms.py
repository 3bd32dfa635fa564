"""The scaling of Adafactor, as Keras computes it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.layers import Layers, StackedAxes, check_stacked_axes, layers_of
from optax_ext._core.norms import root
from optax_ext._core.public import public
from optax_ext.transforms._float32 import in_float32
from optax_ext.transforms._moments import average, clip_to_finite, divide, square


@public
def scale_by_factored_rms(
    decay_exponent: float, eps: float, *, stacked_axes: StackedAxes = None
) -> optax.GradientTransformation:
    """Scale gradients by the root of their mean square, of which matrices keep the means of rows and columns only.

    ```text
    b = 1 - t**decay_exponent
    r = b * r + (1 - b) * mean of g**2 + eps over each row
    c = b * c + (1 - b) * mean of g**2 + eps over each column
    v = r * c / mean(r)                                   of a matrix
    v = b * v + (1 - b) * (g**2 + eps)                    of anything with fewer axes
    u = g / sqrt(v)
    ```

    A layer with more than two axes is a stack of matrices, which its last two axes make.

    Args:
      decay_exponent: Negative; the decay ``b`` of the step ``t = 1, 2, ...`` is ``1 - t**decay_exponent``.
      eps: Positive, and far smaller than any square of a gradient that counts.
      stacked_axes: The axes of leaves that count layers, as in
        [`scale_by_trust_ratio`][optax_ext.scale_by_trust_ratio]: matrices are made of the other axes.

    Returns:
      A transformation with the state of ``optax.scale_by_factored_rms``, in at least float32 and in real numbers.

    Raises:
      ValueError: If ``stacked_axes`` does not fit the parameters.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.scale_by_factored_rms(-0.8, 1e-30)
      >>> grads = jnp.array([[1.0, 2.0], [2.0, 4.0]])
      >>> updates, state = tx.update(grads, tx.init(grads))
      >>> print(updates)
      [[1. 1.]
       [1. 1.]]
      >>> print(state.v_row, state.v_col)
      [ 2.5 10. ] [ 2.5 10. ]

    References:
      Shazeer and Stern, [arXiv:1804.04235](https://arxiv.org/abs/1804.04235), algorithms 1 to 4.

    Differs from Optax:
      ``optax.scale_by_factored_rms`` factors the two largest axes, and by default only if both are at least 128. Here
      strict promotion is supported, and gradients of any size leave the state finite.
    """
    check_stacked_axes("stacked_axes", stacked_axes)

    def init_fn(params: optax.Params) -> optax.FactoredState:
        def zeros(field: str) -> Any:
            def of_one(param: Any, layers: Layers) -> jax.Array:
                axes = _factored_axes(layers, param.ndim)
                if (axes is None) != (field == "v"):
                    return jnp.zeros((1,), _real(param.dtype))  # Optax's mark for a field that is not used
                whole = jnp.zeros_like(param, dtype=_real(param.dtype))
                if axes is None:
                    return whole
                # A sum, so that what is left of a leaf on several devices has its zeros there.
                return jnp.sum(whole, axis=axes[1] if field == "v_row" else axes[0])

            return jax.tree.map(of_one, params, layers_of(stacked_axes, params))

        return optax.FactoredState(jnp.zeros([], jnp.int32), zeros("v_row"), zeros("v_col"), zeros("v"))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        count = jnp.asarray(optax.safe_increment(state.count))
        decay = 1 - count.astype(jnp.result_type(float)) ** decay_exponent

        def scale(update: jax.Array, v_row: jax.Array, v_col: jax.Array, v: jax.Array, layers: Layers) -> _Scaled:
            squared = clip_to_finite(square(update).real + eps)
            axes = _factored_axes(layers, update.ndim)
            if axes is None:
                v = average(v, squared, decay)
                return _Scaled(divide(update, root(v), 0), v_row, v_col, v)
            row, column = axes  # the axis that counts rows, and the one that counts columns
            v_row = average(v_row, _mean(squared, column), decay)
            v_col = average(v_col, _mean(squared, row), decay)
            rows, columns = jnp.expand_dims(v_row, column), jnp.expand_dims(v_col, row)
            # Roots of each: what is under them, multiplied or squared as in a derivative, may overflow or be 0.
            share = root(rows) / root(jnp.expand_dims(_mean(rows, row), row))
            return _Scaled(divide(update, share * root(columns), 0), v_row, v_col, v)

        results = jax.tree.map(scale, updates, state.v_row, state.v_col, state.v, layers_of(stacked_axes, updates))

        def collect(field: str) -> Any:
            return jax.tree.map(lambda result: getattr(result, field), results, is_leaf=_is_scaled)

        return collect("update"), optax.FactoredState(count, *map(collect, ("v_row", "v_col", "v")))

    return in_float32(optax.GradientTransformation(init_fn, update_fn))


class _Scaled(NamedTuple):
    update: jax.Array
    v_row: jax.Array
    v_col: jax.Array
    v: jax.Array


def _is_scaled(node: object) -> bool:
    return isinstance(node, _Scaled)


def _mean(x: jax.Array, axis: int) -> jax.Array:
    """Return a mean that is finite, and so small that its reciprocal, by which XLA may multiply, is not 0."""
    mean = jnp.mean(x, axis=axis) if x.shape[axis] else jnp.sum(x, axis=axis)  # of nothing, 0 rather than NaN
    return jnp.minimum(mean, float(jnp.finfo(x.dtype).max) / 8)


def _factored_axes(layers: Layers, ndim: int) -> tuple[int, int] | None:
    """Return the last two axes of a layer; None for a layer that has no two."""
    axes = layers.reduced(ndim)
    return (axes[-2], axes[-1]) if len(axes) > 1 else None


def _real(dtype: Any) -> Any:
    return jnp.finfo(dtype).dtype  # of a complex dtype, that of its parts
