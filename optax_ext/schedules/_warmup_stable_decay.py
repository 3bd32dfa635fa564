"""Warm-up, stable rate and decay: a run whose length need not be known before it is cooled down."""

import dataclasses
from typing import Literal

from optax_ext._core.field_types import NonNegativeSteps, PositiveSteps, Steps
from optax_ext._core.lazy import jax, jnp
from optax_ext._core.relative import resolved
from optax_ext._core.steps import BeforeOffset, elapsed_steps, true_divide
from optax_ext.schedules._compile_eager import compile_eager
from optax_ext.schedules._milestones import Milestone
from optax_ext.schedules._rate_per_batch import Rate
from optax_ext.schedules._schedule import Schedule


@dataclasses.dataclass(frozen=True)
class WarmupStableDecay(Schedule):
    """A linear rise, a constant rate, and a fall at the end: the "WSD" or "trapezoidal" schedule.

    ```text
    elapsed = step - offset
    since_fall = elapsed - warmup_steps - stable_steps
    fraction = min(since_fall, decay_steps) / decay_steps
    start, peak, end = warmup_learning_rate, learning_rate, end_learning_rate
    rate = start + (peak - start) * elapsed / warmup_steps  if elapsed < warmup_steps
           peak                                             if since_fall < 0
           end + (peak - end) * left(fraction)              otherwise
    ```

    ``left(fraction)`` is ``1 - fraction`` for ``"linear"``, ``(1 + cos(pi * fraction)) / 2`` for ``"cosine"``, and
    ``1 - sqrt(fraction)`` for ``"1-sqrt"``. A run can go on at the constant rate, and be cooled down from any of its
    checkpoints: only ``stable_steps`` and ``decay_steps`` then differ.

    Args:
      learning_rate: The rate between warm-up and decay, at least 0.
      warmup_steps: Number of steps of the warm-up, at least 0; 0 for none.
      stable_steps: Number of steps at the constant rate, at least 0.
      decay_steps: Number of steps of the decay, at least 1.
      decay_type: How the rate falls: ``"linear"``, ``"cosine"`` or ``"1-sqrt"``.
      warmup_learning_rate: The rate at the offset, where the warm-up starts, at least 0.
      end_learning_rate: The rate at the end of the decay and after it, at least 0.
      offset: Number of steps subtracted from ``step`` first.
      before_offset: ``"hold"`` returns the value at the offset for the steps before it; ``"extrapolate"`` applies the
        formula to these as well, where a warm-up from 0 is negative.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import optax_ext
      >>> schedule = optax_ext.WarmupStableDecay(0.5, warmup_steps=10, stable_steps=70, decay_steps=20)
      >>> print(schedule(0), schedule(5), schedule(10), schedule(80), schedule(90), schedule(100))
      0.0 0.25 0.5 0.5 0.25 0.0

    References:
      Hu et al., MiniCPM, [arXiv:2404.06395](https://arxiv.org/abs/2404.06395), equation 1.
      Hägele et al., [arXiv:2405.18392](https://arxiv.org/abs/2405.18392), equations 1 and 2, for ``"1-sqrt"``.
    """

    learning_rate: Rate
    warmup_steps: NonNegativeSteps
    stable_steps: NonNegativeSteps
    decay_steps: PositiveSteps
    decay_type: Literal["linear", "cosine", "1-sqrt"] = "linear"
    warmup_learning_rate: Rate = 0.0
    end_learning_rate: Rate = 0.0
    offset: Steps = 0
    before_offset: BeforeOffset = "hold"

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        elapsed = elapsed_steps(step, self.offset, self.before_offset)
        warmup_steps, stable_steps, decay_steps = self._steps()
        start, peak, end = map(resolved, (self.warmup_learning_rate, self.learning_rate, self.end_learning_rate))
        # One subtraction after another, since the sum of the steps may be no int32.
        since_warmup = jnp.maximum(elapsed, warmup_steps) - warmup_steps
        since_fall = jnp.maximum(since_warmup, stable_steps) - stable_steps
        left = self._left(true_divide(jnp.minimum(since_fall, decay_steps), decay_steps))
        rate = jnp.where(since_fall > 0, (peak - end) * left + end, peak)
        if warmup_steps == 0:
            return rate
        rising = start + true_divide(elapsed, warmup_steps) * (peak - start)
        return jnp.where(elapsed < warmup_steps, rising, rate)

    def milestones(self) -> tuple[Milestone, ...]:
        """Return the offset, and the ends of the three parts."""
        start = resolved(self.offset)
        found = [Milestone(start, f"offset of {self.type}")] if start else []
        for name, steps in zip(("warmup_steps", "stable_steps", "decay_steps"), self._steps(), strict=True):
            start += steps
            if steps > 0:
                found.append(Milestone(start, f"end of {name}"))
        return tuple(found)

    def is_zero(self) -> bool:
        """Whether the rate neither starts at more than 0 nor goes there."""
        starts_at_zero = self.warmup_steps == 0 or self.warmup_learning_rate == 0
        return starts_at_zero and self.learning_rate == 0 and self.end_learning_rate == 0

    def _zero_from(self) -> int | None:
        if self.end_learning_rate != 0 or self.is_zero():
            return None
        steps = self._steps()
        return resolved(self.offset) + (steps[0] if self.learning_rate == 0 else sum(steps))

    def _steps(self) -> tuple[int, int, int]:
        """Return the lengths of the three parts."""
        return resolved(self.warmup_steps), resolved(self.stable_steps), resolved(self.decay_steps)

    def _left(self, fraction: "jax.Array") -> "jax.Array":
        """Return how much of the way down is left, from 1 to 0."""
        if self.decay_type == "linear":
            return 1 - fraction
        if self.decay_type == "cosine":
            return 0.5 * (1 + jnp.cos(jnp.pi * fraction))
        falls = fraction > 0  # the derivative of a root is infinite at 0
        return jnp.where(falls, 1 - jnp.sqrt(jnp.where(falls, fraction, 1)), 1)
