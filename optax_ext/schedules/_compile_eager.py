"""Schedules called outside `jit`, compiled into one program."""

import functools
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

from optax_ext._core.lazy import jax, np
from optax_ext._core.steps import exact_step
from optax_ext.schedules._schedule import Schedule

_Formula = TypeVar("_Formula", bound="Callable[..., jax.Array]")


def compile_eager(formula: _Formula) -> _Formula:
    """Make the ``__call__`` of one of our schedules run as one compiled program for a concrete step.

    An eager call dispatches each operation of the formula by itself. The compiled program is dispatched once, and its
    result is bit-identical to that of ``jax.jit(schedule)``. Only schedules made entirely of our own formulas are
    compiled: a user's subclass, or a user's schedule in a warm-up, may not be hashable or traceable, and may change.
    """

    @functools.wraps(formula)
    def call(self: Schedule, step: "jax.typing.ArrayLike") -> "jax.Array":
        if isinstance(step, jax.core.Tracer) or not _is_ours(self):
            return formula(self, step)
        if isinstance(step, jax.Array):
            passes = isinstance(step.dtype, np.dtype) and step.dtype.kind in "iuf"
        else:
            passes = type(step) is int and -(2**31) <= step < 2**31  # without 64-bit types, JAX would wrap others
        return _program(self)(step if passes else exact_step(step))

    _formulas[call] = formula
    return cast(_Formula, call)


_formulas: "dict[Callable[..., jax.Array], Callable[..., jax.Array]]" = {}  # by the method that compiles them


def _is_ours(schedule: object) -> bool:
    own = vars(type(schedule)).get("__call__") in _formulas  # neither inherited nor replaced
    return own and all(_is_ours(inner) for value in vars(schedule).values() for inner in _schedules_in(value))


def _schedules_in(value: object) -> Iterator[object]:
    if callable(value):
        yield value
    elif isinstance(value, tuple):
        yield from (item for item in cast(tuple[object, ...], value) if callable(item))


@functools.lru_cache(maxsize=128)  # a sweep makes any number of schedules
def _program(schedule: Schedule) -> "Callable[[jax.typing.ArrayLike], jax.Array]":
    """Return the compiled formula of a schedule; an outer trace inlines it."""
    formula = _formulas[type(schedule).__call__]
    return jax.jit(functools.partial(formula, schedule), inline=True)
