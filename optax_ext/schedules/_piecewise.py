"""Schedules made of constant or cosine pieces between boundaries."""

import dataclasses
import itertools
from collections.abc import Sequence

import pydantic

from optax_ext._core.field_types import ListOf, NonNegativeSteps, Steps
from optax_ext._core.lazy import jax, jnp
from optax_ext._core.relative import is_relative, resolved
from optax_ext._core.schema import problem
from optax_ext._core.steps import BeforeOffset, elapsed_steps, exact_step, true_divide
from optax_ext.schedules._compile_eager import compile_eager
from optax_ext.schedules._milestones import Milestone
from optax_ext.schedules._rate_per_batch import Rate, RatePerBatch
from optax_ext.schedules._schedule import Schedule

_Values = tuple[float | RatePerBatch, ...]


@dataclasses.dataclass(frozen=True)
class Constant(Schedule):
    """The same learning rate at every step.

    Args:
      learning_rate: The rate, at least 0.

    Raises:
      ConfigError: If the rate is negative or non-finite.

    Examples:
      >>> import optax_ext
      >>> print(optax_ext.Constant(0.1)(1_000))
      0.1
    """

    learning_rate: Rate

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        return jnp.full(jnp.shape(exact_step(step)), resolved(self.learning_rate), jnp.float32)

    def milestones(self) -> tuple[Milestone, ...]:
        """Return none: every step is like any other."""
        return ()

    def is_zero(self) -> bool:
        """Whether the rate is 0."""
        return self.learning_rate == 0


def increasing(boundaries: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return boundaries; raise, inside a validator, unless they are in strict order, where that is known."""
    if is_relative(boundaries):  # how they compare is known with the run
        return boundaries
    steps = map(resolved, boundaries)
    if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
        raise problem(f"must be strictly increasing, got {list(boundaries)}")
    return boundaries


def _first_zero(values: Sequence[float | RatePerBatch]) -> int | None:
    """Return the index where trailing zeros in `values` begin, or None without any or with nothing before them."""
    before = len(values)
    while before and values[before - 1] == 0:
        before -= 1
    return before if 0 < before < len(values) else None


def _one_value_each(values: _Values, info: pydantic.ValidationInfo, extra: int) -> _Values:
    """Check the number of `values`, provided that the boundaries themselves are valid."""
    boundaries = info.data.get("boundaries")
    if boundaries is not None and len(values) != len(boundaries) + extra:
        raise problem(
            f"must have {len(boundaries) + extra} entries for {len(boundaries)} boundaries, got {len(values)}"
        )
    return values


@dataclasses.dataclass(frozen=True)
class PiecewiseConstantDecay(Schedule):
    """A learning rate that is constant between boundaries.

    ```text
    elapsed = step - offset
    rate = values[0]   if elapsed <= boundaries[0]
           values[i]   if boundaries[i - 1] < elapsed <= boundaries[i]
           values[-1]  if elapsed > boundaries[-1]
    ```

    A boundary step still has the old value.

    Args:
      boundaries: Steps after which the rate changes, strictly increasing, each at least 0.
      values: Learning rates, each at least 0, one more than there are boundaries.
      offset: Number of steps subtracted from ``step`` first.
      before_offset: ``"extrapolate"`` applies the formula to the negative steps before the offset as well;
        ``"hold"`` returns the value at the offset for these steps.

    Raises:
      ConfigError: If the boundaries are not increasing, or there are too few or too many values.

    Examples:
      >>> import optax_ext
      >>> schedule = optax_ext.PiecewiseConstantDecay(boundaries=(100, 200), values=(1.0, 0.5, 0.1))
      >>> print(schedule(100), schedule(101), schedule(1_000))
      1.0 0.5 0.1

    Differs from TensorFlow:
      Steps are compared exactly, as integers. TensorFlow's optimizers compare in float32, which is one step late
      past 2**24. Unsorted boundaries are an error at construction, not at some step.
    """

    boundaries: ListOf[NonNegativeSteps]
    values: ListOf[Rate]
    offset: Steps = 0
    before_offset: BeforeOffset = "extrapolate"

    _check_boundaries = pydantic.field_validator("boundaries")(increasing)

    @pydantic.field_validator("values")
    @classmethod
    def _check_values(cls, values: _Values, info: pydantic.ValidationInfo) -> _Values:
        return _one_value_each(values, info, extra=1)

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        elapsed = elapsed_steps(step, self.offset, self.before_offset)
        passed = elapsed[..., None] > jnp.asarray([*map(resolved, self.boundaries)], elapsed.dtype)
        return jnp.asarray([*map(resolved, self.values)], jnp.float32)[jnp.sum(passed, axis=-1)]

    def is_zero(self) -> bool:
        """Whether every value is 0."""
        return not any(self.values)

    def _zero_from(self) -> int | None:
        first = _first_zero(self.values)
        return None if first is None else resolved(self.offset) + resolved(self.boundaries[first - 1]) + 1


@dataclasses.dataclass(frozen=True)
class StepCosineDecay(Schedule):
    """A half cosine from one value to the next between boundaries.

    In the piece that starts at ``boundaries[i]``:

    ```text
    start = boundaries[i], but 0 for i = 0
    fraction = (step - offset - start) / (boundaries[i + 1] - boundaries[i])
    rate = values[i + 1] + (values[i] - values[i + 1]) * (1 + cos(pi * fraction)) / 2
    ```

    The first piece counts from the offset wherever its boundary is, as in TensorFlow. From the last boundary on, the
    rate is the last value.

    Args:
      boundaries: Steps at which pieces start, at least one; strictly increasing, each at least 0.
      values: Learning rates at the boundaries, each at least 0, as many as there are boundaries.
      offset: Number of steps subtracted from ``step`` first.
      before_offset: ``"extrapolate"`` applies the formula to the negative steps before the offset as well;
        ``"hold"`` returns the value at the offset for these steps.

    Raises:
      ConfigError: If the boundaries are not increasing, or there are too few or too many values.

    Examples:
      >>> import optax_ext
      >>> schedule = optax_ext.StepCosineDecay(boundaries=(0, 100, 200), values=(1.0, 0.5, 0.1))
      >>> print(schedule(0), schedule(50), schedule(100), schedule(200))
      1.0 0.75 0.5 0.1

    Differs from TensorFlow:
      ``StepCosineDecayWithOffset`` divides by zero and returns NaN from its last boundary on.
    """

    boundaries: ListOf[NonNegativeSteps]
    values: ListOf[Rate]
    offset: Steps = 0
    before_offset: BeforeOffset = "extrapolate"

    @pydantic.field_validator("boundaries")
    @classmethod
    def _check_boundaries(cls, boundaries: tuple[int | str, ...]) -> tuple[int | str, ...]:
        if not boundaries:
            raise problem("must have at least 1 entry, got none")
        return increasing(boundaries)

    @pydantic.field_validator("values")
    @classmethod
    def _check_values(cls, values: _Values, info: pydantic.ValidationInfo) -> _Values:
        return _one_value_each(values, info, extra=0)

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        elapsed = elapsed_steps(step, self.offset, self.before_offset)
        boundaries, values = [*map(resolved, self.boundaries)], [*map(resolved, self.values)]
        rate = jnp.full(elapsed.shape, values[-1], jnp.float32)
        pieces = list(zip(itertools.pairwise(boundaries), itertools.pairwise(values), strict=True))
        for index, ((start, end), (value, next_value)) in reversed(list(enumerate(pieces))):
            since = elapsed if index == 0 else jnp.maximum(elapsed, start) - start
            fraction = true_divide(since, end - start)
            cosine = next_value + (value - next_value) * (jnp.cos(jnp.pi * fraction) + 1) / 2
            rate = jnp.where(elapsed < end, cosine, rate)
        return rate

    def is_zero(self) -> bool:
        """Whether every value is 0."""
        return not any(self.values)

    def _zero_from(self) -> int | None:
        first = _first_zero(self.values)
        return None if first is None else resolved(self.offset) + resolved(self.boundaries[first])
