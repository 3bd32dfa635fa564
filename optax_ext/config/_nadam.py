"""Nadam as data."""

import dataclasses

from optax_ext import transforms
from optax_ext._core.field_types import FractionBelowOne, NonNegativeNumber, PositiveNumber
from optax_ext.config._adam import moments_in_words, round_decays
from optax_ext.config._gradient_decay import GradientDecayingOptimizer
from optax_ext.config._stage import Stage


@dataclasses.dataclass(frozen=True)
class Nadam(GradientDecayingOptimizer):
    """Nadam as Keras computes it: Adam with Nesterov's momentum, which rises from step to step.

    ```text
    c(t) = beta_1 * (1 - 0.5 * 0.96**(momentum_decay * t))
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    h = c(t + 1) * m / (1 - c(1) * ... * c(t + 1)) + (1 - c(t)) * g / (1 - c(1) * ... * c(t))
    p = p - learning_rate * h / (sqrt(v / (1 - beta_2**t)) + epsilon)
    ```

    With the ``momentum_decay`` of Keras's legacy class and of PyTorch, 0.004, momentum rises over thousands of steps.
    The momentum of ``optax.nadam`` is ``beta_1`` at every step.

    Weight decay precedes each step: ``p = p - learning_rate * weight_decay_rate * p``.

    Args:
      learning_rate: At least 0, or a schedule.
      beta_1: The decay of the first moment, in [0, 1).
      beta_2: The decay of the second moment, in [0, 1).
      epsilon: Positive.
      weight_decay_rate: At least 0, or a schedule.
      exclude_from_weight_decay: Regular expressions; parameters whose path contains a match do not decay.
        ``"rank <= 1"`` matches parameters with at most one axis, such as biases, whatever their names.
      weight_decay_times_learning_rate: Whether ``weight_decay_rate`` is multiplied by the learning rate, as in Keras;
        if not, ``p = p - weight_decay_rate * p``, as in tensorflow_addons.
      weight_decay_in_gradient: Whether weight decay is added to the gradient, as in PyTorch, rather than apart from it.
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
      momentum_decay: How fast momentum rises, at least 0: 1 as in Keras's newer class; 0.004 as in PyTorch and in
        Keras's legacy class, where it is called ``schedule_decay`` or ``decay``.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> from optax_ext import config
      >>> nadam = config.Nadam(1e-3, momentum_decay=0.004)
      >>> config.from_dict(config.to_dict(nadam)) == nadam
      True
      >>> tx = nadam.make()

    References:
      Dozat, Incorporating Nesterov momentum into Adam, 2016, algorithm 2.

    Differs from TensorFlow:
      Moments are in at least float32, whatever the dtype of the parameters. An epsilon of 0, which TensorFlow's legacy
      optimizers silently replace with 1e-7, is an error.
    """

    type = "nadam"
    beta_1: FractionBelowOne = 0.9
    beta_2: FractionBelowOne = 0.999
    epsilon: PositiveNumber = 1e-7
    momentum_decay: NonNegativeNumber = dataclasses.field(default=1.0, kw_only=True)

    def _stages(self) -> list[Stage]:
        decays = round_decays(self.beta_1, self.beta_2)
        scale = transforms.scale_by_nadam(*decays, self.epsilon, momentum_decay=self.momentum_decay)
        moments = moments_in_words(self.beta_1, self.beta_2, self.epsilon, "beside the corrected root")
        effect = f"{moments}, looking one step ahead (Nesterov), momentum decay {self.momentum_decay:.10g}"
        return [Stage("moments", effect, scale), self._learning_rate_stage()]
