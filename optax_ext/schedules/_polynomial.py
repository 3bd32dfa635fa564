"""A polynomial from one learning rate to another."""

import dataclasses

from optax_ext._core.field_types import Number, PositiveSteps, Steps
from optax_ext._core.lazy import jax, jnp
from optax_ext._core.relative import resolved
from optax_ext._core.steps import BeforeOffset, elapsed_steps, true_divide
from optax_ext.schedules._compile_eager import compile_eager
from optax_ext.schedules._milestones import Milestone, in_order, repetitions
from optax_ext.schedules._rate_per_batch import Rate
from optax_ext.schedules._schedule import Schedule


@dataclasses.dataclass(frozen=True)
class PolynomialDecay(Schedule):
    """A polynomial from the initial learning rate to the final one; linear with a power of 1.

    ```text
    fraction = min(step - offset, decay_steps) / decay_steps
    rate = (initial_learning_rate - end_learning_rate) * (1 - fraction) ** power + end_learning_rate
    ```

    With ``cycle``, ``fraction`` is ``step - offset`` divided by the first positive multiple of ``decay_steps`` that is
    at least ``step - offset``.

    Args:
      initial_learning_rate: The rate at the offset, at least 0.
      decay_steps: Number of steps from the initial to the final rate, at least 1.
      end_learning_rate: The final rate, at least 0.
      power: The exponent. If it is negative, the rate is infinite at the end.
      cycle: Whether to restart every ``decay_steps``, lower each time, rather than stay at the final rate.
      offset: Number of steps subtracted from ``step`` first.
      before_offset: ``"extrapolate"`` applies the formula to the negative steps before the offset as well;
        ``"hold"`` returns the value at the offset for these steps.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import optax_ext
      >>> schedule = optax_ext.PolynomialDecay(1.0, decay_steps=100, end_learning_rate=0.0, power=2.0)
      >>> print(schedule(0), schedule(50), schedule(100))
      1.0 0.25 0.0

    Differs from TensorFlow:
      With ``cycle``, the steps before an offset belong to the first cycle; TensorFlow divides by zero or by
      a negative length there.
    """

    initial_learning_rate: Rate
    decay_steps: PositiveSteps
    end_learning_rate: Rate = 1e-4
    power: Number = 1.0
    cycle: bool = False
    offset: Steps = 0
    before_offset: BeforeOffset = "extrapolate"

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        elapsed = elapsed_steps(step, self.offset, self.before_offset)
        decay_steps, end = resolved(self.decay_steps), resolved(self.end_learning_rate)
        if self.cycle:
            cycles = jnp.maximum(-(-elapsed // decay_steps), 1)  # rounded up, exact for integer steps
            fraction = true_divide(elapsed, cycles.astype(jnp.float32) * decay_steps)
        else:
            fraction = true_divide(jnp.minimum(elapsed, decay_steps), decay_steps)
        span = resolved(self.initial_learning_rate) - end
        left = jnp.maximum(1 - fraction, 0)  # rounding must not make the base negative, whose power is NaN
        return span * left ** jnp.float32(self.power) + end

    def milestones(self) -> tuple[Milestone, ...]:
        """Return the offset and the end, or those of the first cycles."""
        numbers = repetitions() if self.cycle else ()
        offset, length = resolved(self.offset), resolved(self.decay_steps)
        cycles = [Milestone(offset + n * length, f"end of cycle {n}") for n in numbers]
        return in_order([*super().milestones(), *cycles])

    def is_zero(self) -> bool:
        """Whether the rate goes from 0 to 0."""
        return self.initial_learning_rate == 0 and self.end_learning_rate == 0

    def _zero_from(self) -> int | None:
        ends_at_zero = self.end_learning_rate == 0 and self.power > 0 and not self.cycle
        falls = ends_at_zero and self.initial_learning_rate != 0
        return resolved(self.offset) + resolved(self.decay_steps) if falls else None
