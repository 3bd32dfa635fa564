"""Rematerialization: cheap values are computed again where they are needed again, rather than kept in memory.

XLA on a CPU fuses a sum with the values summed only if nothing else reads these values. A gradient that both a norm
and the update read is therefore written to memory and read twice, and an optimizer's step is bound by memory: on
ResNet-50, LARS took twice as long in this way, as benchmarks/RESULTS.md shows. On other devices XLA recomputes such
values by itself, and reads an array once for several sums, so that no array is hidden from it there.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import jax
from jax.core import Tracer

_T = TypeVar("_T")


class _Recipe(NamedTuple):
    value: Any  # kept alive, so that no other array gets its id
    function: Callable[..., Any]
    operands: tuple[Any, ...]


_recipes: ContextVar[dict[int, _Recipe] | None] = ContextVar("_recipes", default=None)


@contextlib.contextmanager
def remat_scope() -> Generator[None]:
    """Remember how values are made until the end of the block, in addition to those of the enclosing block."""
    token = _recipes.set(dict(_recipes.get() or {}))
    try:
        yield
    finally:
        _recipes.reset(token)


def rematerializable(function: Callable[..., Any], *operands: Any) -> Any:
    """Return `function(*operands)`, remembering how it is made; operands may be rematerializable themselves."""
    value, recipes = function(*operands), _recipes.get()
    if recipes is not None and isinstance(value, Tracer):
        recipes[id(value)] = _Recipe(value, function, operands)
    return value


def rematerialize(value: Any, *constants: jax.Array) -> tuple[Any, ...]:
    """Return a value, recomputed if it is remembered and else for one reader, and constants to compute with it.

    XLA on a CPU would let leaves of one shape share an array of each constant, and keep this array in memory.
    """
    recipes = _recipes.get() or {}
    if id(value) not in recipes:
        if constants and isinstance(value, Tracer):
            return tuple(hide([value, *constants], scalars=True))
        return (read_alone(value), *constants)

    def inputs(value: Any) -> Iterator[Any]:
        recipe = recipes.get(id(value))
        if recipe is None:
            yield value
        else:
            for operand in recipe.operands:
                yield from inputs(operand)

    arrays = {id(array): array for array in (*inputs(value), *constants)}
    arrays = dict(zip(arrays, hide([*arrays.values()], scalars=bool(constants)), strict=True))

    def compute(value: Any) -> Any:
        recipe = recipes.get(id(value))
        return arrays[id(value)] if recipe is None else recipe.function(*map(compute, recipe.operands))

    return (compute(value), *(arrays[id(constant)] for constant in constants))


def read_alone(value: Any) -> Any:
    """Return a traced value that is narrower than float32 for one reader only, unless it is remembered.

    XLA on a CPU would let several readers share a conversion to float32, and keep it in memory at twice the size.
    """
    if id(value) in (_recipes.get() or {}) or not isinstance(value, Tracer) or value.dtype.itemsize >= 4:
        return value
    return hide(value)


def hide(values: Any, *, scalars: bool = False) -> Any:
    """Keep XLA on a CPU from recognizing values that it already has, and from sharing broadcasts among leaves.

    With `scalars`, scalars are hidden on other devices too. Each value recomputed from them is then a separate one,
    which XLA computes where it is read, rather than one value with so many readers that it is kept.
    """
    hidden = jax.lax.optimization_barrier(values)
    if jax.tree.map(jax.typeof, hidden) != jax.tree.map(jax.typeof, values):
        return hidden  # in `shard_map` all now vary over the mesh axes of each; values not hidden would not

    def hide_scalars() -> Any:
        return jax.tree.map(lambda x: jax.lax.optimization_barrier(x) if scalars and x.ndim == 0 else x, values)

    return by_platform(cpu=lambda: jax.lax.optimization_barrier(values), default=hide_scalars)


_platform: ContextVar[str | None] = ContextVar("_platform", default=None)


def by_platform(*, cpu: Callable[[], _T], default: Callable[[], _T]) -> _T:
    """Compute one or the other as `jax.lax.platform_dependent` does; calls within it follow the same choice."""

    def within(platform: str, function: Callable[[], _T]) -> Callable[[], _T]:
        def call() -> _T:
            token = _platform.set(platform)
            try:
                return function()
            finally:
                _platform.reset(token)

        return call

    if platform := _platform.get():
        return cpu() if platform == "cpu" else default()
    return jax.lax.platform_dependent(cpu=within("cpu", cpu), default=within("default", default))
