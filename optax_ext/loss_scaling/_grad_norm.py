"""The norm of gradients, which comes with the finite check: both are made of one pass over each leaf."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from optax_ext._core.arguments import is_concrete, is_eager
from optax_ext._core.field_types import FLOAT32_MAX
from optax_ext._core.norms import AxisName, reduce_over, root, sum_of_squares
from optax_ext._core.precision import is_inexact
from optax_ext._core.remat import by_platform, hide
from optax_ext.loss_scaling._finite import add_up, all_finite, is_finite
from optax_ext.loss_scaling._precision import split_scale

_T = TypeVar("_T")

# A total of squares below this may lack numbers whose squares underflow; above it they are too small to matter.
_SMALLEST_TOTAL = 2.0**-70
_SHIFT = (
    2.0**80
)  # with it, or divided by it, the squares of up to 2**32 numbers of any size neither vanish nor overflow


def finite_and_norm(
    scale: jax.Array | None, scaled: Any, unscaled: Any, axis_name: AxisName | None = None
) -> tuple[jax.Array, jax.Array]:
    """Return whether all unscaled numbers are finite on every device, and their norm, which is infinite if not.

    XLA on a CPU adds up squares twice as fast as anything else. If the sum of the squares of the scaled numbers is
    finite, each number is at most 2**64, and stays finite when it is divided by a scale of at least 1. If the sum is
    not finite, it may only have overflowed, and the unscaled numbers decide. The root of the sum is the norm; only if
    the sum overflowed or underflowed are the numbers read once more for it. On other devices one pass computes all
    sums, and float32 numbers below 2**-63, whose squares vanish, may count as 0 in the norm.

    A norm over devices counts a leaf that varies over an axis once for each device, and one that does not once. Where
    JAX does not track this, each leaf counts as if all devices had the same: exact for copies, and of parts the root
    of the mean square.

    Args:
      scale: What the scaled numbers are to be divided by; None if the two are the same.
      scaled: A tree of numbers as they arrive.
      unscaled: The tree as the inner transformation sees it.
      axis_name: The mesh axis, or axes, of `shard_map` or `pmap` whose devices must agree.
    """
    pairs = zip(jax.tree.leaves(scaled), jax.tree.leaves(unscaled), strict=True)
    pairs = [(leaf, shown) for leaf, shown in pairs if is_inexact(leaf)]
    leaves = [leaf for leaf, _ in pairs]
    if not leaves:
        return jnp.ones([], jnp.bool_), jnp.zeros([], jnp.float32)
    names = () if axis_name is None else axis_name if isinstance(axis_name, tuple) else (axis_name,)
    groups = _group_by_axes(leaves, names)
    finite, norms = _on_this_device(scale, leaves, [shown for _, shown in pairs], list(groups.values()))
    norms = [jnp.minimum(norm, FLOAT32_MAX) for norm in norms]
    if not names:
        return finite, jnp.where(finite, norms[0], jnp.inf)

    largest = reduce_over(jax.lax.pmax, jnp.where(finite, jnp.stack(norms).max(), jnp.inf), names)
    finite = is_finite(largest)
    divisor = jnp.where(largest > 0, largest, 1)  # so that no square overflows or underflows
    total = jnp.zeros([], jnp.float32)
    for axes, norm in zip(groups, norms, strict=True):
        square = jnp.square(norm / divisor)
        for name in names:
            square = (jax.lax.psum if name in axes else jax.lax.pmean)(square, name)
        total += square
    return finite, jnp.where(finite, jnp.minimum(root(total) * largest, FLOAT32_MAX), jnp.inf)


def _on_this_device(
    scale: jax.Array | None, leaves: Sequence[Any], unscaled: Sequence[Any], groups: Sequence[Sequence[int]]
) -> tuple[jax.Array, list[jax.Array]]:
    """Return whether all numbers are finite, and the norm of each group of leaves."""
    eager = is_eager(*leaves)

    def sums(
        factor: Any = None, leaves: Sequence[Any] = leaves, groups: Sequence[Sequence[int]] = groups
    ) -> list[jax.Array]:
        squares = [sum_of_squares([leaf], factor).astype(jnp.float32) for leaf in leaves]
        # In one array, so that in `shard_map` all vary over the same axes, as both branches of a `cond` must.
        return [*jnp.stack([add_up([squares[index] for index in group]) for group in groups])]

    def unscale(norm: jax.Array) -> jax.Array:
        if scale is None:
            return norm
        factor, divisor = split_scale(scale)
        return norm * factor / divisor

    def as_they_are(totals: Sequence[jax.Array]) -> list[jax.Array]:
        return [unscale(root(squares)) for squares in totals]

    def of_large(totals: Sequence[jax.Array]) -> list[jax.Array]:
        half = _SHIFT**0.5  # one before the division and one after, so that neither large nor small scales lose it
        return [unscale(root(squares) * half) * half for squares in totals]

    def of_small() -> list[jax.Array]:
        return [unscale(root(squares) / _SHIFT) for squares in sums(_SHIFT)]

    def on_cpu() -> tuple[jax.Array, list[jax.Array]]:
        # XLA would let an optimizer share the squares of gradients that are not scaled, and keep them in memory.
        totals = sums() if scale is not None or eager else sums(leaves=[*map(hide, leaves)])
        total = sum(totals[1:], start=totals[0])
        fits = is_finite(total)
        is_exact = fits & (total >= _SMALLEST_TOTAL)
        certain = is_exact if scale is None else is_exact & (scale >= 1)

        def if_uncertain() -> tuple[jax.Array, list[jax.Array]]:
            shifted = partial(_cond, fits, of_small, lambda: of_large(sums(1 / _SHIFT)))
            return all_finite(unscaled), _cond(is_exact, lambda: as_they_are(totals), shifted)

        return _cond(certain, lambda: (jnp.ones_like(certain), as_they_are(totals)), if_uncertain)

    def elsewhere() -> tuple[jax.Array, list[jax.Array]]:
        # Each sum costs another small kernel on a GPU, so that the squares of what is divided by 2**80 tell as well
        # whether float32 numbers are finite: each is if the sum is, and if the norm is where a scale below 1 enlarges.
        # Those of other types are not in that sum, since float64 holds numbers whose squares overflow in any case.
        judged = [index for index, pair in enumerate(zip(leaves, unscaled, strict=True)) if _is_float32(*pair)]
        parts = groups if judged in groups else [*groups, judged]
        totals, shrunk = sums(groups=parts), sums(1 / _SHIFT, groups=parts)
        norms = [
            jnp.where(is_finite(squares), norm, large)
            for squares, norm, large in zip(totals, as_they_are(totals), of_large(shrunk), strict=True)
        ]
        place = parts.index(judged)
        finite = is_finite(shrunk[place])
        if scale is not None:
            finite &= (scale >= 1) | is_finite(norms[place])
        others = [shown for index, shown in enumerate(unscaled) if index not in judged]
        return finite & all_finite(others), norms[: len(groups)]

    return on_cpu() if eager else by_platform(cpu=on_cpu, default=elsewhere)


def _cond(condition: jax.Array, if_true: Callable[[], _T], if_false: Callable[[], _T]) -> _T:
    if is_concrete(condition):
        return if_true() if condition else if_false()
    return jax.lax.cond(condition, if_true, if_false)


def _is_float32(leaf: Any, shown: Any) -> bool:
    """Whether a leaf has at most 32 bits a number, and is shown in 32."""
    return jnp.finfo(jnp.result_type(leaf)).bits <= 32 == jnp.finfo(jnp.result_type(shown)).bits


def _group_by_axes(leaves: Sequence[Any], names: Sequence[Any]) -> dict[tuple[Any, ...], list[int]]:
    """Return the places of the leaves that vary over the same of these axes, by the axes."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, leaf in enumerate(leaves):
        varying = _varying_axes(leaf) if names else ()
        groups.setdefault(tuple(name for name in names if name in varying), []).append(index)
    return groups


def _varying_axes(leaf: Any) -> frozenset[Any]:
    """Return the mesh axes over which `shard_map` knows a value to vary; none with `check_vma=False` or in `pmap`."""
    kind: Any = jax.typeof(leaf)
    manual = getattr(kind, "manual_axis_type", kind)  # from JAX 0.10 on
    return getattr(manual, "varying", None) or getattr(kind, "vma", frozenset())
