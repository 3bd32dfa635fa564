"""Schedules with a decay rate per ``decay_steps``: exponential and inverse-time decay."""

import dataclasses
import math

from optax_ext._core.field_types import NonNegativeNumber, PositiveNumber, PositiveNumberOfSteps, Steps
from optax_ext._core.lazy import jax, jnp
from optax_ext._core.relative import resolved
from optax_ext._core.steps import BeforeOffset, elapsed_steps, true_divide
from optax_ext.schedules._compile_eager import compile_eager
from optax_ext.schedules._milestones import Milestone, in_order, repetitions
from optax_ext.schedules._rate_per_batch import Rate
from optax_ext.schedules._schedule import Schedule


def _periods(elapsed: "jax.Array", decay_steps: float, staircase: bool) -> "jax.Array":
    """Return how many times `decay_steps` has elapsed, rounded down for a staircase."""
    if not staircase:
        return true_divide(elapsed, decay_steps)
    if decay_steps.is_integer() and jnp.issubdtype(elapsed.dtype, jnp.integer):
        return (elapsed // int(decay_steps)).astype(jnp.float32)  # exact for any step
    return jnp.floor(true_divide(elapsed, decay_steps))


@dataclasses.dataclass(frozen=True)
class ExponentialDecay(Schedule):
    """A learning rate multiplied by a constant every ``decay_steps``.

    ```text
    rate = initial_learning_rate * decay_rate ** ((step - offset) / decay_steps)
    ```

    With ``staircase``, the exponent is rounded down.

    Args:
      initial_learning_rate: The rate at the offset, at least 0.
      decay_steps: Number of steps between two multiplications, positive; may be fractional.
      decay_rate: The factor, positive.
      staircase: Whether the rate stays constant between multiplications.
      offset: Number of steps subtracted from ``step`` first.
      before_offset: ``"extrapolate"`` applies the formula to the negative steps before the offset as well;
        ``"hold"`` returns the value at the offset for these steps.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import optax_ext
      >>> schedule = optax_ext.ExponentialDecay(0.5, decay_steps=100, decay_rate=0.5, staircase=True)
      >>> print(schedule(0), schedule(99), schedule(100), schedule(200))
      0.5 0.5 0.25 0.125
    """

    initial_learning_rate: Rate
    decay_steps: PositiveNumberOfSteps
    decay_rate: PositiveNumber
    staircase: bool = False
    offset: Steps = 0
    before_offset: BeforeOffset = "extrapolate"

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        elapsed = elapsed_steps(step, self.offset, self.before_offset)
        periods = _periods(elapsed, resolved(self.decay_steps), self.staircase)
        return resolved(self.initial_learning_rate) * jnp.float32(self.decay_rate) ** periods

    def milestones(self) -> tuple[Milestone, ...]:
        """Return the offset and the first multiples of ``decay_steps`` after it."""
        offset, length = resolved(self.offset), resolved(self.decay_steps)
        multiples = ((n, offset + math.ceil(n * length)) for n in repetitions())
        return in_order([*super().milestones(), *(Milestone(step, f"{n} x decay_steps") for n, step in multiples)])

    def is_zero(self) -> bool:
        """Whether the rate starts at 0, of which all that follows is a multiple."""
        return self.initial_learning_rate == 0


@dataclasses.dataclass(frozen=True)
class InverseTimeDecay(Schedule):
    """A learning rate divided by a number that grows linearly with the step.

    ```text
    rate = initial_learning_rate / (1 + decay_rate * (step - offset) / decay_steps)
    ```

    With ``staircase``, ``(step - offset) / decay_steps`` is rounded down.

    Args:
      initial_learning_rate: The rate at the offset, at least 0.
      decay_steps: Number of steps in which the divisor grows by ``decay_rate``, positive; may be fractional.
      decay_rate: The growth of the divisor per ``decay_steps``, at least 0.
      staircase: Whether the rate stays constant for ``decay_steps`` at a time.
      offset: Number of steps subtracted from ``step`` first.
      before_offset: ``"extrapolate"`` applies the formula to the negative steps before the offset as well, where
        its divisor can reach zero; ``"hold"`` returns the value at the offset for these steps.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import optax_ext
      >>> schedule = optax_ext.InverseTimeDecay(0.5, decay_steps=100, decay_rate=1.0)
      >>> print(schedule(0), schedule(100), schedule(300))
      0.5 0.25 0.125
    """

    initial_learning_rate: Rate
    decay_steps: PositiveNumberOfSteps
    decay_rate: NonNegativeNumber
    staircase: bool = False
    offset: Steps = 0
    before_offset: BeforeOffset = "extrapolate"

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        elapsed = elapsed_steps(step, self.offset, self.before_offset)
        periods = _periods(elapsed, resolved(self.decay_steps), self.staircase)
        return resolved(self.initial_learning_rate) / (1 + self.decay_rate * periods)

    def milestones(self) -> tuple[Milestone, ...]:
        """Return the offset and the first multiples of ``decay_steps`` after it."""
        offset, length = resolved(self.offset), resolved(self.decay_steps)
        multiples = ((n, offset + math.ceil(n * length)) for n in repetitions())
        return in_order([*super().milestones(), *(Milestone(step, f"{n} x decay_steps") for n, step in multiples)])

    def is_zero(self) -> bool:
        """Whether the rate starts at 0, of which all that follows is a multiple."""
        return self.initial_learning_rate == 0
