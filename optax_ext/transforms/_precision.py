"""What low precision needs: arithmetic in at least float32, and the check that numbers are finite."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from optax_ext.transforms._recompute import recompute
from optax_ext.transforms._trees import is_none

_State = TypeVar("_State")


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf holds floating or complex numbers; integers, keys and float0 do not."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def widen(x: jax.Array) -> jax.Array:
    """Return floats narrower than float32 as float32, and everything else as it is.

    A Python number becomes an array, and a ``jax.ShapeDtypeStruct`` stays one.
    """
    x = as_array(x)
    if not jnp.issubdtype(x.dtype, jnp.floating) or x.dtype.itemsize >= 4:
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
    return jnp.asarray(leaf, dtype=jnp.result_type(leaf))


def all_finite(tree: Any) -> jax.Array:
    """Return whether every inexact number of a tree is finite; an empty tree is.

    x - x is 0 for a finite number and NaN for any other, so a sum of these is exact; and XLA makes one pass over the
    numbers of it on every backend, where ``isfinite(x).all()`` writes its booleans to memory on a CPU.
    """

    def zero_if_finite(leaf: Any) -> jax.Array:
        narrow = leaf.dtype in (jnp.float16, jnp.bfloat16)
        wide = _as_finite(leaf) if narrow else widen(recompute(leaf)[0])
        zero = jnp.sum(wide - wide)
        return (zero.real + zero.imag if jnp.iscomplexobj(zero) else zero).astype(jnp.float32)

    zeros = [zero_if_finite(leaf) for leaf in jax.tree.leaves(tree) if is_inexact(leaf)]
    if not zeros:
        return jnp.asarray(True)
    # Without the barrier XLA repeats all of the sums in whatever reads this flag, and compiles for half a minute.
    return jnp.sum(jax.lax.optimization_barrier(jnp.stack(zeros))) == 0


def _as_finite(leaf: jax.Array) -> jax.Array:
    """Return numbers in float32 that are finite exactly where those of a narrow leaf are.

    XLA may leave out a rounding to float16 or bfloat16 and back, so this does not rely on one. A number is rounded to
    infinity if half a unit in the last place of the largest one takes it to 2**maxexp or beyond. A factor turns that
    into 2**128, which is infinite in float32.
    """
    limits = jnp.finfo(leaf.dtype)
    factor, half_unit = 2.0 ** (128 - limits.maxexp), 2.0 ** (126 - limits.nmant)
    # Read together with the leaf, or XLA on a CPU keeps an array of each, for all leaves of a shape.
    leaf, factor, half_unit = recompute(leaf, jnp.float32(factor), jnp.float32(half_unit))
    return jnp.abs(widen(leaf)) * factor + half_unit


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
        narrow = jax.tree.map(lambda new, given: new.astype(given.dtype), wide, updates)
        return narrow, keep_without_gradient(new_state, state)

    return optax.GradientTransformation(init_fn, update_fn)


def keep_without_gradient(new: _State, old: _State) -> _State:
    """Return the new state with the old one's leaves where it has None, as Optax makes it without a gradient."""
    return jax.tree.map(lambda n, o: o if n is None else n, new, old, is_leaf=is_none)
