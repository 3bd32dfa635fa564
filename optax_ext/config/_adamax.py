"""Adamax as data."""

import dataclasses

from optax_ext import transforms
from optax_ext._core.field_types import FractionBelowOne, PositiveNumber
from optax_ext.config._adam import round_decays
from optax_ext.config._decaying import DecayingOptimizer
from optax_ext.config._stage import Stage


@dataclasses.dataclass(frozen=True)
class Adamax(DecayingOptimizer):
    """Adamax as Keras computes it: Adam with the largest magnitude in place of the root mean square.

    ```text
    m = beta_1 * m + (1 - beta_1) * g
    n = max(beta_2 * n, |g|)
    p = p - learning_rate / (1 - beta_1**t) * m / (n + epsilon)
    ```

    ``optax.adamax`` adds epsilon to ``|g|`` inside the maximum.

    Weight decay precedes each step: ``p = p - learning_rate * weight_decay_rate * p``.

    Args:
      learning_rate: At least 0, or a schedule.
      beta_1: The decay of the first moment, in [0, 1).
      beta_2: The decay of the largest magnitude, in [0, 1).
      epsilon: Positive.
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
      >>> adamax = config.Adamax(0.002, beta_2=0.99)
      >>> config.to_dict(adamax, exclude_defaults=True)
      {'type': 'adamax', 'learning_rate': 0.002, 'beta_2': 0.99}
      >>> tx = adamax.make()

    References:
      Kingma and Ba, [arXiv:1412.6980](https://arxiv.org/abs/1412.6980), algorithm 2.

    Differs from TensorFlow:
      Moments are in at least float32, whatever the dtype of the parameters. An epsilon of 0, which TensorFlow's legacy
      optimizers silently replace with 1e-7, is an error.
    """

    type = "adamax"
    beta_1: FractionBelowOne = 0.9
    beta_2: FractionBelowOne = 0.999
    epsilon: PositiveNumber = 1e-7

    def _stages(self) -> list[Stage]:
        scale = transforms.scale_by_adamax(*round_decays(self.beta_1, self.beta_2), self.epsilon)
        effect = (
            f"divide the running mean of gradients, decay {self.beta_1:.10g}, by their largest magnitude so far, "
            f"decay {self.beta_2:.10g}, epsilon {self.epsilon:.10g}"
        )
        return [Stage("moments", effect, scale), self._learning_rate_stage()]
