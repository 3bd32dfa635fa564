"""The finite check: whether all numbers of a tree are finite, in one pass over each leaf."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.norms import AxisName, reduce_over
from optax_ext._core.precision import apply_update, is_inexact, widen
from optax_ext._core.remat import hide, rematerialize
from optax_ext._core.trees import is_none


def all_finite(tree: Any) -> jax.Array:
    """Return whether every inexact number of a tree is finite; an empty tree is.

    A sum is non-finite if one of its numbers is, and a sum of up to 2**63 finite numbers, each divided by at least
    2**64, is finite. XLA computes such a sum in one pass on every backend, whereas ``isfinite(x).all()`` writes
    booleans to memory on a CPU. Only the sum is tested, by its bits, so XLA may reorder it and drop tests for
    non-finite numbers, as ``--xla_cpu_enable_fast_math`` allows. (In a reordered sum a few numbers near the largest
    float may count as non-finite; a NaN never counts as finite, unless XLA is told to honor neither NaN nor infinity.)
    """
    return is_finite(add_up([_sum_scaled_down(leaf) for leaf in jax.tree.leaves(tree) if is_inexact(leaf)]))


def all_finite_after(updates: Any, params: optax.Params | None) -> jax.Array:
    """Return whether parameters, or without them the updates, are finite in their own dtypes after `apply_updates`."""
    if params is None:
        return all_finite(updates)

    def sum_after(update: Any, param: Any) -> jax.Array | None:
        if update is None or not is_inexact(param):
            return None
        # Only constants are hidden: the sum is in no memory yet, and is computed as it is added up.
        return _sum_scaled_down(apply_update(param, update), hide_constants)

    def hide_constants(leaf: Any, *constants: jax.Array) -> tuple[Any, ...]:
        return leaf, *map(hide, constants)

    return is_finite(add_up(jax.tree.leaves(jax.tree.map(sum_after, updates, params, is_leaf=is_none))))


def agree(flag: jax.Array, axis_name: AxisName | None) -> jax.Array:
    """Return whether a flag is set on every device of the mesh axes of `shard_map` or `pmap`."""
    return reduce_over(jax.lax.pmin, flag.astype(jnp.int32), axis_name).astype(jnp.bool_)


def add_up(sums: Sequence[jax.Array]) -> jax.Array:
    """Return the total of scalars, each computed once."""
    # Without the barrier XLA repeats all the sums in every fusion that reads the total, and compiles for half a minute.
    return jnp.sum(jax.lax.optimization_barrier(jnp.stack(sums))) if sums else jnp.float32(0)


def is_finite(number: jax.Array) -> jax.Array:
    """Return whether a float32 number is finite, by its bits."""
    exponent = jnp.int32(0x7F800000)
    return (jax.lax.bitcast_convert_type(number, jnp.int32) & exponent) != exponent


def _sum_scaled_down(leaf: Any, read: Callable[..., tuple[Any, ...]] = rematerialize) -> jax.Array:
    """Return a float32 number that is finite if and only if all numbers of a leaf are.

    XLA may elide a cast to float16 or bfloat16 and back, so this does not rely on one. A number rounds to infinity if,
    with half a unit in the last place of the largest float added, it reaches 2**maxexp. A factor turns that into
    2**128, which is infinite in float32.
    """
    leaf = jnp.asarray(leaf)
    limits, dtype = jnp.finfo(leaf.dtype), widen(leaf).dtype
    constants = [2.0 ** (64 - jnp.finfo(dtype).maxexp)]
    if limits.bits < 32:
        constants += [2.0 ** (128 - limits.maxexp), 2.0 ** (126 - limits.nmant)]
    leaf, small, *rounding = read(leaf, *(jnp.asarray(constant, dtype) for constant in constants))
    leaf = widen(leaf)
    if rounding:
        factor, half_unit = rounding
        leaf = jnp.abs(leaf) * factor + half_unit
    total = jnp.sum(leaf * small)
    # Of a complex number the parts are added, both far below the largest float.
    return (total.real + total.imag if jnp.iscomplexobj(total) else total).astype(jnp.float32)
