"""Model Garden's AdamWeightDecay as data."""

import dataclasses

from optax_ext import transforms
from optax_ext._core.field_types import FractionBelowOne, NonNegativeNumber, Patterns, PositiveNumber
from optax_ext.config._adam import moments_stage
from optax_ext.config._decaying import decoupled_decay_in_words
from optax_ext.config._hyperparameters import value_of
from optax_ext.config._optimizer import Optimizer, weight_decay_in_words
from optax_ext.config._patterns import PatternField
from optax_ext.config._stage import Stage
from optax_ext.schedules import NonNegativeOrSchedule


@dataclasses.dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay: Model Garden's ``AdamWeightDecay``.

    Each step of [`Adam`][optax_ext.config.Adam] is preceded by

    ```text
    p = p - learning_rate * weight_decay_rate * p
    ```

    Gradients are clipped by ``gradient_clip_norm`` before the clipping that all optimizers share.

    Args:
      learning_rate: At least 0, or a schedule.
      beta_1: The decay of the first moment, in [0, 1).
      beta_2: The decay of the second moment, in [0, 1).
      epsilon: Positive.
      amsgrad: Whether to use the largest ``v`` so far in place of ``v``.
      weight_decay_rate: At least 0, or a schedule.
      include_in_weight_decay: Regular expressions; parameters whose path contains a match decay, even if
        ``exclude_from_weight_decay`` matches too. Other parameters decay unless they are excluded.
      exclude_from_weight_decay: Regular expressions; other parameters whose path contains a match do not decay.
        ``"rank <= 1"`` matches parameters with at most one axis, such as biases, whatever their names.
      gradient_clip_norm: Maximum norm of all gradients together, at least 0; 0 for no limit.
      stacked_axes: The axes of parameters that count layers, as scanned models store them: an axis, a list of axes, or
        a mapping from regular expressions on paths to these, as in ``{"^blocks/": 0}``; None for none. ``clipnorm`` is
        then of each layer, and so are ranks.
      clipnorm: Maximum norm of each gradient by itself, at least 0; None for no limit.
      clipvalue: Maximum magnitude of each element of a gradient, at least 0; None for no limit.
      global_clipnorm: Maximum norm of all gradients together, at least 0; None for no limit. Not with ``clipnorm``.
      decay: The learning rate is divided by ``1 + decay * step``; at least 0.
      learning_rate_multipliers: Factors of the learning rate of parameters, by regular expressions on their paths, as
        in ``{"^head/": 10.0}``; each at least 0, and 0 for parameters that do not move. None for none.
      layer_decay: Factors of the learning rate that fall from the last layer to the first, a
        [`LayerDecay`][optax_ext.config.LayerDecay]; None for none.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.
      epsilon_hat: Whether epsilon is added to the uncorrected root, as in TensorFlow, rather than to the corrected one,
        as in PyTorch and Optax.
      round_betas: Whether ``1 - beta`` is that of a beta rounded to float32, as in TensorFlow's older Adam. Keras's
        newer one subtracts first, which makes its first updates larger by 8e-5 for a ``beta_2`` of 0.9999.
      weight_decay_times_learning_rate: Whether ``weight_decay_rate`` is multiplied by the learning rate, as in Model
        Garden, Keras and PyTorch; if not, ``p = p - weight_decay_rate * p``, as in tensorflow_addons.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> from optax_ext import config
      >>> adamw = config.AdamW(1e-4, weight_decay_rate=0.01, exclude_from_weight_decay=["LayerNorm", "bias"])
      >>> config.from_dict(config.to_dict(adamw)) == adamw
      True
      >>> tx = adamw.make()

      Weight decay that rises from 0.04 to 0.4 by half a cosine, as in DINO; in YAML ``weight_decay_rate: {type:
      step_cosine_decay, boundaries: [0, 1000], values: [0.04, 0.4]}``.

      >>> rising = {"type": "step_cosine_decay", "boundaries": [0, 1000], "values": [0.04, 0.4]}
      >>> adamw = config.from_dict({"type": "adamw", "learning_rate": 1e-3, "weight_decay_rate": rising})
      >>> print(adamw.stages()[2].effect)
      add step_cosine_decay (0.04 at step 0, 0.4 at step 1000) x parameter

    References:
      Loshchilov and Hutter, [arXiv:1711.05101](https://arxiv.org/abs/1711.05101), algorithm 2.

    Differs from TensorFlow:
      Moments are in at least float32, whatever the dtype of the parameters. An epsilon of 0, which TensorFlow silently
      replaces with 1e-7, is an error. A pattern that matches no parameter is an error at ``init``. Inside a
      ``LossScaleOptimizer``, TensorFlow does not clip by ``gradient_clip_norm``; this optimizer always does.
    """

    type = "adamw"
    beta_1: FractionBelowOne = 0.9
    beta_2: FractionBelowOne = 0.999
    epsilon: PositiveNumber = 1e-7
    amsgrad: bool = False
    weight_decay_rate: NonNegativeOrSchedule = 0.0
    include_in_weight_decay: Patterns | None = None
    exclude_from_weight_decay: Patterns | None = None
    gradient_clip_norm: NonNegativeNumber = 1.0
    epsilon_hat: bool = dataclasses.field(default=True, kw_only=True)
    round_betas: bool = dataclasses.field(default=True, kw_only=True)
    weight_decay_times_learning_rate: bool = dataclasses.field(default=True, kw_only=True)

    def _hyperparameters(self) -> tuple[str, ...]:
        own = ("epsilon", "weight_decay_rate", "gradient_clip_norm")
        return (*super()._hyperparameters(), *own, *(("beta_1", "beta_2") if self.round_betas else ()))

    def pattern_fields(self) -> list[PatternField]:
        """Return the two lists of weight decay, of which the one that includes has the last word."""
        stage, allow_unmatched = "weight decay", self.allow_unmatched
        included, excluded = self.include_in_weight_decay or (), self.exclude_from_weight_decay or ()
        return [
            PatternField("include_in_weight_decay", stage, True, included, None, allow_unmatched),
            PatternField("exclude_from_weight_decay", stage, False, excluded, None, allow_unmatched),
        ]

    def _clipping(self) -> list[Stage]:
        """Return clipping by ``gradient_clip_norm``, and then that of every optimizer."""
        clipping = super()._clipping()
        if self.gradient_clip_norm == 0:
            return clipping
        effect = f"all together to a norm of at most {self.gradient_clip_norm:.10g}"
        clip = transforms.clip_by_global_norm(value_of(self.gradient_clip_norm))
        return [Stage("clip by gradient_clip_norm", effect, clip), *clipping]

    def _stages(self) -> list[Stage]:
        exceptions, mask = self._exceptions_in_words("weight decay"), self.masks()["weight decay"]
        moments = moments_stage(
            self.beta_1,
            self.beta_2,
            self.epsilon,
            amsgrad=self.amsgrad,
            epsilon_hat=self.epsilon_hat,
            round_betas=self.round_betas,
        )
        if self.weight_decay_times_learning_rate:
            effect = weight_decay_in_words(self.weight_decay_rate, exceptions)
            decay = transforms.add_decayed_weights(value_of(self.weight_decay_rate), mask)
            return [moments, Stage("weight decay", effect, decay), self._learning_rate_stage()]
        effect = decoupled_decay_in_words(self.weight_decay_rate, False, exceptions)
        decay = transforms.subtract_decayed_weights(value_of(self.weight_decay_rate), mask)
        return [moments, self._learning_rate_stage(), Stage("weight decay", effect, decay)]
