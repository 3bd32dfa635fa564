"""FTRL-proximal as data."""

import dataclasses
from typing import ClassVar

from optax_ext import transforms
from optax_ext._core.field_types import NonNegativeNumber, NonPositiveNumber
from optax_ext.config._decaying import DecayingOptimizer
from optax_ext.config._stage import Stage


@dataclasses.dataclass(frozen=True)
class Ftrl(DecayingOptimizer):
    """FTRL-proximal as Keras computes it: each parameter is set to the minimum of what gradients so far say of it.

    ```text
    n' = n + g**2
    z = z + g + 2 * l2_shrinkage_regularization_strength * p
          - (n'**-learning_rate_power - n**-learning_rate_power) / learning_rate * p
    p = -sign(z) * max(|z| - l1_regularization_strength, 0)
          / ((n'**-learning_rate_power + beta) / learning_rate + 2 * l2_regularization_strength)
    n = n'
    ```

    The first step forgets where a parameter began, in so far as ``initial_accumulator_value`` outweighs its gradient: a
    parameter whose gradient is 0 becomes 0.

    Weight decay precedes each step: ``p = p - learning_rate * weight_decay_rate * p``.

    Args:
      learning_rate: At least 0, or a schedule.
      learning_rate_power: At most 0; 0 for a rate that gradients do not reduce.
      initial_accumulator_value: The first ``n``, at least 0.
      l1_regularization_strength: At least 0; makes parameters exactly 0.
      l2_regularization_strength: At least 0.
      l2_shrinkage_regularization_strength: At least 0; a penalty on the parameters as they are, not on where they go.
      beta: At least 0.
      weight_decay_rate: At least 0, or a schedule.
      exclude_from_weight_decay: Regular expressions; parameters whose path contains a match do not decay.
        ``"rank <= 1"`` matches parameters with at most one axis, such as biases, whatever their names.
      weight_decay_times_learning_rate: Whether ``weight_decay_rate`` is multiplied by the learning rate, as in Keras;
        if not, ``p = p - weight_decay_rate * p``, as in tensorflow_addons.
      stacked_axes: The axes of parameters that count layers, as scanned models store them: an axis, a list of axes, or
        a mapping from regular expressions on paths to these, as in ``{"^blocks/": 0}``; None for none. ``clipnorm`` is
        then of each layer.
      clipnorm: Maximum norm of each gradient by itself, at least 0; None for no limit.
      clipvalue: Maximum magnitude of each element of a gradient, at least 0; None for no limit.
      global_clipnorm: Maximum norm of all gradients together, at least 0; None for no limit. Not with ``clipnorm``.
      decay: The learning rate is divided by ``1 + decay * step``; at least 0.
      learning_rate_multipliers: Factors of the learning rate of parameters, by regular expressions on their paths, as
        in ``{"^head/": 10.0}``; each at least 0, and 0 for parameters that do not move. None for none.
      layer_decay: Factors of the learning rate that fall from the last layer to the first, a
        [`LayerDecay`][optax_ext.config.LayerDecay]; None for none.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> from optax_ext import config
      >>> ftrl = config.Ftrl(0.05, l1_regularization_strength=0.001)
      >>> config.from_dict(config.to_dict(ftrl)) == ftrl
      True
      >>> tx = ftrl.make()

    References:
      McMahan et al., Ad click prediction: a view from the trenches, KDD 2013, algorithm 1.

    Differs from TensorFlow:
      Sums are in at least float32, whatever the dtype of the parameters. A step with a learning rate of 0, where
      TensorFlow returns NaN, changes nothing. A parameter without regularization whose gradient has always been 0 stays
      as it is, where TensorFlow's newer class returns NaN with an ``initial_accumulator_value`` of 0.
    """

    type = "ftrl"
    learning_rate_power: NonPositiveNumber = -0.5
    initial_accumulator_value: NonNegativeNumber = 0.1
    l1_regularization_strength: NonNegativeNumber = 0.0
    l2_regularization_strength: NonNegativeNumber = 0.0
    l2_shrinkage_regularization_strength: NonNegativeNumber = 0.0
    beta: NonNegativeNumber = 0.0

    _reads_params: ClassVar[bool] = True

    def _stages(self) -> list[Stage]:
        ftrl = transforms.ftrl(
            self._rate(),
            learning_rate_power=self.learning_rate_power,
            initial_accumulator_value=self.initial_accumulator_value,
            l1_regularization_strength=self.l1_regularization_strength,
            l2_regularization_strength=self.l2_regularization_strength,
            l2_shrinkage_regularization_strength=self.l2_shrinkage_regularization_strength,
            beta=self.beta,
            rate_factors=self.rate_factors(),
        )
        penalties = {
            "L1": self.l1_regularization_strength,
            "L2": self.l2_regularization_strength,
            "L2 shrinkage": self.l2_shrinkage_regularization_strength,
            "beta": self.beta,
        }
        with_penalties = "".join(f", {name} {value:.10g}" for name, value in penalties.items() if value > 0)
        rate = self._learning_rate_in_words().removeprefix("times minus ")
        effect = (
            f"follow the regularized leader, power {self.learning_rate_power:.10g} of the sum of squares so far, "
            f"at first {self.initial_accumulator_value:.10g}{with_penalties}; {rate}"
        )
        effect += "".join(f" {stage.effect}" for stage in super()._factor_stages() if not stage.does_nothing)
        return [Stage("ftrl", effect, ftrl)]

    def _factor_stages(self) -> list[Stage]:
        """Return nothing: the step is not proportional to the learning rate, so that its own stage has the factors."""
        return []
