"""Warm-ups: schedules that replace the first steps of another schedule."""

import dataclasses

import pydantic

from optax_ext._core.field_types import NonNegativeSteps, Number
from optax_ext._core.lazy import jax, jnp
from optax_ext._core.relative import is_relative, resolved
from optax_ext._core.schema import problem
from optax_ext._core.steps import exact_step, true_divide
from optax_ext._core.user_warnings import warn_user
from optax_ext.schedules._compile_eager import compile_eager
from optax_ext.schedules._milestones import Milestone, in_order
from optax_ext.schedules._rate_per_batch import Rate
from optax_ext.schedules._schedule import ScalarOrSchedule, Schedule, evaluate


class _Warmup(Schedule):
    """The base class of warm-ups, which warns if the schedule after the warm-up is permanently 0 when it takes over."""

    after: ScalarOrSchedule
    warmup_steps: NonNegativeSteps
    warmup_target: Rate | None

    def __post_init__(self) -> None:
        if self.warmup_target is not None:  # what the rate is after the warm-up is then said apart from it
            return
        if is_relative(self):  # the resolved one warns
            return
        over, warmup_steps = self._after_is_zero_from(), resolved(self.warmup_steps)
        if over is not None and self._zero_from() is not None and 0 < warmup_steps >= over:
            warn_user(
                f"{type(self).__name__}: the warm-up of {self.warmup_steps} steps climbs to a schedule that is 0 from"
                f" step {over} on, so that the rate stays 0 after it. A warm-up does not shift the schedule after it:"
                f" give that one more steps, or an offset of {self.warmup_steps}"
            )

    def milestones(self) -> tuple[Milestone, ...]:
        """Return the end of the warm-up, and what happens from then on in the schedule after it."""
        after = self.after.milestones() if isinstance(self.after, Schedule) else ()
        warmup_steps = resolved(self.warmup_steps)
        if warmup_steps == 0:
            return after
        end = Milestone(warmup_steps, "end of warmup_steps")
        return in_order([end, *(milestone for milestone in after if milestone.step >= warmup_steps)])

    def _target(self) -> "float | jax.Array":
        """Return the rate to which the warm-up rises."""
        if self.warmup_target is None:
            return evaluate(self.after, resolved(self.warmup_steps))
        return jnp.float32(resolved(self.warmup_target))

    def _stays_zero(self) -> bool:
        """Whether the warm-up, where it starts at 0, is 0 at every step, and so is the schedule after it."""
        has_target = self.warmup_steps != 0 and bool(self.warmup_target)
        return self._after_is_zero() and not has_target

    def _after_is_zero(self) -> bool:
        return self.after.is_zero() if isinstance(self.after, Schedule) else self.after == 0

    def _after_is_zero_from(self) -> int | None:
        return self.after._zero_from() if isinstance(self.after, Schedule) else None

    def _over_from(self) -> int | None:
        over = self._after_is_zero_from()
        return None if over is None else max(over, resolved(self.warmup_steps))


@dataclasses.dataclass(frozen=True)
class LinearWarmup(_Warmup):
    """A linear rise to a schedule, in place of its first steps.

    ```text
    start, target = warmup_learning_rate, warmup_target, or after(warmup_steps)
    rate = start + step / warmup_steps * (target - start)  if step < warmup_steps
           after(step)                                     otherwise
    ```

    The schedule ``after`` is not shifted: give it an ``offset`` of ``warmup_steps`` to start it where the warm-up ends.

    Args:
      after: The schedule, or the constant learning rate, after the warm-up.
      warmup_steps: Number of steps of the warm-up, at least 0; 0 for none.
      warmup_learning_rate: The rate at step 0, at least 0.
      warmup_target: The rate that the warm-up would reach at ``warmup_steps``, at least 0; None for that of ``after``
        at that step. With another one the rate jumps there.

    Raises:
      ConfigError: If an argument is out of its range.

    Warns:
      UserWarning: If ``after`` is permanently 0 by the time the warm-up ends.

    Examples:
      >>> import optax_ext
      >>> cosine = optax_ext.CosineDecay(initial_learning_rate=6.4, decay_steps=10_000, offset=500)
      >>> schedule = optax_ext.LinearWarmup(cosine, warmup_steps=500)
      >>> print(schedule(0), schedule(250), schedule(500), schedule(10_500))
      0.0 3.2 6.4 0.0

    References:
      Goyal et al., [arXiv:1706.02677](https://arxiv.org/abs/1706.02677), section 2.2.
    """

    after: ScalarOrSchedule
    warmup_steps: NonNegativeSteps
    warmup_learning_rate: Rate = 0.0
    warmup_target: Rate | None = dataclasses.field(default=None, kw_only=True)

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        step = exact_step(step)
        warmup_steps, start = resolved(self.warmup_steps), resolved(self.warmup_learning_rate)
        if warmup_steps == 0:
            return evaluate(self.after, step)
        rising = start + true_divide(step, warmup_steps) * (self._target() - start)
        return jnp.where(step < warmup_steps, rising, evaluate(self.after, step))

    def is_zero(self) -> bool:
        """Whether the warm-up goes from 0 to a schedule that is 0 at every step."""
        return self._stays_zero() and (self.warmup_learning_rate == 0 or self.warmup_steps == 0)

    def _zero_from(self) -> int | None:
        return self._over_from()


@dataclasses.dataclass(frozen=True)
class PolynomialWarmup(_Warmup):
    """A polynomial rise to a schedule, in place of its first steps.

    ```text
    target = warmup_target, or after(warmup_steps)
    rate = target * (max(step, 1) / warmup_steps) ** power  if step < warmup_steps
           after(step)                                      otherwise
    ```

    Step 0 thus takes the rate of step 1, as in Model Garden; with ``start_at_zero`` its rate is 0.

    The schedule ``after`` is not shifted: give it an ``offset`` of ``warmup_steps`` to start it where the warm-up ends.
    Model Garden calls it ``PolynomialWarmUp``.

    Args:
      after: The schedule, or the constant learning rate, after the warm-up.
      warmup_steps: Number of steps of the warm-up, at least 0; 0 for none.
      power: The exponent.
      warmup_target: The rate that the warm-up would reach at ``warmup_steps``, at least 0; None for that of ``after``
        at that step. With another one the rate jumps there.
      start_at_zero: Whether step 0 has a rate of 0, as in the ``WarmUp`` of transformers; ``power`` is then at least 0.

    Raises:
      ConfigError: If an argument is out of its range.

    Warns:
      UserWarning: If ``after`` is permanently 0 by the time the warm-up ends.

    Examples:
      >>> import optax_ext
      >>> schedule = optax_ext.PolynomialWarmup(0.5, warmup_steps=8, power=2.0)
      >>> print(schedule(0), schedule(4), schedule(8))
      0.0078125 0.125 0.5
    """

    after: ScalarOrSchedule
    warmup_steps: NonNegativeSteps
    power: Number = 1.0
    warmup_target: Rate | None = dataclasses.field(default=None, kw_only=True)
    start_at_zero: bool = dataclasses.field(default=False, kw_only=True)

    @pydantic.field_validator("start_at_zero")
    @classmethod
    def _is_finite(cls, start_at_zero: bool, info: pydantic.ValidationInfo) -> bool:
        if start_at_zero and info.data.get("power", 0) < 0:
            raise problem(f"needs a power of at least 0, got {info.data['power']}, with which step 0 has no rate")
        return start_at_zero

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        step = exact_step(step)
        warmup_steps = resolved(self.warmup_steps)
        if warmup_steps == 0:
            return evaluate(self.after, step)
        fraction = true_divide(jnp.maximum(step, 0 if self.start_at_zero else 1), warmup_steps)
        rising = self._target() * fraction ** jnp.float32(self.power)
        return jnp.where(step < warmup_steps, rising, evaluate(self.after, step))

    def is_zero(self) -> bool:
        """Whether the schedule after the warm-up is 0 at every step, and the rate to which it rises is too."""
        return self._stays_zero()

    def _zero_from(self) -> int | None:
        return self._over_from()
