"""The arithmetic of norms: sums of squares and their roots, in at least float32 and with finite derivatives."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from optax_ext._core.arguments import is_concrete
from optax_ext._core.layers import Layers
from optax_ext._core.precision import widen
from optax_ext._core.remat import by_platform, rematerialize


def root(squared: jax.Array) -> jax.Array:
    """Return the root of a squared magnitude as a real number, with a derivative of 0 at 0 rather than infinity.

    The squared magnitude has a derivative of 0 there, and zero times infinity would be NaN.
    """
    return _root(squared.real if jnp.iscomplexobj(squared) else squared)


@jax.custom_jvp  # not a `where`, which XLA on a CPU does not fuse with a sum
def _root(squared: jax.Array) -> jax.Array:
    return jnp.sqrt(squared)


@_root.defjvp
def _root_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (squared,), (tangent,) = primals, tangents
    is_zero = squared == 0
    slope = jnp.where(is_zero, 0, 0.5 / jnp.sqrt(jnp.where(is_zero, 1, squared)))
    return _root(squared), slope * tangent


AxisName = Hashable | tuple[Hashable, ...]
_ONE_LAYER = Layers()


def norms(
    *groups: Sequence[Any],
    axis_name: AxisName | None = None,
    may_overflow: bool = True,
    layers: Layers = _ONE_LAYER,
) -> tuple[jax.Array, ...]:
    """Return the Euclidean norm of each group of leaves, in at least float32; its derivative at 0 is 0.

    With `layers`, leaves of one shape each, a norm is an array of the rank of the leaf, with the norm of each layer and
    a size of 1 along the axes within a layer.

    Squares of numbers past 2**64 overflow in float32. If a sum of squares overflows, the numbers are first multiplied
    by a small power of two; those that vanish then are too small to matter beside those that overflowed. This costs
    some time on a GPU, and `may_overflow=False` omits it for numbers that are known to be small enough.
    """
    sums = [reduce_over(jax.lax.psum, sum_of_squares(leaves, layers=layers), axis_name) for leaves in groups]
    if not may_overflow:
        return tuple(map(root, sums))
    overflow = jnp.logical_not(jnp.stack([jnp.isfinite(total).all() for total in sums]).all())

    def as_they_are() -> tuple[jax.Array, ...]:
        return tuple(map(root, sums))

    def of_large() -> tuple[jax.Array, ...]:
        # Leaves room for 2**32 of the largest numbers.
        factors = [2.0 ** -(5 * jnp.finfo(total.dtype).maxexp // 8) for total in sums]
        shrunk = [
            reduce_over(jax.lax.psum, sum_of_squares(leaves, factor, layers), axis_name)
            for leaves, factor in zip(groups, factors, strict=True)
        ]
        large = [root(total) / factor for total, factor in zip(shrunk, factors, strict=True)]
        return tuple(jnp.where(jnp.isfinite(s), n, m) for s, n, m in zip(sums, as_they_are(), large, strict=True))

    if is_concrete(overflow):
        return of_large() if overflow else as_they_are()
    # XLA on a CPU would read the leaves again for the second sum; elsewhere one pass computes both sums.
    return by_platform(cpu=lambda: jax.lax.cond(overflow, of_large, as_they_are), default=of_large)


def sum_of_squares(leaves: Sequence[Any], factor: float | None = None, layers: Layers = _ONE_LAYER) -> jax.Array:
    """Return the sum of squared magnitudes in at least float32; numbers are multiplied by `factor` before squaring."""

    def add_up(squares: jax.Array) -> jax.Array:
        return jnp.sum(squares, axis=layers.reduced(squares.ndim), keepdims=True) if layers.axes else jnp.sum(squares)

    def square(leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        if factor is None:
            (leaf,) = map(widen, rematerialize(leaf))
        else:
            wide, small = rematerialize(leaf, jnp.asarray(factor, widen(leaf).dtype))
            leaf = widen(wide) * small
        return jnp.square(leaf.real) + jnp.square(leaf.imag) if jnp.iscomplexobj(leaf) else jnp.square(leaf)

    first, *rest = (add_up(square(leaf)) for leaf in leaves)
    return sum(rest, start=first)


def reduce_over(reduce: Callable[[Any, Any], Any], x: jax.Array, axis_name: AxisName | None) -> jax.Array:
    """Reduce over one mesh axis after another: `shard_map` takes several only if `x` varies over all or none."""
    names = () if axis_name is None else axis_name if isinstance(axis_name, tuple) else (axis_name,)
    for name in names:
        x = reduce(x, name)
    return x
