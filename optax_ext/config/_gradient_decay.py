"""The base class of optimizers whose weight decay may be part of the gradient, as PyTorch's is."""

import dataclasses

import pydantic

from optax_ext import transforms
from optax_ext._core.schema import problem
from optax_ext.config._decaying import DecayingOptimizer
from optax_ext.config._hyperparameters import value_of
from optax_ext.config._optimizer import weight_decay_in_words
from optax_ext.config._stage import Stage


@dataclasses.dataclass(frozen=True)
class GradientDecayingOptimizer(DecayingOptimizer):
    """An optimizer with weight decay that is decoupled, or part of the gradient: the gradient of an L2 penalty.

    ```text
    g = g + weight_decay_rate * p     after clipping, with weight_decay_in_gradient
    ```

    Args:
      learning_rate: At least 0, or a schedule.
      weight_decay_in_gradient: Whether moments and momentum see weight decay, as in PyTorch's ``SGD``.
    """

    weight_decay_in_gradient: bool = dataclasses.field(default=False, kw_only=True)

    @pydantic.field_validator("weight_decay_in_gradient")
    @classmethod
    def _takes_the_rate(cls, weight_decay_in_gradient: bool, info: pydantic.ValidationInfo) -> bool:
        if weight_decay_in_gradient and info.data.get("weight_decay_times_learning_rate") is False:
            raise problem(
                "needs weight_decay_times_learning_rate, got true with that false: all of the gradient is multiplied by"
                " the rate"
            )
        return weight_decay_in_gradient

    def stages(self) -> list[Stage]:
        """Return what happens to gradients, in order: clipping, weight decay, and the optimizer's own stages."""
        if not self.weight_decay_in_gradient or not self.pattern_fields():
            return super().stages()
        effect = weight_decay_in_words(self.weight_decay_rate, self._exceptions_in_words("weight decay"))
        decay = transforms.add_decayed_weights(value_of(self.weight_decay_rate), self.masks()["weight decay"])
        before = [*self._checking(), *self._clipping()]
        return [*before, Stage("weight decay", effect, decay), *self._scaled_stages(), *self._freezing()]
