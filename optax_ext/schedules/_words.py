"""Schedules in words."""

from optax_ext._core.lazy import jax
from optax_ext._core.public import public
from optax_ext._core.relative import is_relative
from optax_ext.schedules._joined import JoinedSchedules
from optax_ext.schedules._rate_per_batch import RatePerBatch
from optax_ext.schedules._schedule import Schedule, evaluate


@public
def rate_in_words(learning_rate: float | RatePerBatch | Schedule) -> str:
    """Say what a learning rate is, in a few words.

    Args:
      learning_rate: A number or a schedule.

    Returns:
      Its kind: the schedule that is ``after`` another one follows it, as it does in time, and so do those that are
      joined.

    Examples:
      >>> import optax_ext
      >>> from optax_ext import schedules
      >>> schedules.rate_in_words(0.1)
      'a constant 0.1'
      >>> schedules.rate_in_words(optax_ext.LinearWarmup(optax_ext.CosineDecay(6.4, 1000), warmup_steps=100))
      'linear_warmup, then cosine_decay'
    """
    if isinstance(learning_rate, RatePerBatch):
        return learning_rate.in_words()
    if not isinstance(learning_rate, Schedule):
        return f"a constant {learning_rate:g}"
    if isinstance(learning_rate, JoinedSchedules):
        return ", then ".join(map(rate_in_words, learning_rate.schedules))
    after = getattr(learning_rate, "after", None)
    return learning_rate.type if after is None else f"{learning_rate.type}, then {rate_in_words(after)}"


@public
def values_in_words(value: float | Schedule) -> str:
    """Say what a number is, or between which values a schedule goes.

    Args:
      value: A number or a schedule.

    Returns:
      The number; or the kind of the schedule, with its values at step 0 and at the last of its milestones unless these
      depend on the run.

    Examples:
      >>> import optax_ext
      >>> from optax_ext import schedules
      >>> schedules.values_in_words(1e-4)
      '0.0001'
      >>> schedules.values_in_words(optax_ext.StepCosineDecay([0, 1000], [0.04, 0.4]))
      'step_cosine_decay (0.04 at step 0, 0.4 at step 1000)'
    """
    if not isinstance(value, Schedule):
        return f"{value:.10g}"
    if is_relative(value):
        return rate_in_words(value)
    steps = sorted({0, *(max(step, 0) for step, _ in value.milestones()[-1:])})
    with jax.ensure_compile_time_eval():  # a recipe may be made, and then says what it does, inside jit
        values = [f"{float(evaluate(value, step)):.6g} at step {step}" for step in steps]
    return f"{rate_in_words(value)} ({', '.join(values)})"
