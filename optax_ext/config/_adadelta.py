"""Adadelta as data."""

import dataclasses

from optax_ext import transforms
from optax_ext._core.field_types import FractionBelowOne, PositiveNumber
from optax_ext.config._gradient_decay import GradientDecayingOptimizer
from optax_ext.config._stage import Stage


@dataclasses.dataclass(frozen=True)
class Adadelta(GradientDecayingOptimizer):
    """Adadelta as Keras computes it.

    ```text
    a = rho * a + (1 - rho) * g**2
    u = sqrt(d + epsilon) / sqrt(a + epsilon) * g
    d = rho * d + (1 - rho) * u**2
    p = p - learning_rate * u
    ```

    The paper has no learning rate: its rate is 1. With Keras's default of 0.001 hardly anything moves.

    Weight decay precedes each step: ``p = p - learning_rate * weight_decay_rate * p``.

    Args:
      learning_rate: At least 0, or a schedule.
      rho: The decay of the running means, in [0, 1).
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

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> from optax_ext import config
      >>> adadelta = config.Adadelta(1.0, rho=0.9)
      >>> config.to_dict(adadelta, exclude_defaults=True)
      {'type': 'adadelta', 'learning_rate': 1.0, 'rho': 0.9}
      >>> tx = adadelta.make()

    References:
      Zeiler, [arXiv:1212.5701](https://arxiv.org/abs/1212.5701), algorithm 1.

    Differs from TensorFlow:
      Means are in at least float32, whatever the dtype of the parameters. An epsilon of 0, which TensorFlow's legacy
      optimizers silently replace with 1e-7, is an error.
    """

    type = "adadelta"
    rho: FractionBelowOne = 0.95
    epsilon: PositiveNumber = 1e-7

    def _stages(self) -> list[Stage]:
        scale = transforms.scale_by_adadelta(self.rho, self.epsilon)
        effect = (
            "divide by the root of the running mean square of gradients, and multiply by that of updates, "
            f"decay {self.rho:.10g}, epsilon {self.epsilon:.10g} inside each root"
        )
        return [Stage("mean squares", effect, scale), self._learning_rate_stage()]
