"""What every schedule is, and what takes a number in its place."""

import abc
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import pydantic
from jax.typing import ArrayLike
from pydantic_core import core_schema

from optax_ext._core.errors import shorten
from optax_ext._core.field_types import NonNegativeNumber
from optax_ext._core.public import public
from optax_ext._core.schema import problem, type_adapter
from optax_ext._core.tagged import Tagged, from_tagged


class Schedule(Tagged):
    """A learning rate as a pure function of the step; the base class of all schedules.

    A schedule is a frozen dataclass that is callable: hashable, comparable and picklable, the same under ``jit``,
    ``vmap``, ``lax.scan`` and eagerly, and accepted wherever Optax takes a schedule. Its fields are its schema:
    they are validated at construction and it is read from and written to configs by its ``type`` tag, which is
    the class name in snake case unless the class has an attribute ``type``.

    Examples:
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
    if callable(value) and not isinstance(value, type):
        raise problem(
            f"must be a number or a schedule, got {_name_of_function(value)}: a recipe is data, which a function is"
            " not; use a schedule such as optax_ext.CosineDecay(...), or a Schedule subclass of your own"
        )
    raise problem(f"must be a number or a schedule, got {shorten(value)}")


def _name_of_function(function: Callable[..., Any]) -> str:
    """Return what a function is to its user: a schedule of Optax by the name of what made it."""
    name = str(getattr(function, "__qualname__", type(function).__qualname__))
    is_optax = str(getattr(function, "__module__", "")).partition(".")[0] == "optax"
    return f"the Optax schedule {name.partition('.')[0]}(...)" if is_optax else f"the function {name}"


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


@public
def evaluate(learning_rate: float | Schedule, step: ArrayLike) -> jax.Array:
    """Return a number or a schedule at `step`, as a schedule would."""
    if callable(learning_rate):
        return learning_rate(step)
    return jnp.full(jnp.shape(step), learning_rate, jnp.float32)
