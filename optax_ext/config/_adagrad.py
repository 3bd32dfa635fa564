"""Adagrad as data."""

import dataclasses

from optax_ext import transforms
from optax_ext._core.field_types import NonNegativeNumber, PositiveNumber
from optax_ext.config._gradient_decay import GradientDecayingOptimizer
from optax_ext.config._stage import Stage


@dataclasses.dataclass(frozen=True)
class Adagrad(GradientDecayingOptimizer):
    """Adagrad as TensorFlow computes it.

    ```text
    a = a + g**2
    p = p - learning_rate * g / (sqrt(a) + epsilon)
    ```

    ``optax.adagrad`` adds epsilon inside the root.

    Weight decay precedes each step: ``p = p - learning_rate * weight_decay_rate * p``.

    Args:
      learning_rate: At least 0, or a schedule.
      initial_accumulator_value: The initial value of ``a``, at least 0.
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
      epsilon_in_root: Whether epsilon is added inside the root, as in Keras's newer optimizers.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> from optax_ext import config
      >>> adagrad = config.Adagrad(0.1)
      >>> config.from_dict(config.to_dict(adagrad)) == adagrad
      True
      >>> tx = adagrad.make()

    References:
      Duchi et al., Journal of Machine Learning Research 12, 2011, figure 1.

    Differs from TensorFlow:
      The sum of squares is in at least float32. An epsilon of 0, which TensorFlow silently
      replaces with 1e-7, is an error.
    """

    type = "adagrad"
    initial_accumulator_value: NonNegativeNumber = 0.1
    epsilon: PositiveNumber = 1e-7
    epsilon_in_root: bool = dataclasses.field(default=False, kw_only=True)

    def _stages(self) -> list[Stage]:
        scale = transforms.scale_by_rss(self.initial_accumulator_value, self.epsilon, eps_in_sqrt=self.epsilon_in_root)
        where = "inside" if self.epsilon_in_root else "outside"
        effect = (
            f"divide by the root of the sum of squares so far, at first {self.initial_accumulator_value:.10g}, "
            f"epsilon {self.epsilon:.10g} {where} the root"
        )
        return [Stage("sum of squares", effect, scale), self._learning_rate_stage()]
