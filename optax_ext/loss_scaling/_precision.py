"""Unscaled gradients and widened parameters, as loss scaling passes them to the transformation inside it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.precision import as_array, is_inexact, widen
from optax_ext._core.remat import rematerializable
from optax_ext._core.trees import is_none


def widen_range(params: Any) -> Any:
    """Return a tree with floats of less range than float32, such as float16, in float32; Python numbers become arrays.

    float16 overflows above 65504 and underflows below 6e-8, so gradients that scaling kept from underflowing would
    underflow again. bfloat16 has the range of float32 and stays.
    """

    def widen_leaf(leaf: Any) -> Any:
        leaf = as_array(leaf)
        is_narrow = is_inexact(leaf) and jnp.finfo(leaf.dtype).maxexp < 128
        return rematerializable(widen, leaf) if is_narrow else leaf

    return jax.tree.map(widen_leaf, params)


def split_scale(scale: Any) -> tuple[jax.Array, jax.Array]:
    """Return the factor and the divisor, in float32, by which a division by `scale` is done: ``x * factor / divisor``.

    The factor is 1 unless the scale is huge: XLA turns a division into a multiplication by the reciprocal, which for a
    scale above 2**126 is subnormal and flushed to zero.
    """
    scale = jnp.asarray(scale, jnp.float32)
    factor = jnp.where(scale > 2.0**100, jnp.float32(2.0**-64), jnp.float32(1))
    return factor, scale * factor


def unscale_by(scale: Any, tree: Any, params: optax.Params | None = None) -> Any:
    """Divide the inexact leaves of a tree by `scale`, in at least float32; None leaves the numbers as they are.

    With `params`, each leaf is then cast to the dtype of its parameter, so that the state of a low-precision run never
    changes its dtype.
    """
    is_scaled = scale is not None
    first, rest = split_scale(1 if scale is None else scale)

    def unscale(leaf: Any, param: Any = None) -> Any:
        if leaf is None:
            return None
        if param is not None and jnp.result_type(leaf) == jax.dtypes.float0:  # JAX's gradient of an integer
            return jnp.zeros(jnp.shape(param), jnp.float32)  # since Optax's clips take no integers
        if not is_inexact(leaf):
            return leaf
        leaf = jnp.asarray(leaf)
        wide = widen(leaf).dtype
        dtype = jnp.result_type(param) if param is not None and is_inexact(param) else wide
        if not is_scaled:
            return leaf if leaf.dtype == dtype else rematerializable(lambda leaf: leaf.astype(dtype), leaf)

        def divide(leaf: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
            return (widen(leaf) * first * second).astype(dtype)

        return rematerializable(divide, leaf, first.astype(wide), 1 / rest.astype(wide))

    if params is None:
        return jax.tree.map(unscale, tree)
    return jax.tree.map(unscale, tree, trained(params), is_leaf=is_none)


def trained(params: Any) -> Any:
    """Return the parameters that gradients are taken of: the fast copy for `optax.lookahead`."""
    return params.fast if isinstance(params, optax.LookaheadParams) else params


def zero_where_not_inexact(updates: Any, params: optax.Params | None) -> Any:
    """Return the updates with zeros for integers and keys, which no optimizer may change."""
    if params is None:
        return updates
    return jax.tree.map(
        lambda update, param: update if update is None or is_inexact(param) else jnp.zeros_like(jnp.asarray(param)),
        updates,
        params,
        is_leaf=is_none,
    )
