"""Learning rates in words."""

from optax_ext._core.public import public
from optax_ext.schedules._rate_per_batch import RatePerBatch
from optax_ext.schedules._schedule import Schedule


@public
def rate_in_words(learning_rate: float | RatePerBatch | Schedule) -> str:
    """Say what a learning rate is, in a few words.

    Args:
      learning_rate: A number or a schedule.

    Returns:
      Its kind: the schedule that is ``after`` another one follows it, as it does in time.

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
    after = getattr(learning_rate, "after", None)
    return learning_rate.type if after is None else f"{learning_rate.type}, then {rate_in_words(after)}"
