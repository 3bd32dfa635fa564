"""Schedules called outside of `jit` run as one compiled program."""

import functools
from collections.abc import Callable
from typing import TypeVar, cast

from optax_ext._core.lazy import jax, np
from optax_ext._core.steps import exact_step
from optax_ext.schedules._schedule import Schedule

_Formula = TypeVar("_Formula", bound="Callable[..., jax.Array]")


def compile_eager(formula: _Formula) -> _Formula:
    """Make the ``__call__`` of a schedule of ours run as one compiled program where the step is a value.

    Op by op, an eager call takes a dispatch for each operation of the formula; compiled, one for all, and the result
    is to the bit that of ``jax.jit(schedule)``. It applies where nothing but our own formulas is in the schedule:
    what users derive or put into a warm-up may not be hashable or traceable, and may change.
    """

    @functools.wraps(formula)
    def call(self: Schedule, step: "jax.typing.ArrayLike") -> "jax.Array":
        if isinstance(step, jax.core.Tracer) or not _is_ours(self):
            return formula(self, step)
        if isinstance(step, jax.Array):
            passes = isinstance(step.dtype, np.dtype) and step.dtype.kind in "iuf"
        else:
            passes = type(step) is int and -(2**31) <= step < 2**31  # JAX would wrap others, with no room for 64 bits
        return _program(self)(step if passes else exact_step(step))

    _formulas[call] = formula
    return cast(_Formula, call)


_formulas: "dict[Callable[..., jax.Array], Callable[..., jax.Array]]" = {}  # by the method that compiles them


def _is_ours(schedule: object) -> bool:
    own = vars(type(schedule)).get("__call__") in _formulas  # neither derived nor replaced
    return own and all(_is_ours(value) for value in vars(schedule).values() if callable(value))


@functools.lru_cache(maxsize=128)  # a sweep makes schedules without end
def _program(schedule: Schedule) -> "Callable[[jax.typing.ArrayLike], jax.Array]":
    """Return the formula of a schedule, compiled; inlined where a concrete step meets an outer trace."""
    formula = _formulas[type(schedule).__call__]
    return jax.jit(functools.partial(formula, schedule), inline=True)
