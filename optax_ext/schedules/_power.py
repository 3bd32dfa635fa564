"""Learning rates that are a power of the step, plain, capped, or with a linear end."""

import dataclasses

from optax_ext._core.field_types import Fraction, Integer, NonNegativeInteger, NonNegativeNumber, Number
from optax_ext._core.lazy import jax, jnp
from optax_ext._core.steps import BeforeOffset, elapsed_steps, exact_step, true_divide
from optax_ext.schedules._compile_eager import compile_eager
from optax_ext.schedules._schedule import Schedule


def _power(elapsed: "jax.Array", power: float) -> "jax.Array":
    """Return the steps to a power, counting from 1 so that a negative power stays finite."""
    return jnp.maximum(elapsed, 1).astype(jnp.float32) ** jnp.float32(power)


@dataclasses.dataclass(frozen=True)
class DirectPowerDecay(Schedule):
    r"""A learning rate that is a power of the step: $\eta_0 \max(\mathrm{step}, 1)^{\mathrm{power}}$.

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

    initial_learning_rate: NonNegativeNumber
    power: Number = 1.0

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        return self.initial_learning_rate * _power(exact_step(step), self.power)


@dataclasses.dataclass(frozen=True)
class PowerDecay(Schedule):
    r"""A learning rate that is a power of the steps since an offset, capped.

    With $t$ = ``step - offset``: $\min(\eta_0 t^{\mathrm{power}}, c)$ for $t > 0$ and $c$ before, where $c$ is
    ``pre_offset_learning_rate``. (``PowerDecayWithOffset`` in Model Garden.)

    Args:
      initial_learning_rate: The rate one step after the offset, at least 0.
      power: The exponent; negative to decay.
      offset: Steps subtracted from the step first.
      pre_offset_learning_rate: The rate up to the offset, and the highest after it; at least 0.
      before_offset: Either value gives the same here, since the rate is constant up to the offset.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import optax_ext
      >>> schedule = optax_ext.PowerDecay(0.5, power=-0.5, offset=100, pre_offset_learning_rate=0.4)
      >>> print(schedule(0), schedule(101), schedule(104))
      0.4 0.4 0.25
    """

    initial_learning_rate: NonNegativeNumber
    power: Number = 1.0
    offset: Integer = 0
    pre_offset_learning_rate: NonNegativeNumber = 1e6
    before_offset: BeforeOffset = "extrapolate"

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        elapsed = elapsed_steps(step, self.offset, self.before_offset)
        decayed = jnp.minimum(self.initial_learning_rate * _power(elapsed, self.power), self.pre_offset_learning_rate)
        return jnp.where(elapsed > 0, decayed, self.pre_offset_learning_rate)


@dataclasses.dataclass(frozen=True)
class PowerAndLinearDecay(Schedule):
    r"""A learning rate that is a power of the steps since an offset, and falls linearly to zero at the end.

    With $t$ = ``step - offset``, $T$ = ``total_decay_steps`` and $f$ = ``linear_decay_fraction``:

    $$\eta_0 \max(t, 1)^{\mathrm{power}} \cdot \min\!\left(1, \max\!\left(0, \frac{T - t}{f T}\right)\right)$$

    without the second factor where $f T = 0$.

    Args:
      initial_learning_rate: The rate up to one step after the offset, at least 0.
      total_decay_steps: Steps after which the rate is 0; 0 for no linear fall.
      power: The exponent; negative to decay.
      linear_decay_fraction: The part of the steps, at their end, in which the rate falls linearly, in [0, 1].
      offset: Steps subtracted from the step first.
      before_offset: ``"extrapolate"`` applies the formula to the negative steps before the offset too,
        ``"hold"`` returns there the value at the offset. They are the same, unless the fall starts there.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import optax_ext
      >>> schedule = optax_ext.PowerAndLinearDecay(1.0, total_decay_steps=100, power=-0.5, linear_decay_fraction=0.5)
      >>> print(schedule(1), schedule(25), schedule(100))
      1.0 0.2 0.0
    """

    initial_learning_rate: NonNegativeNumber
    total_decay_steps: NonNegativeInteger
    power: Number = 1.0
    linear_decay_fraction: Fraction = 0.1
    offset: Integer = 0
    before_offset: BeforeOffset = "extrapolate"

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        elapsed = elapsed_steps(step, self.offset, self.before_offset)
        rate = self.initial_learning_rate * _power(elapsed, self.power)
        linear_steps = self.total_decay_steps * self.linear_decay_fraction
        if linear_steps == 0:
            return rate
        left = self.total_decay_steps - jnp.clip(elapsed, 0, self.total_decay_steps)
        return rate * jnp.minimum(true_divide(left, linear_steps), 1)

    def _zero_from(self) -> int | None:
        falls = self.total_decay_steps * self.linear_decay_fraction > 0
        return self.offset + self.total_decay_steps if falls and self.initial_learning_rate != 0 else None
