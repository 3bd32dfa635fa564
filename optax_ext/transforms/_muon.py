"""Muon: the momentum of a matrix, made nearly orthogonal."""

from __future__ import annotations  # so that `help` shows types as they are written

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from optax_ext._core.layers import Layers, StackedAxes, check_stacked_axes, layers_of
from optax_ext._core.norms import norms
from optax_ext._core.public import public
from optax_ext._core.trees import join_path
from optax_ext.transforms._float32 import in_float32

_EPSILON = 1e-7  # beside the norm, as in Keras


@public
def scale_by_muon(
    momentum: float,
    *,
    nesterov: bool = True,
    ns_coefficients: Sequence[float] = (3.4445, -4.775, 2.0315),
    ns_steps: int = 5,
    rms_rate: float | None = 0.2,
    stacked_axes: StackedAxes = None,
) -> optax.GradientTransformation:
    """Replace the gradient of each matrix by its momentum with singular values of about 1.

    ```text
    v = momentum * v + g
    x = v, or with Nesterov's momentum: momentum * v + g
    x = x / (|x| + 1e-7)                            its norm is that of all entries
    x = a x + (b x xᵀ + c (x xᵀ)²) x                ns_steps times: Newton and Schulz
    u = rms_rate * sqrt(max(rows, columns)) * x
    ```

    Products of matrices have the precision that ``jax.default_matmul_precision`` says.

    Args:
      momentum: In [0, 1].
      nesterov: Whether to use Nesterov's momentum.
      ns_coefficients: The three coefficients ``a``, ``b`` and ``c``.
      ns_steps: How many times to iterate, at least 0.
      rms_rate: About the root mean square of what is returned; None to return ``x`` as it is.
      stacked_axes: The axes of leaves that count layers, as in
        [`scale_by_trust_ratio`][optax_ext.scale_by_trust_ratio]: each layer is a matrix.

    Returns:
      A transformation for leaves whose layers are matrices, in at least float32; leave others out with
      ``optax.masked``. Its state is an ``optax.TraceState``.

    Raises:
      ValueError: If a parameter is no matrix, or if ``stacked_axes`` does not fit the parameters.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.scale_by_muon(0.95, rms_rate=None)
      >>> grads = jnp.array([[0.0, 30.0], [-10.0, 0.0]])
      >>> updates, state = tx.update(grads, tx.init(grads))
      >>> print(jnp.round(updates, 2))
      [[ 0.    0.75]
       [-1.13  0.  ]]

    References:
      Jordan et al., [Muon](https://kellerjordan.github.io/posts/muon/), 2024.
      Liu et al., [arXiv:2502.16982](https://arxiv.org/abs/2502.16982), section 2.2, for ``rms_rate``.

    Differs from Optax:
      ``optax.contrib.scale_by_muon`` corrects the bias of its moving average, and with Nesterov's momentum that of
      the gradient by itself, which weighs the two differently in the first steps. Here the norm does not overflow where
      the squares do, and the derivative is finite at a gradient of zero.
    """
    check_stacked_axes("stacked_axes", stacked_axes)
    trace = optax.trace(momentum, nesterov=nesterov)

    def init_fn(params: optax.Params) -> optax.OptState:
        paths = jax.tree_util.tree_leaves_with_path(params)
        for (path, param), layers in zip(paths, _layer_leaves(stacked_axes, params), strict=True):
            if len(layers.reduced(param.ndim)) != 2:
                of_one = f", of which {len(layers.axes)} count layers" if layers.axes else ""
                raise ValueError(
                    f"scale_by_muon takes matrices: the parameter {join_path(path)!r} must have 2 axes, got the shape "
                    f"{param.shape}{of_one}; leave it out with optax.masked"
                )
        return optax.TraceState(jax.tree.map(jnp.zeros_like, params))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        updates, state = trace.update(updates, state)

        def scale(update: jax.Array, layers: Layers) -> jax.Array:
            rows, columns = layers.reduced(update.ndim)
            factor = 1.0 if rms_rate is None else rms_rate * math.sqrt(max(update.shape[rows], update.shape[columns]))
            (norm,) = norms([update], layers=layers)
            matrices = jnp.moveaxis(update / (norm + _EPSILON).astype(update.dtype), (rows, columns), (-2, -1))
            matrices = _on_whole_matrices(lambda x: _iterate(x, ns_coefficients, ns_steps), matrices)
            return factor * jnp.moveaxis(matrices, (-2, -1), (rows, columns))

        return jax.tree.map(scale, updates, layers_of(stacked_axes, updates)), state

    return in_float32(optax.GradientTransformation(init_fn, update_fn))


def _on_whole_matrices(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Gather matrices that are split under an explicit mesh, where no product says by itself how it is split."""
    spec = jax.typeof(x).sharding.spec
    if all(name is None for name in spec[-2:]):
        return function(x)
    whole = jax.sharding.reshard(x, PartitionSpec(*spec[:-2], None, None))
    return jax.sharding.reshard(function(whole), spec)


def _iterate(x: jax.Array, coefficients: Sequence[float], steps: int) -> jax.Array:
    """Move the singular values of matrices toward 1; the polynomial is odd, so that their vectors stay."""
    if x.shape[-2] > x.shape[-1]:  # the square of fewer rows is the smaller matrix
        return _transpose(_iterate(_transpose(x), coefficients, steps))
    a, b, c = coefficients

    def step(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        square = x @ jnp.conj(_transpose(x))
        return a * x + (b * square + (c * square) @ square) @ x, None

    return jax.lax.scan(step, x, length=steps, unroll=min(max(steps, 1), 10))[0]


def _transpose(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, -1, -2)


def _layer_leaves(stacked_axes: StackedAxes, tree: Any) -> list[Layers]:
    return jax.tree.leaves(layers_of(stacked_axes, tree), is_leaf=lambda node: isinstance(node, Layers))
