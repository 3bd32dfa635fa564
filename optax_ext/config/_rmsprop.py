"""RMSprop as data."""

import dataclasses

from optax_ext import transforms
from optax_ext._core.field_types import Fraction, FractionBelowOne, NonNegativeNumber, PositiveNumber
from optax_ext.config._gradient_decay import GradientDecayingOptimizer
from optax_ext.config._hyperparameters import value_of
from optax_ext.config._optimizer import momentum_in_words
from optax_ext.config._stage import Stage


@dataclasses.dataclass(frozen=True)
class RMSprop(GradientDecayingOptimizer):
    """RMSprop as TensorFlow computes it: with momentum, epsilon moves inside the root.

    ```text
    n = rho * n + (1 - rho) * g**2
    a = rho * a + (1 - rho) * g  if centered, else 0

    without momentum:  p = p - learning_rate * g / (sqrt(n - a**2) + epsilon)

    with momentum:     v = momentum * v + learning_rate * g / sqrt(n - a**2 + epsilon)
                       p = p - v
    ```

    ``optax.rmsprop`` adds epsilon inside the root with and without momentum, unless ``eps_in_sqrt`` is False. PyTorch's
    differs with momentum:

    ```text
    with learning_rate_in_momentum=False:  v = momentum * v + g / (sqrt(n - a**2) + epsilon)
                                           p = p - learning_rate * v
    ```

    Weight decay precedes each step: ``p = p - learning_rate * weight_decay_rate * p``.

    Args:
      learning_rate: At least 0, or a schedule.
      rho: The decay of the running means, in [0, 1).
      momentum: The momentum coefficient, in [0, 1].
      epsilon: Positive.
      centered: Whether to divide by the standard deviation rather than by the root of the mean square.
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
      learning_rate_in_momentum: Whether the momentum sums updates times their rates, and moves epsilon inside the root,
        as in TensorFlow, rather than updates, whose sum is then multiplied by the newest rate, as in PyTorch.
      initial_mean_square: The first ``n``, at least 0: 1 in timm's ``RMSpropTF``.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> from optax_ext import config
      >>> rmsprop = config.RMSprop(0.01, momentum=0.9)
      >>> config.from_dict(config.to_dict(rmsprop)) == rmsprop
      True
      >>> tx = rmsprop.make()

    References:
      Tieleman and Hinton, Neural networks for machine learning, lecture 6.5, 2012.
      Graves, centered, [arXiv:1308.0850](https://arxiv.org/abs/1308.0850), equations 38 to 45.

    Differs from TensorFlow:
      Moments are in at least float32, whatever the dtype of the parameters. An epsilon of 0, which TensorFlow silently
      replaces with 1e-7, is an error.
      A variance that rounding makes negative counts as 0, where TensorFlow returns NaN.
    """

    type = "rmsprop"
    rho: FractionBelowOne = 0.9
    momentum: Fraction = 0.0
    epsilon: PositiveNumber = 1e-7
    centered: bool = False
    epsilon_in_root: bool = dataclasses.field(default=False, kw_only=True)
    learning_rate_in_momentum: bool = dataclasses.field(default=True, kw_only=True)
    initial_mean_square: NonNegativeNumber = dataclasses.field(default=0.0, kw_only=True)

    def _hyperparameters(self) -> tuple[str, ...]:
        return (*super()._hyperparameters(), "momentum", "epsilon")

    def _stages(self) -> list[Stage]:
        has_momentum = self.momentum > 0
        moves_epsilon = has_momentum and self.learning_rate_in_momentum
        eps_in_sqrt = moves_epsilon or self.epsilon_in_root
        scale = transforms.scale_by_rms(
            self.rho,
            value_of(self.epsilon),
            eps_in_sqrt=eps_in_sqrt,
            centered=self.centered,
            initial_scale=self.initial_mean_square,
        )
        by = "running standard deviation (centered)" if self.centered else "root of the running mean square"
        where = "inside" if eps_in_sqrt else "outside"
        why = ", as always with momentum" if moves_epsilon and not self.epsilon_in_root else ""
        first = f", at first {self.initial_mean_square:.10g}" if self.initial_mean_square > 0 else ""
        effect = f"divide by the {by}, decay {self.rho:.10g}{first}, epsilon {self.epsilon:.10g} {where} the root{why}"
        stages = [Stage("mean square", effect, scale), self._learning_rate_stage()]
        if has_momentum:
            momentum = transforms.add_momentum(value_of(self.momentum), nesterov=False)
            place = 2 if self.learning_rate_in_momentum else 1
            stages.insert(place, Stage("momentum", momentum_in_words(self.momentum, nesterov=False), momentum))
        return stages
