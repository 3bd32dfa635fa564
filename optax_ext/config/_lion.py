"""Lion as data."""

import dataclasses

from optax_ext import transforms
from optax_ext._core.field_types import Fraction, FractionBelowOne
from optax_ext.config._adam import round_decays
from optax_ext.config._decaying import DecayingOptimizer
from optax_ext.config._stage import Stage


@dataclasses.dataclass(frozen=True)
class Lion(DecayingOptimizer):
    """Lion as Keras computes it: every number moves by the learning rate, one way or the other.

    ```text
    p = p - learning_rate * sign(beta_1 * m + (1 - beta_1) * g)
    m = beta_2 * m + (1 - beta_2) * g
    ```

    Weight decay precedes each step: ``p = p - learning_rate * weight_decay_rate * p``.

    Args:
      learning_rate: At least 0, or a schedule.
      beta_1: The share of the momentum in the update, in [0, 1].
      beta_2: The decay of the momentum, in [0, 1).
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
      >>> lion = config.Lion(1e-4, weight_decay_rate=0.1)
      >>> config.to_dict(lion, exclude_defaults=True)
      {'type': 'lion', 'learning_rate': 0.0001, 'weight_decay_rate': 0.1}
      >>> tx = lion.make()

    References:
      Chen et al., [arXiv:2302.06675](https://arxiv.org/abs/2302.06675), algorithm 2.

    Differs from TensorFlow:
      The momentum is in at least float32, whatever the dtype of the parameters. A ``beta_1`` of 0, with which only the
      sign of the gradient counts, is accepted.
    """

    type = "lion"
    beta_1: Fraction = 0.9
    beta_2: FractionBelowOne = 0.99

    def _stages(self) -> list[Stage]:
        scale = transforms.scale_by_lion(*round_decays(self.beta_1, self.beta_2))
        effect = (
            f"the sign of {self.beta_1:.10g} x the momentum so far + {1 - self.beta_1:.10g} x the gradient, "
            f"decay of the momentum {self.beta_2:.10g}"
        )
        return [Stage("sign", effect, scale), self._learning_rate_stage()]
