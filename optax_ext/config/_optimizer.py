"""The base class of all optimizer schemas."""

import dataclasses
from collections.abc import Mapping

from optax_ext import transforms
from optax_ext._core.field_types import INT32_MAX, NonNegativeNumber
from optax_ext._core.lazy import jax, optax
from optax_ext._core.relative import is_relative, resolved
from optax_ext._core.steps import exact_step
from optax_ext._core.user_warnings import warn_user
from optax_ext.config._hyperparameters import value_of
from optax_ext.config._stage import Stage
from optax_ext.config._update_rule import RateAtStep, UpdateRule
from optax_ext.schedules import (
    Milestone,
    RatePerBatch,
    ScalarOrSchedule,
    Schedule,
    evaluate,
    is_zero,
    rate_in_words,
    values_in_words,
)


@dataclasses.dataclass(frozen=True)
class Optimizer(UpdateRule):
    """An optimizer as data; the base class of all optimizer schemas.

    An optimizer of your own is a frozen dataclass that derives from this one and defines ``_stages``, which returns
    what comes after clipping, each stage with its name, its words and its transformation.

    Args:
      learning_rate: At least 0, or a schedule.
      stacked_axes: The axes of parameters that count layers, as scanned models store them: an axis, a list of axes, or
        a mapping from regular expressions on paths to these, as in ``{"^blocks/": 0}``; None for none. Each layer has
        norms of its own, and the rank of one layer. What does not fit the parameters is an error at ``init``.
      clipnorm: Maximum norm of each gradient by itself, at least 0; None for no limit.
      clipvalue: Maximum magnitude of each element of a gradient, at least 0; None for no limit.
      global_clipnorm: Maximum norm of all gradients together, at least 0; None for no limit. Not with ``clipnorm``.
      learning_rate_multipliers: Factors of the learning rate of parameters, by regular expressions on their paths, as
        in ``{"^head/": 10.0}``; each at least 0, and 0 for parameters that do not move. None for none.
      layer_decay: Factors of the learning rate that fall from the last layer to the first, a
        [`LayerDecay`][optax_ext.config.LayerDecay]; None for none.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.
      decay: The learning rate is divided by ``1 + decay * step``; at least 0.

    Warns:
      UserWarning: If the learning rate is 0 at every step.
    """

    learning_rate: ScalarOrSchedule
    decay: NonNegativeNumber = dataclasses.field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        warn_of_zero(type(self).__name__, self.learning_rate)

    def in_words(self) -> str:
        """Say which optimizer it is, and what its learning rate is."""
        return f"{type(self).__name__} with {rate_in_words(self.learning_rate)}"

    def learning_rates(self) -> Mapping[str, RateAtStep]:
        """Return the one learning rate of all parameters, under the name ``""``."""
        return {"": self.learning_rate_at}

    def learning_rate_at(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        """Return the rate that a step takes: that of the number or the schedule, divided by ``1 + decay * step``.

        Args:
          step: How many updates came before, as a schedule takes it: an integer, a float, or an array of either.

        Returns:
          float32, of the shape of ``step``.
        """
        rate = evaluate(value_of(self.learning_rate), step)
        return rate if self.decay == 0 else rate / (1 + self.decay * exact_step(step).astype("float32"))

    def has_constant_rate(self) -> bool:
        """Return whether every step takes the same rate, for which the transformation then counts no steps."""
        return self.decay == 0 and not isinstance(self.learning_rate, Schedule)

    def milestones(self) -> tuple[Milestone, ...]:
        """Return the steps at which it is worth looking at the rate: the schedule's, and where ``decay`` halves it."""
        found = [Milestone(min(round(1 / self.decay), INT32_MAX), "half, by decay")] if self.decay > 0 else []
        if isinstance(self.learning_rate, Schedule):
            found += self.learning_rate.milestones()
        return tuple(sorted(found, key=lambda milestone: milestone.step))

    def _hyperparameters(self) -> tuple[str, ...]:
        return ("learning_rate", *super()._hyperparameters())

    def _rate(self) -> "optax.ScalarOrSchedule":
        """Return the learning rate as Optax takes it: a number where it is constant, so that no steps are counted."""
        return self._number() if self.has_constant_rate() else self.learning_rate_at

    def _number(self) -> float:
        """Return the learning rate where it is a number."""
        assert not isinstance(self.learning_rate, Schedule)
        return value_of(resolved(self.learning_rate))

    def _learning_rate_stage(self) -> Stage:
        return Stage("learning rate", self._learning_rate_in_words(), transforms.scale_by_learning_rate(self._rate()))

    def _learning_rate_in_words(self) -> str:
        decayed = f", divided by 1 + {self.decay:.10g} x step" if self.decay > 0 else ""
        return f"times minus the rate: {rate_in_words(self.learning_rate)}{decayed}"


def warn_of_zero(name: str, rate: float | RatePerBatch | Schedule) -> None:
    """Warn if the learning rate of an optimizer is 0 at every step."""
    if is_relative(rate):  # the resolved one warns
        return
    if is_zero(rate):
        words = rate_in_words(rate)
        warn_user(f"{name}: learning_rate ({words}) is 0 at every step, so that no parameter ever moves")


def momentum_in_words(momentum: float, nesterov: bool) -> str:
    """Say what momentum does."""
    if momentum == 0:
        return "nothing: momentum is 0"
    return f"add {momentum:.10g} x the momentum so far" + (", looking one step ahead (Nesterov)" if nesterov else "")


def weight_decay_in_words(weight_decay_rate: float | Schedule, exceptions: str) -> str:
    """Say what weight decay does."""
    if is_zero(weight_decay_rate):
        return "nothing: weight_decay_rate is 0"
    return f"add {values_in_words(weight_decay_rate)} x parameter{exceptions}"
