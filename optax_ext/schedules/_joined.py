"""Schedules one after another, each of which starts where the one before it ends."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated

import pydantic

from optax_ext._core.field_types import ListOf, NonNegativeSteps
from optax_ext._core.lazy import jax, jnp
from optax_ext._core.relative import is_relative, resolved
from optax_ext._core.schema import problem
from optax_ext._core.steps import elapsed_steps, exact_step
from optax_ext._core.user_warnings import warn_user
from optax_ext.schedules._compile_eager import compile_eager
from optax_ext.schedules._milestones import Milestone, in_order
from optax_ext.schedules._piecewise import increasing
from optax_ext.schedules._rate_per_batch import RatePerBatch
from optax_ext.schedules._schedule import ScalarOrSchedule, Schedule, evaluate, is_zero

_Rate = float | RatePerBatch | Schedule


@dataclasses.dataclass(frozen=True)
class JoinedSchedules(Schedule):
    """Schedules one after another, as ``optax.join_schedules`` joins them: each counts from its own step 0.

    ```text
    rate = schedules[0](step)                          if step < boundaries[0]
           schedules[i + 1](step - boundaries[i])      if boundaries[i] <= step < boundaries[i + 1]
           schedules[-1](step - boundaries[-1])        if boundaries[-1] <= step
    ```

    From a boundary on the new schedule counts, as in Optax; in
    [`PiecewiseConstantDecay`][optax_ext.PiecewiseConstantDecay] a boundary still has the old value, as in TensorFlow.
    The schedules need no ``offset``, which would shift them a second time.

    Args:
      schedules: Schedules, or constant learning rates of at least 0; at least one.
      boundaries: The steps at which the second schedule starts, and those after it; strictly increasing, each at least
        0, one fewer than there are schedules.

    Raises:
      ConfigError: If an argument is out of its range.

    Warns:
      UserWarning: If a schedule has an ``offset`` that is the boundary at which it starts.

    Examples:
      >>> import optax_ext
      >>> rising = optax_ext.LinearWarmup(0.5, warmup_steps=100)
      >>> falling = optax_ext.CosineDecay(0.5, decay_steps=400, alpha=0.1)
      >>> schedule = optax_ext.JoinedSchedules([rising, falling, 0.05], boundaries=[100, 500])
      >>> print(schedule(50), schedule(100), schedule(500), schedule(1_000))
      0.25 0.5 0.05 0.05
    """

    schedules: Annotated[ListOf[ScalarOrSchedule], pydantic.Field(json_schema_extra={"minItems": 1})]
    boundaries: ListOf[NonNegativeSteps]

    @pydantic.field_validator("schedules")
    @classmethod
    def _at_least_one(cls, schedules: tuple[_Rate, ...]) -> tuple[_Rate, ...]:
        if not schedules:
            raise problem("must have at least 1 entry, got none")
        return schedules

    @pydantic.field_validator("boundaries")
    @classmethod
    def _one_each(cls, boundaries: tuple[int | str, ...], info: pydantic.ValidationInfo) -> tuple[int | str, ...]:
        increasing(boundaries)
        schedules = info.data.get("schedules")  # missing if it has a problem itself
        if schedules is not None and len(boundaries) != len(schedules) - 1:
            raise problem(
                f"must have one entry fewer than there are schedules, {len(schedules) - 1}, got {len(boundaries)}"
            )
        return boundaries

    def __post_init__(self) -> None:
        if is_relative(self):  # the resolved one warns
            return
        for index, (schedule, boundary) in enumerate(zip(self.schedules[1:], self.boundaries, strict=True), 1):
            offset = getattr(schedule, "offset", 0)
            if offset != 0 and offset == boundary:
                warn_user(
                    f"{type(self).__name__}: schedules.{index} starts at its boundary {boundary}, and its offset of"
                    f" {offset} shifts it once more: leave the offset out"
                )

    @compile_eager
    def __call__(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        step = exact_step(step)
        rate = evaluate(self.schedules[0], step)
        for schedule, boundary in zip(self.schedules[1:], map(resolved, self.boundaries), strict=True):
            started = evaluate(schedule, elapsed_steps(step, boundary, "hold"))
            rate = jnp.where(step < boundary, rate, started)
        return rate

    def milestones(self) -> tuple[Milestone, ...]:
        """Return the boundaries, and what happens in each schedule while it counts."""
        found: list[Milestone] = []
        for index, (schedule, start, end) in enumerate(self._pieces()):
            if isinstance(schedule, Schedule):
                words, own = schedule.type, schedule.milestones()
            else:
                words, own = f"a constant {resolved(schedule):g}", ()
            if index > 0:
                found.append(Milestone(start, f"start of {words}"))
            shifted = (Milestone(start + step, reason) for step, reason in own)
            found += [it for it in shifted if (index == 0 or it.step >= start) and (end is None or it.step < end)]
        return in_order(found)

    def is_zero(self) -> bool:
        """Whether every schedule that counts at some step is 0."""
        never_counts = 1 if self.boundaries[:1] == (0,) else 0
        return all(map(is_zero, self.schedules[never_counts:]))

    def _zero_from(self) -> int | None:
        over: int | None = None
        for schedule, start, end in reversed(list(self._pieces())):
            own = 0 if is_zero(schedule) else schedule._zero_from() if isinstance(schedule, Schedule) else None
            if own is None or (end is not None and start + own >= end):
                return over
            over = start + max(own, 0)
            if own > 0:
                return over
        return None  # a rate that never was positive

    def _pieces(self) -> "Iterator[tuple[_Rate, int, int | None]]":
        """Yield each schedule with the step at which it starts, and that at which the next one does."""
        boundaries = [*map(resolved, self.boundaries)]
        yield from zip(self.schedules, (0, *boundaries), (*boundaries, None), strict=True)
