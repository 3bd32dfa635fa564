"""Keras's Adafactor as data."""

import dataclasses
from typing import ClassVar

from optax_ext import transforms
from optax_ext._core.field_types import INT32_MAX, NonNegativeNumber, NonPositiveNumber, PositiveNumber
from optax_ext._core.lazy import jax, jnp, optax
from optax_ext._core.steps import exact_step
from optax_ext.config._decaying import DecayingOptimizer, decay_of_a_step
from optax_ext.config._stacked_axes import layers_in_words
from optax_ext.config._stage import Stage
from optax_ext.schedules import Milestone, Schedule


@dataclasses.dataclass(frozen=True)
class Adafactor(DecayingOptimizer):
    """Adafactor as Keras computes it: of the squares of a matrix it keeps the means of rows and columns only.

    ```text
    b = 1 - t**beta_2_decay
    v = b * v + (1 - b) * (g**2 + epsilon_1)            of matrices: the product of such means of rows and columns
    u = g / sqrt(v)
    u = u / max(1, rms(u) / clip_threshold)
    p = p - min(learning_rate, 1 / sqrt(t)) * max(epsilon_2, rms(p)) * u
    ```

    ``rms`` is the root mean square of a parameter. One with more than two axes is a stack of matrices, which its last
    two axes make. Weight decay precedes each step: ``p = p - learning_rate * weight_decay_rate * p``, with a rate that
    ``1 / sqrt(t)`` does not limit.

    Args:
      learning_rate: At least 0, or a schedule.
      beta_2_decay: At most 0; the decay of the mean squares is ``1 - t**beta_2_decay`` in the step ``t = 1, 2, ...``
      epsilon_1: Positive; added to the squares of gradients.
      epsilon_2: The smallest factor that stands for the size of a parameter, at least 0.
      clip_threshold: The largest root mean square of an update before the learning rate, positive.
      relative_step: What files of Keras hold; it changes nothing here, as in Keras, where the rate is at most
        ``1 / sqrt(t)`` whatever it says.
      weight_decay_rate: At least 0, or a schedule.
      exclude_from_weight_decay: Regular expressions; parameters whose path contains a match do not decay.
        ``"rank <= 1"`` matches parameters with at most one axis, such as biases, whatever their names.
      weight_decay_times_learning_rate: Whether ``weight_decay_rate`` is multiplied by the learning rate, as in Keras;
        if not, ``p = p - weight_decay_rate * p``, as in tensorflow_addons.
      stacked_axes: The axes of parameters that count layers, as scanned models store them: an axis, a list of axes, or
        a mapping from regular expressions on paths to these, as in ``{"^blocks/": 0}``; None for none. Matrices, root
        mean squares and ``clipnorm`` are then of each layer.
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
      >>> adafactor = config.Adafactor(0.01, weight_decay_rate=0.1)
      >>> config.from_dict(config.to_dict(adafactor)) == adafactor
      True
      >>> [float(adafactor.learning_rate_at(step)) for step in (0, 39_999)]
      [0.009999999776482582, 0.004999999888241291]
      >>> tx = adafactor.make()

    References:
      Shazeer and Stern, [arXiv:1804.04235](https://arxiv.org/abs/1804.04235), algorithms 4 and 5.

    Differs from Keras:
      Means are in at least float32, whatever the dtype of the parameters, and of a matrix nothing else is kept.

    Differs from Optax:
      ``optax.adafactor`` factors the two largest axes, and by default only if both are at least 128; its rate has no
      limit of ``1 / sqrt(t)``.
    """

    type = "adafactor"
    beta_2_decay: NonPositiveNumber = -0.8
    epsilon_1: PositiveNumber = 1e-30
    epsilon_2: NonNegativeNumber = 1e-3
    clip_threshold: PositiveNumber = 1.0
    relative_step: bool = True

    _norms_per_layer: ClassVar[bool] = True
    _reads_params: ClassVar[bool] = True

    def learning_rate_at(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        """Return the rate that a step takes: that of the number or the schedule, but at most ``1 / sqrt(step + 1)``."""
        count = exact_step(step).astype("float32") + 1
        return jnp.minimum(super().learning_rate_at(step), 1 / jnp.sqrt(count))

    def has_constant_rate(self) -> bool:
        """Return False, since the limit of the rate falls with the steps."""
        return False

    def milestones(self) -> tuple[Milestone, ...]:
        """Return those of every optimizer, and the step from which on a constant rate is limited."""
        if isinstance(self.learning_rate, Schedule) or self.learning_rate == 0 or self.decay > 0:
            return super().milestones()
        return (Milestone(min(round(self._number() ** -2), INT32_MAX), "1 / sqrt(step + 1) from here on"),)

    def _stages(self) -> list[Stage]:
        axes, layers = self.layer_axes(), layers_in_words(self.stacked_axes)
        each = "each layer" if layers else "each parameter"
        mean_square = (
            "divide by the root of the running mean square, of matrices by the means of rows and columns, decay "
            f"1 - t**{self.beta_2_decay:.10g}, epsilon {self.epsilon_1:.10g} in the squares{layers}"
        )
        clip = f"the update of {each} by itself to a root mean square of at most {self.clip_threshold:.10g}"
        size = f"scale by the root mean square of {each}, but at least {self.epsilon_2:.10g}"
        rate = f"{self._learning_rate_in_words()}, but at most 1 / sqrt(step + 1)"
        scale = transforms.scale_by_factored_rms(self.beta_2_decay, self.epsilon_1, stacked_axes=axes)
        return [
            Stage("mean square", mean_square, scale),
            Stage("clip update", clip, transforms.clip_by_rms(self.clip_threshold, stacked_axes=axes)),
            Stage("parameter size", size, transforms.scale_by_param_rms(self.epsilon_2, stacked_axes=axes)),
            Stage("learning rate", rate, transforms.scale_by_learning_rate(self._rate())),
        ]

    def _decay_of_a_step(self) -> "optax.ScalarOrSchedule":
        """Return which part of a parameter decays in a step, by the rate without the limit."""
        rate = self._number() if super().has_constant_rate() else super().learning_rate_at
        return decay_of_a_step(rate, self.weight_decay_rate, self.weight_decay_times_learning_rate)
