"""Arithmetic in at least float32 for numbers of lower precision."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from optax_ext._core.trees import is_none

_State = TypeVar("_State")


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf holds floating or complex numbers; integers, keys, float0 and functions do not."""
    return not callable(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def widen(x: Any) -> Any:
    """Return floats narrower than float32 as float32, and everything else unchanged.

    A Python number becomes an array, and a ``jax.ShapeDtypeStruct`` stays one.
    """
    x = as_array(x)
    if callable(x) or not jnp.issubdtype(x.dtype, jnp.floating) or x.dtype.itemsize >= 4:
        return x
    if isinstance(x, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding)  # pyright: ignore[reportReturnType]
    return x.astype(jnp.float32)


def as_array(leaf: Any) -> Any:
    """Return a number or an array as a strongly typed array, so that no state is weakly typed.

    A ``jax.ShapeDtypeStruct``, which ``init`` may be given in place of an array, stays one.
    """
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and not getattr(leaf, "weak_type", False):  # keys have none
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    if callable(leaf):  # an activation function among the leaves of an Equinox module
        return leaf
    return jnp.asarray(leaf, dtype=jnp.result_type(leaf))


def apply_update(param: Any, update: Any) -> Any:
    """Return the parameter as `optax.apply_updates` updates it; unchanged if there is no update."""
    param = as_array(param)
    if update is None or callable(param) or jnp.issubdtype(param.dtype, jax.dtypes.prng_key):
        return param
    if jnp.result_type(update) == jax.dtypes.float0:
        return param
    if not is_inexact(param):
        return param + jnp.asarray(update).astype(param.dtype)
    # Promoted explicitly, since JAX does not promote under strict promotion. A float32 sum of narrower numbers rounds
    # to the same result as a sum in their own dtype.
    wide_param, wide_update = widen(param), widen(update)
    dtype = np.promote_types(wide_param.dtype, wide_update.dtype)
    return (wide_param.astype(dtype) + wide_update.astype(dtype)).astype(param.dtype)


def keep_without_gradient(new: _State, old: _State) -> _State:
    """Return the new state with leaves of the old one in place of None, which Optax returns without a gradient."""
    return jax.tree.map(lambda n, o: o if n is None else n, new, old, is_leaf=is_none)
