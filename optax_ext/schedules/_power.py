"""Learning rates that are a power of the step: plain, capped, or with a linear decay at the end."""

import dataclasses
import math

from optax_ext._core.field_types import Fraction, NonNegativeSteps, Number, Steps
from optax_ext._core.lazy import jax, jnp
from optax_ext._core.relative import resolved
from optax_ext._core.steps import BeforeOffset, elapsed_steps, exact_step, true_divide
from optax_ext.schedules._compile_eager import compile_eager
from optax_ext.schedules._milestones import Milestone, in_order
from optax_ext.schedules._rate_per_batch import Rate
from optax_ext.schedules._schedule import Schedule


def _power(elapsed: "jax.Array", power: float) -> "jax.Array":
    """Return the steps, at least 1 so that a negative power stays finite, raised to a power."""
    return jnp.maximum(elapsed, 1).astype(jnp.float32) ** jnp.float32(power)


@dataclasses.dataclass(frozen=True)
class DirectPowerDecay(Schedule):
    """A learning rate that is a power of the step.

    ```text
    rate = initial_learning_rate * max(step, 1) ** power
    ```

    Args:
      initial_learning_rate: The rate at steps 0 and 1, at least 0.
      power: The exponent; negative to decay.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import optax_ext
      >>> schedule = optax_ext.DirectPowerDecay(0.5, power=-0.5)
      >>> print(schedule(0), schedule(4), schedule(100))
      0.5 0.25 0.05
    """

    initial_learning_rate: Rate
    power: Number = 1.0

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        return resolved(self.initial_learning_rate) * _power(exact_step(step), self.power)

    def is_zero(self) -> bool:
        """Whether the rate starts at 0, of which all that follows is a multiple."""
        return self.initial_learning_rate == 0


@dataclasses.dataclass(frozen=True)
class PowerDecay(Schedule):
    """A learning rate that is a power of the steps since an offset, capped.

    ```text
    elapsed = step - offset
    rate = min(initial_learning_rate * elapsed ** power, pre_offset_learning_rate)  if elapsed > 0
           pre_offset_learning_rate                                                 otherwise
    ```

    Model Garden calls it ``PowerDecayWithOffset``.

    Args:
      initial_learning_rate: The rate one step after the offset, at least 0.
      power: The exponent; negative to decay.
      offset: Number of steps subtracted from ``step`` first.
      pre_offset_learning_rate: The rate up to the offset and the maximum after it, at least 0.
      before_offset: Either value gives the same rates, since the rate is constant up to the offset.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import optax_ext
      >>> schedule = optax_ext.PowerDecay(0.5, power=-0.5, offset=100, pre_offset_learning_rate=0.4)
      >>> print(schedule(0), schedule(101), schedule(104))
      0.4 0.4 0.25
    """

    initial_learning_rate: Rate
    power: Number = 1.0
    offset: Steps = 0
    pre_offset_learning_rate: Rate = 1e6
    before_offset: BeforeOffset = "extrapolate"

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        elapsed = elapsed_steps(step, self.offset, self.before_offset)
        before = resolved(self.pre_offset_learning_rate)
        decayed = jnp.minimum(resolved(self.initial_learning_rate) * _power(elapsed, self.power), before)
        return jnp.where(elapsed > 0, decayed, before)

    def is_zero(self) -> bool:
        """Whether the rate is 0 after the offset, and there is no step before it or the rate is 0 there too."""
        return self.pre_offset_learning_rate == 0 or (self.initial_learning_rate == 0 and resolved(self.offset) < 0)


@dataclasses.dataclass(frozen=True)
class PowerAndLinearDecay(Schedule):
    """A learning rate that is a power of the steps since an offset, and falls linearly to zero at the end.

    ```text
    elapsed = step - offset
    linear_steps = total_decay_steps * linear_decay_fraction
    linear = clip((total_decay_steps - elapsed) / linear_steps, 0, 1)
    rate = initial_learning_rate * max(elapsed, 1) ** power * linear
    ```

    If ``linear_steps`` is 0, ``linear`` is 1.

    Args:
      initial_learning_rate: The rate up to the offset, at least 0.
      total_decay_steps: Number of steps after which the rate is 0, at least 0; 0 for no linear decay.
      power: The exponent; negative to decay.
      linear_decay_fraction: The fraction of the steps, at their end, in which the rate falls linearly, in [0, 1].
      offset: Number of steps subtracted from ``step`` first.
      before_offset: Either value gives the same rates, since the rate is constant up to the offset.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import optax_ext
      >>> schedule = optax_ext.PowerAndLinearDecay(1.0, total_decay_steps=100, power=-0.5, linear_decay_fraction=0.5)
      >>> print(schedule(1), schedule(25), schedule(100))
      1.0 0.2 0.0
    """

    initial_learning_rate: Rate
    total_decay_steps: NonNegativeSteps
    power: Number = 1.0
    linear_decay_fraction: Fraction = 0.1
    offset: Steps = 0
    before_offset: BeforeOffset = "extrapolate"

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        elapsed = elapsed_steps(step, self.offset, self.before_offset)
        rate = resolved(self.initial_learning_rate) * _power(elapsed, self.power)
        total_steps = resolved(self.total_decay_steps)
        linear_steps = total_steps * self.linear_decay_fraction
        if linear_steps == 0:
            return rate
        left = total_steps - jnp.clip(elapsed, 0, total_steps)
        return rate * jnp.minimum(true_divide(left, linear_steps), 1)

    def milestones(self) -> tuple[Milestone, ...]:
        """Return the offset, the start of the linear fall, and its end."""
        found = list(super().milestones())
        total_steps = resolved(self.total_decay_steps)
        if total_steps > 0 and 0 < self.linear_decay_fraction < 1:
            fall = resolved(self.offset) + math.ceil((1 - self.linear_decay_fraction) * total_steps)
            found.append(Milestone(fall, "start of the linear fall"))
        return in_order(found)

    def is_zero(self) -> bool:
        """Whether the rate starts at 0, of which all that follows is a multiple."""
        return self.initial_learning_rate == 0

    def _zero_from(self) -> int | None:
        total_steps = resolved(self.total_decay_steps)
        falls = total_steps * self.linear_decay_fraction > 0
        return resolved(self.offset) + total_steps if falls and self.initial_learning_rate != 0 else None
