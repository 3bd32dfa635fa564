"""What loss scaling shows to the transformation inside it: unscaled gradients, in a dtype that holds them."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.precision import as_array, is_inexact, widen
from optax_ext._core.remat import rematerializable
from optax_ext._core.trees import is_none


def widen_range(params: Any) -> Any:
    """Return a tree whose floats of less range than float32, such as float16, are in float32; Python numbers as arrays.

    Past 65504, or below 6e-8, a float16 cannot hold what float32 can, and what scaling has saved would be lost again.
    bfloat16 has the range of float32, and stays.
    """

    def widen_leaf(leaf: Any) -> Any:
        leaf = as_array(leaf)
        is_narrow = is_inexact(leaf) and jnp.finfo(leaf.dtype).maxexp < 128
        return rematerializable(widen, leaf) if is_narrow else leaf

    return jax.tree.map(widen_leaf, params)


def unscale_by(scale: Any, tree: Any, params: optax.Params | None = None) -> Any:
    """Divide the inexact leaves of a tree by `scale`, in at least float32.

    By two factors, of which the first is 1 unless the scale is huge: the reciprocal of one past 2**126, which is also
    what XLA makes of a division, is subnormal and flushed to zero.

    With `params`, each leaf then takes the dtype of its parameter, so that the state of a low-precision run never
    changes type.
    """
    scale = jnp.asarray(scale, jnp.float32)
    first = jnp.where(scale > 2.0**100, jnp.float32(2.0**-64), jnp.float32(1))

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

        def divide(leaf: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
            return (widen(leaf) * first * second).astype(dtype)

        return rematerializable(divide, leaf, first.astype(wide), 1 / (scale * first).astype(wide))

    if params is None:
        return jax.tree.map(unscale, tree)
    return jax.tree.map(unscale, tree, trained(params), is_leaf=is_none)


def trained(params: Any) -> Any:
    """Return the parameters that gradients are taken of: of `optax.lookahead`'s two copies, the fast one."""
    return params.fast if isinstance(params, optax.LookaheadParams) else params


def zero_where_not_inexact(updates: Any, params: optax.Params | None) -> Any:
    """Return the updates with zeros for integers and keys, which nothing that an optimizer computes may change."""
    if params is None:
        return updates
    return jax.tree.map(
        lambda update, param: update if update is None or is_inexact(param) else jnp.zeros_like(jnp.asarray(param)),
        updates,
        params,
        is_leaf=is_none,
    )
