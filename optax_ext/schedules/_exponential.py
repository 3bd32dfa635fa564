"""Schedules that decay by a rate each so many steps: exponential, and inverse in time."""

import dataclasses

from optax_ext._core.field_types import Integer, NonNegativeNumber, PositiveNumber
from optax_ext._core.lazy import jax, jnp
from optax_ext._core.steps import BeforeOffset, elapsed_steps, true_divide
from optax_ext.schedules._compile_eager import compile_eager
from optax_ext.schedules._schedule import Schedule


def _periods(elapsed: "jax.Array", decay_steps: float, staircase: bool) -> "jax.Array":
    """Return how many times `decay_steps` have passed, in whole numbers for a staircase."""
    if not staircase:
        return true_divide(elapsed, decay_steps)
    if decay_steps.is_integer() and jnp.issubdtype(elapsed.dtype, jnp.integer):
        return (elapsed // int(decay_steps)).astype(jnp.float32)  # exact, however late the step
    return jnp.floor(true_divide(elapsed, decay_steps))


@dataclasses.dataclass(frozen=True)
class ExponentialDecay(Schedule):
    r"""A learning rate multiplied by a constant every so many steps.

    With $t$ = ``step - offset``: $\eta_0 \cdot \mathrm{decay\_rate}^{t / \mathrm{decay\_steps}}$, the exponent rounded
    down if ``staircase``.

    Args:
      initial_learning_rate: The rate at the offset, at least 0.
      decay_steps: Steps between two multiplications, more than 0; may be fractional.
      decay_rate: The factor, more than 0.
      staircase: Whether the rate stays constant between multiplications.
      offset: Steps subtracted from the step first.
      before_offset: ``"extrapolate"`` applies the formula to the negative steps before the offset too,
        ``"hold"`` returns there the value at the offset.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import optax_ext
      >>> schedule = optax_ext.ExponentialDecay(0.5, decay_steps=100, decay_rate=0.5, staircase=True)
      >>> print(schedule(0), schedule(99), schedule(100), schedule(200))
      0.5 0.5 0.25 0.125
    """

    initial_learning_rate: NonNegativeNumber
    decay_steps: PositiveNumber
    decay_rate: PositiveNumber
    staircase: bool = False
    offset: Integer = 0
    before_offset: BeforeOffset = "extrapolate"

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        elapsed = elapsed_steps(step, self.offset, self.before_offset)
        periods = _periods(elapsed, self.decay_steps, self.staircase)
        return self.initial_learning_rate * jnp.float32(self.decay_rate) ** periods


@dataclasses.dataclass(frozen=True)
class InverseTimeDecay(Schedule):
    r"""A learning rate divided by a number that grows with time.

    With $t$ = ``step - offset``: $\eta_0 / (1 + \mathrm{decay\_rate} \cdot t / \mathrm{decay\_steps})$, the quotient
    $t / \mathrm{decay\_steps}$ rounded down if ``staircase``.

    Args:
      initial_learning_rate: The rate at the offset, at least 0.
      decay_steps: Steps in which the divisor grows by ``decay_rate``, more than 0; may be fractional.
      decay_rate: How much the divisor grows, at least 0.
      staircase: Whether the rate stays constant for ``decay_steps`` at a time.
      offset: Steps subtracted from the step first.
      before_offset: ``"extrapolate"`` applies the formula to the negative steps before the offset too, where
        its divisor passes through zero if they are many; ``"hold"`` returns there the value at the offset.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import optax_ext
      >>> schedule = optax_ext.InverseTimeDecay(0.5, decay_steps=100, decay_rate=1.0)
      >>> print(schedule(0), schedule(100), schedule(300))
      0.5 0.25 0.125
    """

    initial_learning_rate: NonNegativeNumber
    decay_steps: PositiveNumber
    decay_rate: NonNegativeNumber
    staircase: bool = False
    offset: Integer = 0
    before_offset: BeforeOffset = "extrapolate"

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        elapsed = elapsed_steps(step, self.offset, self.before_offset)
        periods = _periods(elapsed, self.decay_steps, self.staircase)
        return self.initial_learning_rate / (1 + self.decay_rate * periods)
