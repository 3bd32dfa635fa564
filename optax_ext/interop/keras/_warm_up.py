"""The class WarmUp of transformers, and that of Model Garden, which has the same fields and another meaning."""

import dataclasses
from typing import Any

from optax_ext._core.schema import init_fields
from optax_ext.interop._keras_classes import Package
from optax_ext.interop._report import Report, is_number, join
from optax_ext.schedules import (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    LinearWarmup,
    PolynomialDecay,
    PolynomialWarmup,
    Schedule,
)

_START_AT_INITIAL = (PolynomialDecay, CosineDecay, CosineDecayRestarts, ExponentialDecay, InverseTimeDecay)
_NAMES = {"after": "decay_schedule_fn", "warmup_target": "initial_learning_rate"}


def build_warm_up(
    fields: dict[str, Any], decay: float | Schedule, package: Package, path: str, report: Report
) -> float | Schedule | None:
    """Return the warm-up, with the schedule after it where it starts.

    ```text
    rate = initial_learning_rate * (step / warmup_steps) ** power  if step < warmup_steps
           decay(step - warmup_steps)                              otherwise; in Model Garden decay(step)
    ```

    Args:
      fields: Those of the class, without ``decay_schedule_fn``.
      decay: The schedule after the warm-up, as if it started at step 0; a number where it is constant.
      package: Whose class it is.
      path: Where it is written.
      report: What collects problems.
    """
    steps, power = fields.get("warmup_steps"), fields.get("power", 1.0)
    for name in ("initial_learning_rate", "warmup_steps"):
        if name not in fields:
            report.problem(join(path, name), "is required")
            return None
    if isinstance(steps, float) and steps.is_integer():  # 0.1 of 10,000 steps are 1000.0
        steps = int(steps)
    if steps == 0 and is_number(steps):
        return decay
    target: Any = fields["initial_learning_rate"]
    after = decay
    if package == "transformers" and isinstance(decay, Schedule) and isinstance(steps, int) and steps > 0:
        moved = _later(decay, steps)
        if moved is None:
            text = f"a {type(decay).__name__} cannot start at the end of a warm-up, since it has no offset"
            report.problem(join(path, "decay_schedule_fn"), text)
            return None
        after = moved
    if package == "transformers" and _first(decay) == target:
        target = None  # to which the warm-up rises anyway
    if isinstance(steps, float) and steps > 0 and not steps.is_integer():
        text = f"must be an integer, got {steps}: round it, which moves the end of the warm-up by less than a step"
        report.problem(join(path, "warmup_steps"), text)
        return None
    arguments = {"after": after, "warmup_steps": steps, "warmup_target": target}
    if power == 1 and is_number(power):
        return report.build(LinearWarmup, arguments, path, _NAMES)
    given = {**arguments, "power": power, "start_at_zero": True}
    return report.build(PolynomialWarmup, given, path, {**_NAMES, "start_at_zero": "power"})


def _later(schedule: Schedule, steps: int) -> Schedule | None:
    """Return a schedule that is some steps late; None if it cannot be."""
    if not any(field.name == "offset" for field in init_fields(type(schedule))):
        return None
    offset: int = getattr(schedule, "offset", 0)
    return dataclasses.replace(schedule, offset=offset + steps)


def _first(schedule: float | Schedule) -> Any:
    """Return the rate at the start of a schedule where a field says it, or else None."""
    if not isinstance(schedule, Schedule):
        return schedule
    has_warm_up = getattr(schedule, "warmup_target", None) is not None
    if not isinstance(schedule, _START_AT_INITIAL) or schedule.offset != 0 or has_warm_up:
        return None
    return schedule.initial_learning_rate
