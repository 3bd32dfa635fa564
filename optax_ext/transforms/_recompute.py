"""Cheap values that are computed again where they are needed again, rather than kept in memory.

XLA on a CPU fuses a sum with what is summed, but only if nothing else reads that. A gradient that a norm and the update
both read is therefore written to memory and read twice, and memory is all that an optimizer's step waits for: on
ResNet-50, LARS took twice as long so, as benchmarks/RESULTS.md shows. On other devices XLA computes such values twice
by itself, and what is here changes nothing.
"""

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
from jax.core import Tracer


class _Recipe(NamedTuple):
    value: Any  # kept here, so that no other array takes its identity
    function: Callable[..., Any]
    operands: tuple[Any, ...]


class _Memory(NamedTuple):
    recipes: dict[int, _Recipe]
    numbers: Iterator[int]


_memory: ContextVar[_Memory | None] = ContextVar("_memory", default=None)


@contextlib.contextmanager
def recomputing() -> Generator[None]:
    """Remember values until the end of the block, besides those of the block around it."""
    outer = _memory.get() or _Memory({}, itertools.count())
    token = _memory.set(outer._replace(recipes=dict(outer.recipes)))
    try:
        yield
    finally:
        _memory.reset(token)


def remember(value: Any, function: Callable[..., Any], *operands: Any) -> None:
    """Remember that a traced `value` is `function(*operands)`, of which some may be remembered themselves."""
    memory = _memory.get()
    if memory is not None and isinstance(value, Tracer):
        memory.recipes[id(value)] = _Recipe(value, function, operands)


def recompute(*values: Any) -> tuple[Any, ...]:
    """Return values as they are if none is remembered, and else all of them anew, to be read together."""
    memory = _memory.get()
    if memory is None or not any(id(value) in memory.recipes for value in values):
        return values

    def inputs(value: Any) -> Iterator[Any]:
        recipe = memory.recipes.get(id(value))
        if recipe is None:
            yield value
        else:
            for operand in recipe.operands:
                yield from inputs(operand)

    arrays = {id(array): array for value in values for array in inputs(value)}
    # The barrier keeps XLA from seeing that it has these values already, and from sharing broadcasts among leaves. The
    # number keeps it from seeing that two barriers are alike.
    *separate, _ = jax.lax.optimization_barrier((*arrays.values(), next(memory.numbers)))
    arrays = dict(zip(arrays, separate, strict=True))

    def compute(value: Any) -> Any:
        recipe = memory.recipes.get(id(value))
        return arrays[id(value)] if recipe is None else recipe.function(*map(compute, recipe.operands))

    return tuple(map(compute, values))
