"""The base class of optimizers whose parameters decay before each step, as those of Keras's newer optimizers do."""

import dataclasses
from typing import ClassVar

from optax_ext import transforms
from optax_ext._core.field_types import Patterns
from optax_ext._core.lazy import jax, optax
from optax_ext.config._hyperparameters import value_of
from optax_ext.config._optimizer import Optimizer
from optax_ext.config._patterns import PatternField
from optax_ext.config._stage import Stage
from optax_ext.schedules import NonNegativeOrSchedule, Schedule, is_zero, values_in_words


@dataclasses.dataclass(frozen=True)
class DecayingOptimizer(Optimizer):
    """An optimizer with decoupled weight decay, which neither its moments nor its momentum see.

    ```text
    p = p - learning_rate * weight_decay_rate * p     before the optimizer's own step
    ```

    Without a rate and without patterns there is no stage of weight decay, and the state is as if there were no such
    fields. Where the optimizer's own step reads parameters, it reads those that have decayed.

    Args:
      learning_rate: At least 0, or a schedule.
      weight_decay_rate: At least 0, or a schedule.
      exclude_from_weight_decay: Regular expressions; parameters whose path contains a match do not decay.
        ``"rank <= 1"`` matches parameters with at most one axis, such as biases, whatever their names.
      weight_decay_times_learning_rate: Whether ``weight_decay_rate`` is multiplied by the learning rate, as in Keras;
        if not, ``p = p - weight_decay_rate * p``, as in tensorflow_addons.
    """

    _reads_params: ClassVar[bool] = False  # whether the optimizer's own stages read parameters

    weight_decay_rate: NonNegativeOrSchedule = dataclasses.field(default=0.0, kw_only=True)
    exclude_from_weight_decay: Patterns = dataclasses.field(default=(), kw_only=True)
    weight_decay_times_learning_rate: bool = dataclasses.field(default=True, kw_only=True)

    def stages(self) -> list[Stage]:
        """Return what happens to gradients, in order: clipping, the optimizer's own stages, and weight decay."""
        before, after = [*self._checking(), *self._clipping()], self._freezing()
        if not self.pattern_fields():
            return [*before, *self._scaled_stages(), *after]
        factors = self.rate_factors() if self.weight_decay_times_learning_rate else None
        decay = decoupled_decay_in_words(
            self.weight_decay_rate,
            self.weight_decay_times_learning_rate,
            self._exceptions_in_words("weight decay"),
            has_factors=factors is not None,
        )
        amount, mask = value_of(self._decay_of_a_step()), self.masks()["weight decay"]
        if self._reads_params and not is_zero(self.weight_decay_rate):
            own, scale = self._scaled_stages(), None if factors is None else transforms.scale_by_factors(factors)
            name = " and ".join(["weight decay", *(stage.name for stage in own)])
            effect = ", and then ".join([decay, *(stage.effect for stage in own)])
            step = optax.chain(*(stage.transformation for stage in own if stage.transformation is not None))
            return [*before, Stage(name, effect, transforms.after_weight_decay(step, amount, mask, scale)), *after]
        stage = Stage("weight decay", decay, transforms.subtract_decayed_weights(amount, mask))
        if factors is None or self._reads_params:
            return [*before, *self._scaled_stages(), stage, *after]
        return [*before, *self._stages(), stage, *self._factor_stages(), *after]

    def pattern_fields(self) -> list[PatternField]:
        """Return the list of weight decay, if anything decays or is said not to."""
        excluded = self.exclude_from_weight_decay
        if is_zero(self.weight_decay_rate) and not excluded:
            return []
        return [PatternField("exclude_from_weight_decay", "weight decay", False, excluded, None, self.allow_unmatched)]

    def _hyperparameters(self) -> tuple[str, ...]:
        return (*super()._hyperparameters(), "weight_decay_rate")

    def _decay_of_a_step(self) -> "optax.ScalarOrSchedule":
        """Return which part of a parameter decays in a step: a number where it is constant."""
        return decay_of_a_step(self._rate(), self.weight_decay_rate, self.weight_decay_times_learning_rate)


def decay_of_a_step(
    rate: "optax.ScalarOrSchedule", weight_decay_rate: float | Schedule, times_learning_rate: bool
) -> "optax.ScalarOrSchedule":
    """Return which part of a parameter decays in a step: a number where what it is made of are numbers."""
    if not times_learning_rate or is_zero(weight_decay_rate):
        return weight_decay_rate
    if not callable(rate) and not isinstance(weight_decay_rate, Schedule):
        return rate * weight_decay_rate

    def amount(step: "jax.typing.ArrayLike") -> "jax.Array":
        decay = weight_decay_rate(step) if isinstance(weight_decay_rate, Schedule) else weight_decay_rate
        return jax.numpy.asarray((rate(step) if callable(rate) else rate) * decay)

    return amount


def decoupled_decay_in_words(
    weight_decay_rate: float | Schedule, times_learning_rate: bool, exceptions: str, *, has_factors: bool = False
) -> str:
    """Say what decay does that is apart from the rest of the update."""
    if is_zero(weight_decay_rate):
        return "nothing: weight_decay_rate is 0"
    rate = f"the learning rate x {'its factor x ' if has_factors else ''}" if times_learning_rate else ""
    return f"subtract {rate}{values_in_words(weight_decay_rate)} x parameter{exceptions}"
