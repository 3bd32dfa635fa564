"""What low precision needs: arithmetic in at least float32."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_ext.transforms._remat import rematerializable
from optax_ext.transforms._trees import is_none

_State = TypeVar("_State")


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf holds floating or complex numbers; integers, keys, float0 and functions do not."""
    return not callable(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def widen(x: Any) -> Any:
    """Return floats narrower than float32 as float32, and everything else as it is.

    A Python number becomes an array, and a ``jax.ShapeDtypeStruct`` stays one.
    """
    x = as_array(x)
    if callable(x) or not jnp.issubdtype(x.dtype, jnp.floating) or x.dtype.itemsize >= 4:
        return x
    if isinstance(x, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding)  # pyright: ignore[reportReturnType]
    return x.astype(jnp.float32)


def as_array(leaf: Any) -> Any:
    """Return a number as an array, and an array as it is, both strongly typed, so that no state is weakly typed.

    A ``jax.ShapeDtypeStruct``, which ``init`` may be given for an array, stays one.
    """
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and not getattr(leaf, "weak_type", False):  # keys have none
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    if callable(leaf):  # an activation, which an Equinox module has among its leaves
        return leaf
    return jnp.asarray(leaf, dtype=jnp.result_type(leaf))


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


def apply_update(param: Any, update: Any) -> Any:
    """Return the parameter that `optax.apply_updates` makes; without an update, the parameter."""
    param = as_array(param)
    if update is None or callable(param) or jnp.issubdtype(param.dtype, jax.dtypes.prng_key):
        return param
    if jnp.result_type(update) == jax.dtypes.float0:
        return param
    if not is_inexact(param):
        return param + jnp.asarray(update).astype(param.dtype)
    # What JAX promotes to, said here, since under strict promotion it does not. Numbers narrower than float32 round
    # from there as they would from their own sum.
    wide_param, wide_update = widen(param), widen(update)
    dtype = np.promote_types(wide_param.dtype, wide_update.dtype)
    return (wide_param.astype(dtype) + wide_update.astype(dtype)).astype(param.dtype)


def accumulator_dtype_of(param: Any, dtype: Any) -> Any:
    """Return the dtype asked for, but that of the parameter where one of the two is complex and the other is not."""
    is_complex = jnp.issubdtype(param.dtype, jnp.complexfloating)
    return dtype if dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating) == is_complex else param.dtype


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


def in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Run a transformation that looks at gradients alone in at least float32, its state too; updates keep their dtype.

    In float16 the square of a gradient of 256 overflows and that of 1e-4 vanishes; in bfloat16 a moment that keeps
    0.999 of itself never moves. A parameter without a gradient keeps its part of the state, which `inner` does not
    see; that takes a state whose every field but `count` is a tree like the parameters.
    """

    def init_fn(params: optax.Params) -> optax.OptState:
        return inner.init(jax.tree.map(widen, params))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params

        def hide(update: Any, leaf: jax.Array) -> jax.Array | None:
            return None if update is None else leaf

        trees = {name: tree for name, tree in state._asdict().items() if name != "count"}
        seen = {name: jax.tree.map(hide, updates, tree, is_leaf=is_none) for name, tree in trees.items()}
        wide, new_state = inner.update(jax.tree.map(widen, updates), state._replace(**seen))
        narrow = jax.tree.map(_cast_like, wide, updates)
        return narrow, keep_without_gradient(new_state, state)

    return optax.GradientTransformation(init_fn, update_fn)


def _cast_like(leaf: jax.Array, like: jax.Array) -> jax.Array:
    return leaf if leaf.dtype == like.dtype else rematerializable(lambda leaf: leaf.astype(like.dtype), leaf)


def keep_without_gradient(new: _State, old: _State) -> _State:
    """Return the new state with the old one's leaves where it has None, as Optax makes it without a gradient."""
    return jax.tree.map(lambda n, o: o if n is None else n, new, old, is_leaf=is_none)
