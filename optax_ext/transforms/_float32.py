"""Transformations that run in at least float32."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.precision import keep_without_gradient, widen
from optax_ext._core.remat import rematerializable
from optax_ext._core.trees import is_none


def accumulator_dtype_of(param: Any, dtype: Any) -> Any:
    """Return the requested dtype, or the parameter's own where only one of the two is complex."""
    is_complex = jnp.issubdtype(param.dtype, jnp.complexfloating)
    return dtype if dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating) == is_complex else param.dtype


def in_float32(
    inner: optax.GradientTransformation, *, scalars: tuple[str, ...] = ("count",)
) -> optax.GradientTransformation:
    """Run a transformation that reads only gradients in at least float32, its state included; updates keep their dtype.

    In float16 the square of a gradient of 256 overflows and the square of 1e-4 underflows; in bfloat16 a moment with a
    decay of 0.999 never moves. A parameter without a gradient keeps its part of the state, which `inner` does not see;
    this requires a state in which every field but the `scalars` is a tree like the parameters.
    """

    def init_fn(params: optax.Params) -> optax.OptState:
        return inner.init(jax.tree.map(widen, params))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params

        def hide(update: Any, leaf: jax.Array) -> jax.Array | None:
            return None if update is None else leaf

        trees = {name: tree for name, tree in state._asdict().items() if name not in scalars}
        seen = {name: jax.tree.map(hide, updates, tree, is_leaf=is_none) for name, tree in trees.items()}
        wide, new_state = inner.update(jax.tree.map(widen, updates), state._replace(**seen))
        narrow = jax.tree.map(_cast_like, wide, updates)
        return narrow, keep_without_gradient(new_state, state)

    return optax.GradientTransformation(init_fn, update_fn)


def _cast_like(leaf: jax.Array, like: jax.Array) -> jax.Array:
    return leaf if leaf.dtype == like.dtype else rematerializable(lambda leaf: leaf.astype(like.dtype), leaf)
