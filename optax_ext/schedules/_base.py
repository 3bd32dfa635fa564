"""What every schedule is, and the exact step arithmetic that all of them share."""

import abc
import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import pydantic
from jax.core import Tracer
from jax.typing import ArrayLike
from pydantic_core import core_schema

from optax_ext._schema import NonNegativeNumber, Tagged, from_tagged, problem, shorten, type_adapter

BeforeOffset = Literal["extrapolate", "hold"]
_Formula = TypeVar("_Formula", bound=Callable[..., jax.Array])


class Schedule(Tagged):
    """A learning rate as a pure function of the step; the base class of all schedules.

    A schedule is a frozen dataclass that is callable: hashable, comparable and picklable, the same under ``jit``,
    ``vmap``, ``lax.scan`` and eagerly, and accepted wherever Optax takes a schedule. Its fields are its schema:
    they are validated at construction and it is read from and written to configs by its ``type`` tag, which is
    the class name in snake case unless the class has an attribute ``type``.

    Example:
      A schedule of your own is a frozen dataclass with a ``__call__``; it validates, loads and saves like ours.

      >>> import dataclasses
      >>> import jax.numpy as jnp
      >>> import optax_ext
      >>> @dataclasses.dataclass(frozen=True)
      ... class InverseSquareRoot(optax_ext.Schedule):
      ...     initial_learning_rate: float
      ...     def __call__(self, step):
      ...         return self.initial_learning_rate / jnp.sqrt(jnp.maximum(jnp.float32(step), 1))
      >>> print(InverseSquareRoot(0.5)(4))
      0.25
    """

    @abc.abstractmethod
    def __call__(self, step: ArrayLike) -> jax.Array:
        """Return the learning rate at ``step``.

        Args:
          step: How many updates came before; an integer (Python, NumPy or traced), a float, or an array of either.

        Returns:
          float32, of the shape of ``step``, never weakly typed.
        """

    def _zero_from(self) -> int | None:
        """Return the step from which a rate that was not zero is zero for good, if there is one; without JAX."""
        return None


def _number_or_schedule(value: object) -> float | Schedule:
    if isinstance(value, Schedule | Mapping) or (isinstance(value, type) and issubclass(value, Schedule)):
        return from_tagged(Schedule, value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return type_adapter(NonNegativeNumber).validate_python(value)
    raise problem(f"must be a number or a schedule, got {shorten(value)}")


class _NumberOrSchedule:
    """One validator for both, so that no tag of a union enters the path of an error."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: pydantic.GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        del source, handler
        return core_schema.no_info_plain_validator_function(_number_or_schedule)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        del schema, handler
        return {"anyOf": [{"type": "number", "minimum": 0}, {"x-family": Schedule.__name__}]}


ScalarOrSchedule = Annotated[float | Schedule, _NumberOrSchedule()]


def evaluate(learning_rate: float | Schedule, step: ArrayLike) -> jax.Array:
    """Return a number or a schedule at `step`, as a schedule would."""
    if callable(learning_rate):
        return learning_rate(step)
    return jnp.full(jnp.shape(step), learning_rate, jnp.float32)


def exact_step(step: ArrayLike) -> jax.Array:
    """Return `step` in JAX's widest signed integer, or in its widest float where it is a float.

    Integers stay integers because float32 skips every odd step past 2**24. What does not fit saturates: an
    unsigned step, or a Python integer past the end, must not come back as a negative one.
    """
    widest = jnp.iinfo(jnp.result_type(int))
    if isinstance(step, int) and not isinstance(step, bool):
        step = min(max(step, widest.min), widest.max)
    step = step if isinstance(step, jax.Array) else np.asarray(step)  # NumPy keeps 64 bits where JAX would not
    if jnp.issubdtype(step.dtype, jnp.floating):
        return jnp.asarray(step).astype(jnp.result_type(float))
    if not jnp.issubdtype(step.dtype, jnp.integer):
        raise TypeError(f"step must be an integer or a float, got {step.dtype} {step!r}")
    limits = jnp.iinfo(step.dtype)
    clip = jnp.clip if isinstance(step, jax.Array) else np.clip
    return jnp.asarray(clip(step, max(limits.min, widest.min), min(limits.max, widest.max)), widest.dtype)


def elapsed_steps(step: ArrayLike, offset: int, before_offset: BeforeOffset) -> jax.Array:
    """Return `step - offset`, exact and saturating; 0 before the offset where that holds the value."""
    step = exact_step(step)
    if jnp.issubdtype(step.dtype, jnp.integer):
        limits = jnp.iinfo(step.dtype)
        room = (limits.min + offset, limits.max) if offset > 0 else (limits.min, limits.max + offset)
        step = jnp.clip(step, *room)
    elapsed = step - offset
    return jnp.maximum(elapsed, 0) if before_offset == "hold" else elapsed


def compile_eager(formula: _Formula) -> _Formula:
    """Make the ``__call__`` of a schedule of ours run as one compiled program where the step is a value.

    Op by op, an eager call takes a dispatch for each operation of the formula; compiled, one for all, and the result
    is to the bit that of ``jax.jit(schedule)``. It applies where nothing but our own formulas is in the schedule:
    what users derive or put into a warm-up may not be hashable or traceable, and may change.
    """

    @functools.wraps(formula)
    def call(self: Schedule, step: ArrayLike) -> jax.Array:
        if isinstance(step, Tracer) or not _is_ours(self):
            return formula(self, step)
        if isinstance(step, jax.Array):
            passes = isinstance(step.dtype, np.dtype) and step.dtype.kind in "iuf"
        else:
            passes = type(step) is int and -(2**31) <= step < 2**31  # JAX would wrap others, with no room for 64 bits
        return _program(self)(step if passes else exact_step(step))

    _formulas[call] = formula
    return cast(_Formula, call)


_formulas: dict[Callable[..., jax.Array], Callable[..., jax.Array]] = {}  # by the method that compiles them


def _is_ours(schedule: object) -> bool:
    own = vars(type(schedule)).get("__call__") in _formulas  # neither derived nor replaced
    return own and all(_is_ours(value) for value in vars(schedule).values() if callable(value))


@functools.lru_cache(maxsize=128)  # a sweep makes schedules without end
def _program(schedule: Schedule) -> Callable[[ArrayLike], jax.Array]:
    """Return the formula of a schedule, compiled; inlined where a concrete step meets an outer trace."""
    formula = _formulas[type(schedule).__call__]
    return jax.jit(functools.partial(formula, schedule), inline=True)


def divide(steps: jax.Array, by: float | jax.Array) -> jax.Array:
    """Return `steps / by` in float32, rounded to nearest, the same eagerly and compiled.

    Of a constant divisor XLA makes a product with its reciprocal, whose last bit is another: 1 - t / T changes by
    percents just before the end, and is negative at it. A divisor that depends on the steps, if only by adding
    zero times them, is no constant.
    """
    steps = steps.astype(jnp.float32)
    return steps / (by + 0 * steps)
