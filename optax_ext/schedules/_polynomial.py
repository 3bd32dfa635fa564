"""A polynomial from one learning rate to another."""

import dataclasses

from optax_ext._core.field_types import Integer, NonNegativeNumber, Number, PositiveInteger
from optax_ext._core.lazy import jax, jnp
from optax_ext._core.steps import BeforeOffset, elapsed_steps, true_divide
from optax_ext.schedules._compile_eager import compile_eager
from optax_ext.schedules._schedule import Schedule


@dataclasses.dataclass(frozen=True)
class PolynomialDecay(Schedule):
    r"""A polynomial from the initial learning rate to the final one; linear with power 1.

    With $t$ = ``step - offset`` held at $T$ = ``decay_steps``:

    $$(\eta_0 - \eta_T) (1 - t / T)^{\mathrm{power}} + \eta_T$$

    With ``cycle``, $t$ is not held: $T$ is the first multiple of ``decay_steps`` that is not less than $t$.

    Args:
      initial_learning_rate: The rate at the offset, at least 0.
      decay_steps: Steps from the initial to the final rate, at least 1.
      end_learning_rate: The final rate, at least 0.
      power: The exponent. Below 0 the rate is infinite at the end, as the formula says.
      cycle: Whether to start again, ever longer, rather than stay at the final rate.
      offset: Steps subtracted from the step first.
      before_offset: ``"extrapolate"`` applies the formula to the negative steps before the offset too,
        ``"hold"`` returns there the value at the offset.

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

    initial_learning_rate: NonNegativeNumber
    decay_steps: PositiveInteger
    end_learning_rate: NonNegativeNumber = 1e-4
    power: Number = 1.0
    cycle: bool = False
    offset: Integer = 0
    before_offset: BeforeOffset = "extrapolate"

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        elapsed = elapsed_steps(step, self.offset, self.before_offset)
        if self.cycle:
            cycles = jnp.maximum(-(-elapsed // self.decay_steps), 1)  # rounded up, in integers where steps are
            fraction = elapsed.astype(jnp.float32) / (cycles.astype(jnp.float32) * self.decay_steps)
        else:
            fraction = true_divide(jnp.minimum(elapsed, self.decay_steps), self.decay_steps)
        span = self.initial_learning_rate - self.end_learning_rate
        left = jnp.maximum(1 - fraction, 0)  # a quotient rounded up must not make a power of a negative number
        return span * left ** jnp.float32(self.power) + self.end_learning_rate

    def _zero_from(self) -> int | None:
        ends_at_zero = self.end_learning_rate == 0 and self.power > 0 and not self.cycle
        return self.offset + self.decay_steps if ends_at_zero and self.initial_learning_rate != 0 else None
