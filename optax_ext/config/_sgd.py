"""Stochastic gradient descent as data."""

import dataclasses

from optax_ext import transforms
from optax_ext._core.field_types import Fraction
from optax_ext.config._gradient_decay import GradientDecayingOptimizer
from optax_ext.config._hyperparameters import value_of
from optax_ext.config._optimizer import momentum_in_words
from optax_ext.config._stage import Stage


@dataclasses.dataclass(frozen=True)
class SGD(GradientDecayingOptimizer):
    """Stochastic gradient descent with Keras's momentum.

    ```text
    v = momentum * v + learning_rate * g
    p = p - v
    ```

    The momentum sums gradients times their learning rates, so that after a drop of the rate older gradients still
    count at the old rate. ``optax.sgd`` multiplies the summed gradients by the newest rate. The two are the same while
    the rate is constant; with ``learning_rate_in_momentum=False`` this one is as that.

    Weight decay precedes each step: ``p = p - learning_rate * weight_decay_rate * p``.

    Args:
      learning_rate: At least 0, or a schedule.
      momentum: The momentum coefficient, in [0, 1].
      nesterov: Whether to use Nesterov's momentum: ``p = p - (momentum * v + learning_rate * g)``.
      learning_rate_in_momentum: Whether the momentum sums gradients times their rates, as in Keras, rather than
        gradients, whose sum is then multiplied by the newest rate, as in PyTorch and Optax.
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
      >>> sgd = config.SGD(learning_rate=0.1, momentum=0.9, global_clipnorm=1.0)
      >>> config.to_dict(sgd, exclude_defaults=True)
      {'type': 'sgd', 'learning_rate': 0.1, 'momentum': 0.9, 'global_clipnorm': 1.0}
      >>> tx = sgd.make()
    """

    type = "sgd"
    momentum: Fraction = 0.0
    nesterov: bool = False
    learning_rate_in_momentum: bool = dataclasses.field(default=True, kw_only=True)

    def _hyperparameters(self) -> tuple[str, ...]:
        return (*super()._hyperparameters(), "momentum")

    def _stages(self) -> list[Stage]:
        if self.momentum == 0:
            return [self._learning_rate_stage()]
        momentum = transforms.add_momentum(value_of(self.momentum), nesterov=self.nesterov)
        effect = momentum_in_words(self.momentum, self.nesterov)
        stages = [self._learning_rate_stage(), Stage("momentum", effect, momentum)]
        return stages if self.learning_rate_in_momentum else stages[::-1]
