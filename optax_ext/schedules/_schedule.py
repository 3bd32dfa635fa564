"""The base class of all schedules, and the field type that takes a schedule or a number."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from optax_ext._core.errors import shorten
from optax_ext._core.field_types import Fraction, NonNegativeNumber, Number, NumberOr
from optax_ext._core.lazy import jax, jnp
from optax_ext._core.public import public
from optax_ext._core.relative import resolved
from optax_ext._core.schema import problem, type_adapter
from optax_ext._core.tagged import Tagged, from_tagged
from optax_ext.schedules._milestones import Milestone, field_milestones, in_order
from optax_ext.schedules._rate_per_batch import RatePerBatch, is_rate_per_batch, make_rate_per_batch


class Schedule(Tagged):
    """A learning rate as a pure function of the step; the base class of all schedules.

    A schedule is a callable frozen dataclass: hashable, comparable and picklable, with the same values under ``jit``,
    ``vmap``, ``lax.scan`` and eagerly, and accepted wherever Optax takes a schedule. Its fields are its schema and are
    validated at construction. Configs name a schedule by its ``type`` tag: the class attribute ``type``, or else the
    class name in snake case.

    Examples:
      Your own schedule is a frozen dataclass with a ``__call__``; it validates, loads and saves like the others.

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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for method in ("is_zero", "_zero_from"):
            # What a parent says about its own rate is not true of a class that computes another.
            if _depth(cls, "__call__") < _depth(cls, method):
                setattr(cls, method, getattr(Schedule, method))

    @abc.abstractmethod
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        """Return the learning rate at ``step``.

        Args:
          step: Number of updates so far; an integer (Python, NumPy or traced), a float, or an array of either.

        Returns:
          The rate in float32, with the shape of ``step`` and never weakly typed.
        """

    def milestones(self) -> tuple[Milestone, ...]:
        """Return the steps at which it is worth looking at the rate: where it starts, turns, jumps or ends.

        Read from the fields: an ``offset``, ``boundaries``, the ends of ``warmup_steps`` and of other fields whose
        names end in ``steps``, and the milestones of schedules in fields. Override it where a schedule knows more.

        Returns:
          Milestones in the order of their steps. Of what repeats forever they are the first few; of what has neither
          an end nor repeats, a step far from its start.
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        inside = [value for value in fields.values() if isinstance(value, Schedule)]
        own = field_milestones(self.type, fields, has_end=bool(inside))
        return in_order([*own, *(milestone for schedule in inside for milestone in schedule.milestones())])

    def is_zero(self) -> bool:
        """Whether the fields by themselves say that the rate is 0 at every step; without JAX."""
        return False

    def _zero_from(self) -> int | None:
        """Return the step from which a rate that was positive stays 0, or None if there is none; without JAX."""
        return None


def _depth(cls: type, method: str) -> int:
    """Return how far above a class the method that it has is defined."""
    return next(depth for depth, parent in enumerate(cls.__mro__) if method in vars(parent))


def _name_of_function(function: Callable[..., Any]) -> str:
    """Return what a function is to its user: a schedule of Optax by the name of what made it."""
    name = str(getattr(function, "__qualname__", type(function).__qualname__))
    is_optax = str(getattr(function, "__module__", "")).partition(".")[0] == "optax"
    return f"the Optax schedule {name.partition('.')[0]}(...)" if is_optax else f"the function {name}"


class _NumberOrSchedule(NumberOr):
    """Takes a number of the type given, or a schedule, and where `per_batch` says so a rate for a batch."""

    def __init__(self, number: Any, per_batch: bool = False) -> None:
        super().__init__(number)
        self.per_batch = per_batch

    def check(self, value: object) -> float | RatePerBatch | Schedule:
        if is_rate_per_batch(value):
            if not self.per_batch:
                text = f"must be a number or a schedule, got {shorten(value)}: only learning rates are for a batch"
                raise problem(text)
            return make_rate_per_batch(value)
        if isinstance(value, Schedule | Mapping) or (isinstance(value, type) and issubclass(value, Schedule)):
            return from_tagged(Schedule, value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return type_adapter(self.number).validate_python(value)
        if callable(value) and not isinstance(value, type):
            raise problem(
                f"must be a number or a schedule, got {_name_of_function(value)}: a recipe is data, which a function is"
                " not; use a schedule such as optax_ext.CosineDecay(...), or a Schedule subclass of your own"
            )
        raise problem(f"must be a number or a schedule, got {shorten(value)}")

    def alternatives(self) -> list[dict[str, Any]]:
        families = [*([RatePerBatch] if self.per_batch else []), Schedule]
        return [{"x-family": family.__name__} for family in families]


ScalarOrSchedule = Annotated[float | RatePerBatch | Schedule, _NumberOrSchedule(NonNegativeNumber, per_batch=True)]
FractionOrSchedule = Annotated[float | Schedule, _NumberOrSchedule(Fraction)]
NonNegativeOrSchedule = Annotated[float | Schedule, _NumberOrSchedule(NonNegativeNumber)]  # of what is no learning rate
AnyNumberOrSchedule = Annotated[float | Schedule, _NumberOrSchedule(Number)]


@public
def evaluate(learning_rate: float | RatePerBatch | Schedule, step: "jax.typing.ArrayLike") -> "jax.Array":
    """Return the learning rate at a step, whether it is a schedule or a constant.

    Args:
      learning_rate: A schedule, or a number.
      step: The step, or an array of steps.

    Returns:
      float32, of the shape of ``step``.

    Examples:
      >>> from optax_ext import schedules
      >>> print(schedules.evaluate(0.5, 10), schedules.evaluate(schedules.ExponentialDecay(0.5, 10, 0.5), 10))
      0.5 0.25
    """
    if callable(learning_rate):
        return learning_rate(step)
    return jnp.full(jnp.shape(step), resolved(learning_rate), jnp.float32)


@public
def is_zero(value: float | RatePerBatch | Schedule) -> bool:
    """Say whether a number, or a schedule by what its fields say, is 0 at every step; without JAX.

    Args:
      value: A number or a schedule.

    Returns:
      Whether it is 0 throughout. A schedule that does not know, such as one of your own, is not.

    Examples:
      >>> import optax_ext
      >>> from optax_ext import schedules
      >>> schedules.is_zero(0.0), schedules.is_zero(optax_ext.LinearWarmup(0.0, 100)), schedules.is_zero(0.1)
      (True, True, False)
    """
    return value.is_zero() if isinstance(value, Schedule) else value == 0
