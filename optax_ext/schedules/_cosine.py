"""Cosine schedules: one half period with an optional warm-up, or several with restarts."""

import dataclasses
import functools
import math

import pydantic

from optax_ext._core.field_types import (
    FLOAT32_MAX,
    Fraction,
    NonNegativeNumber,
    NonNegativeSteps,
    PositiveNumber,
    PositiveSteps,
    Steps,
)
from optax_ext._core.lazy import jax, jnp
from optax_ext._core.relative import resolved
from optax_ext._core.schema import problem
from optax_ext._core.steps import BeforeOffset, elapsed_steps, true_divide
from optax_ext.schedules._compile_eager import compile_eager
from optax_ext.schedules._milestones import Milestone, in_order, repetitions
from optax_ext.schedules._rate_per_batch import Rate
from optax_ext.schedules._schedule import Schedule


def _cosine(fraction: "jax.Array", alpha: float) -> "jax.Array":
    """Return a half cosine that falls from 1 at fraction 0 to `alpha` at fraction 1."""
    return (1 - alpha) * (0.5 * (1 + jnp.cos(jnp.pi * fraction))) + alpha


@dataclasses.dataclass(frozen=True)
class CosineDecay(Schedule):
    """A half cosine from the initial learning rate down to a fraction of it.

    ```text
    elapsed = min(step - offset, decay_steps)
    rate = initial_learning_rate * ((1 - alpha) * (1 + cos(pi * elapsed / decay_steps)) / 2 + alpha)
    ```

    With a ``warmup_target``, the rate first rises linearly from ``initial_learning_rate`` to the target over
    ``warmup_steps``, and then falls from the target over the next ``decay_steps``.

    Args:
      initial_learning_rate: The rate at the offset, at least 0.
      decay_steps: Number of steps of the decay, at least 1.
      alpha: The final rate as a fraction of the peak, in [0, 1].
      warmup_target: The peak after the warm-up, at least 0; None for no warm-up.
      warmup_steps: Number of steps of the warm-up, at least 0; ignored when ``warmup_target`` is None.
      offset: Number of steps subtracted from ``step`` first.
      before_offset: ``"extrapolate"`` applies the formula to the negative steps before the offset as well;
        ``"hold"`` returns the value at the offset for these steps.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import optax_ext
      >>> schedule = optax_ext.CosineDecay(initial_learning_rate=0.5, decay_steps=100, alpha=0.1)
      >>> print(schedule(0), schedule(100), schedule(10_000))
      0.5 0.05 0.05

    References:
      Loshchilov and Hutter, SGDR, [arXiv:1608.03983](https://arxiv.org/abs/1608.03983), equation 5.
    """

    initial_learning_rate: Rate
    decay_steps: PositiveSteps
    alpha: Fraction = 0.0
    warmup_target: Rate | None = None
    warmup_steps: NonNegativeSteps = 0
    offset: Steps = 0
    before_offset: BeforeOffset = "extrapolate"

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        elapsed = elapsed_steps(step, self.offset, self.before_offset)
        initial, warmup_steps = resolved(self.initial_learning_rate), resolved(self.warmup_steps)
        if self.warmup_target is None:
            return self._decay(initial, elapsed)
        target = resolved(self.warmup_target)
        decayed = self._decay(target, jnp.maximum(elapsed, warmup_steps) - warmup_steps)
        if warmup_steps == 0:
            since_start = jnp.minimum(elapsed, 0)  # before the offset the cosine extends backwards, as in TensorFlow
            return jnp.where(elapsed < 0, self._decay(target, since_start), decayed)
        rising = (target - initial) * true_divide(elapsed, warmup_steps) + initial
        return jnp.where(elapsed < warmup_steps, rising, decayed)

    def milestones(self) -> tuple[Milestone, ...]:
        """Return the offset, the end of the warm-up, if there is a target for one, and that of the fall."""
        if self.warmup_target is None and self.warmup_steps != 0:
            return dataclasses.replace(self, warmup_steps=0).milestones()
        return super().milestones()

    def is_zero(self) -> bool:
        """Whether the rate neither starts at more than 0 nor rises to it."""
        if self.warmup_target is None:
            return self.initial_learning_rate == 0
        return self.warmup_target == 0 and (self.initial_learning_rate == 0 or self.warmup_steps == 0)

    def _zero_from(self) -> int | None:
        rises = self.warmup_target is not None
        if self.alpha != 0 or not (self.initial_learning_rate or self.warmup_target):
            return None
        warmup_steps = resolved(self.warmup_steps) if rises else 0
        return resolved(self.offset) + warmup_steps + resolved(self.decay_steps)

    def _decay(self, peak: float, steps: "jax.Array") -> "jax.Array":
        decay_steps = resolved(self.decay_steps)
        return peak * _cosine(true_divide(jnp.minimum(steps, decay_steps), decay_steps), self.alpha)


@dataclasses.dataclass(frozen=True)
class CosineDecayRestarts(Schedule):
    """Half cosines one after another, each of which may be longer and lower than the one before.

    In period ``i``, counted from 0:

    ```text
    start = first_decay_steps * (1 + t_mul + ... + t_mul**(i - 1)), 0 for i = 0
    fraction = (step - offset - start) / (first_decay_steps * t_mul**i)
    rate = initial_learning_rate * ((1 - alpha) * m_mul**i * (1 + cos(pi * fraction)) / 2 + alpha)
    ```

    Args:
      initial_learning_rate: The rate at the start of the first period, at least 0.
      first_decay_steps: Number of steps of the first period, at least 1.
      t_mul: The factor by which each period is longer than the one before: 1, or at least 1.001.
      m_mul: The factor by which each cosine is higher than the one before, at least 0.
      alpha: The lowest rate as a fraction of the initial rate, in [0, 1].
      offset: Number of steps subtracted from ``step`` first.
      before_offset: ``"extrapolate"`` continues the first period's cosine to the negative steps before the
        offset; ``"hold"`` returns the value at the offset for these steps.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import optax_ext
      >>> schedule = optax_ext.CosineDecayRestarts(0.1, first_decay_steps=100, m_mul=0.5)
      >>> print(schedule(0), schedule(100), schedule(300))
      0.1 0.05 0.025

    References:
      Loshchilov and Hutter, SGDR, [arXiv:1608.03983](https://arxiv.org/abs/1608.03983), equation 5.

    Differs from TensorFlow:
      A period starts exactly at its first step. TensorFlow finds the period by a float32 logarithm, which may be a
      step late, and wrong by whole periods when they hardly grow. Periods that shrink (``t_mul`` below 1) are an
      error: their starts converge to a limit, from which on the rate is NaN.
    """

    initial_learning_rate: Rate
    first_decay_steps: PositiveSteps
    t_mul: PositiveNumber = 2.0
    m_mul: NonNegativeNumber = 1.0
    alpha: Fraction = 0.0
    offset: Steps = 0
    before_offset: BeforeOffset = "extrapolate"

    @pydantic.field_validator("t_mul")
    @classmethod
    def _check_t_mul(cls, t_mul: float) -> float:
        if t_mul != 1 and t_mul < 1.001:
            raise problem(f"must be 1, or at least 1.001, got {t_mul}")
        return t_mul

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        elapsed = elapsed_steps(step, self.offset, self.before_offset)
        period, fraction = self._even_periods(elapsed) if self.t_mul == 1 else self._growing_periods(elapsed)
        peak = jnp.minimum(jnp.float32(self.m_mul) ** period, FLOAT32_MAX)  # infinity times a rate of 0 would be NaN
        falling = 0.5 * peak * (1 + jnp.cos(jnp.pi * fraction))
        return resolved(self.initial_learning_rate) * ((1 - self.alpha) * falling + self.alpha)

    def milestones(self) -> tuple[Milestone, ...]:
        """Return the offset and the ends of the first periods, at which the rate restarts."""
        found = list(super().milestones())
        for n in repetitions():
            periods = sum(self.t_mul**i for i in range(n))  # in units of the first
            end = resolved(self.offset) + math.ceil(periods * resolved(self.first_decay_steps))
            found.append(Milestone(end, f"end of period {n}"))
        return in_order(found)

    def is_zero(self) -> bool:
        """Whether the rate starts at 0, of which all that follows is a multiple."""
        return self.initial_learning_rate == 0

    def _zero_from(self) -> int | None:
        only_one = self.m_mul == 0 and self.alpha == 0 and self.initial_learning_rate != 0
        return resolved(self.offset) + resolved(self.first_decay_steps) if only_one else None

    def _even_periods(self, elapsed: "jax.Array") -> "tuple[jax.Array, jax.Array]":
        length = resolved(self.first_decay_steps)
        period = jnp.maximum(elapsed // length, 0)
        fraction = true_divide(elapsed - period * length, length)
        return period.astype(jnp.float32), fraction

    def _growing_periods(self, elapsed: "jax.Array") -> "tuple[jax.Array, jax.Array]":
        starts, early, lengths = _starts_of_periods(resolved(self.first_decay_steps), self.t_mul)
        steps = jnp.asarray(starts, elapsed.dtype)
        period = jnp.maximum(jnp.searchsorted(steps, elapsed, side="right") - 1, 0)
        since_start = (elapsed - steps[period]).astype(jnp.float32) + jnp.asarray(early, jnp.float32)[period]
        return period.astype(jnp.float32), since_start / jnp.asarray(lengths, jnp.float32)[period]


@functools.lru_cache(maxsize=64)
def _starts_of_periods(first_decay_steps: int, t_mul: float) -> tuple[list[int], list[float], list[float]]:
    """Return, for each period up to the last int32 step, its first step, how far into it that step is, and its length.

    A rounded logarithm misses the starts of periods; sums of Python floats are precise enough to find them.
    """
    starts: list[int] = []
    early: list[float] = []
    lengths: list[float] = []
    start, length = 0.0, float(first_decay_steps)
    while start < 2**31:
        starts.append(math.ceil(start * (1 - 1e-12) - 1e-9))  # 1000 + 1100.0000000000001 is 2100
        early.append(max(starts[-1] - start, 0.0))
        lengths.append(min(length, FLOAT32_MAX))
        start, length = start + length, length * t_mul
    return starts, early, lengths
