"""LAMB as data."""

import dataclasses
from typing import ClassVar

import pydantic

from optax_ext import transforms
from optax_ext._core.field_types import FractionBelowOne, NonNegativeNumber, Patterns, PositiveNumber
from optax_ext._core.lazy import optax
from optax_ext.config._adam import moments_in_words, round_decays
from optax_ext.config._decaying import decay_of_a_step, decoupled_decay_in_words
from optax_ext.config._hyperparameters import value_of
from optax_ext.config._optimizer import Optimizer, weight_decay_in_words
from optax_ext.config._patterns import PatternField, layerwise_fields
from optax_ext.config._stacked_axes import layers_in_words
from optax_ext.config._stage import Stage
from optax_ext.config._trust_ratio import check_max_ratio, limits_in_words, make_max_ratio, record_in_words
from optax_ext.schedules import NonNegativeOrSchedule, is_zero


@dataclasses.dataclass(frozen=True)
class LAMB(Optimizer):
    """LAMB, with the argument names of Model Garden; ``make`` returns [`optax_ext.lamb`][] after clipping.

    Args:
      learning_rate: At least 0, or a schedule.
      beta_1: The decay of the first moment, in [0, 1).
      beta_2: The decay of the second moment, in [0, 1).
      epsilon: Positive; added to the root of the corrected second moment, unlike Adam's.
      weight_decay_rate: At least 0, or a schedule.
      exclude_from_weight_decay: Regular expressions; parameters whose path contains a match do not decay.
        ``"rank <= 1"`` matches parameters with at most one axis, such as biases, whatever their names.
      exclude_from_layer_adaptation: Regular expressions; parameters whose path contains a match are not scaled by
        the trust ratio. None uses ``exclude_from_weight_decay``; an empty list excludes nothing.
      min_ratio: The smallest trust ratio, at least 0.
      max_ratio: The largest trust ratio, positive and at least ``min_ratio``; None for no limit,
        and 10 in many recipes.
      decoupled_weight_decay: Whether parameters decay before the step, as in Keras 3:
        ``p = p - learning_rate * weight_decay_rate * p``. The trust ratio is then of parameters that have decayed and
        of Adam's update alone; if not, decay is part of the update, as in the paper and in Model Garden.
      record: Whether the state keeps the trust ratio and the norm of each layer, for [`metrics`][optax_ext.metrics].
      stacked_axes: The axes of parameters that count layers, as scanned models store them: an axis, a list of axes, or
        a mapping from regular expressions on paths to these, as in ``{"^blocks/": 0}``; None for none. Norms are
        of each layer, and so are ranks.
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
      >>> lamb = config.LAMB(0.01, weight_decay_rate=0.01, exclude_from_weight_decay=["LayerNorm", "bias"])
      >>> config.from_dict(config.to_dict(lamb)) == lamb
      True
      >>> tx = lamb.make()

    References:
      You et al., [arXiv:1904.00962](https://arxiv.org/abs/1904.00962), algorithm 2.

    Differs from TensorFlow:
      An empty ``exclude_from_layer_adaptation`` excludes nothing; in TensorFlow it is the same as None. A pattern
      that matches no parameter is an error at ``init``. Moments and norms are in at least float32. An epsilon of 0,
      which TensorFlow silently replaces with 1e-7, is an error.
    """

    type = "lamb"
    beta_1: FractionBelowOne = 0.9
    beta_2: FractionBelowOne = 0.999
    epsilon: PositiveNumber = 1e-6
    weight_decay_rate: NonNegativeOrSchedule = 0.0
    exclude_from_weight_decay: Patterns = ()
    exclude_from_layer_adaptation: Patterns | None = None
    min_ratio: NonNegativeNumber = dataclasses.field(default=0.0, kw_only=True)
    max_ratio: PositiveNumber | None = dataclasses.field(default=None, kw_only=True)
    decoupled_weight_decay: bool = dataclasses.field(default=False, kw_only=True)
    record: bool = dataclasses.field(default=False, kw_only=True)

    _norms_per_layer: ClassVar[bool] = True
    _check_max_ratio = pydantic.field_validator("max_ratio")(check_max_ratio)

    def _hyperparameters(self) -> tuple[str, ...]:
        betas = () if self.decoupled_weight_decay else ("beta_1", "beta_2")
        return (*super()._hyperparameters(), "epsilon", "weight_decay_rate", *betas)

    def pattern_fields(self) -> list[PatternField]:
        """Return the lists of weight decay and of layer adaptation, which may take that of weight decay."""
        return layerwise_fields(
            self.exclude_from_weight_decay, self.exclude_from_layer_adaptation, self.allow_unmatched
        )

    def _stages(self) -> list[Stage]:
        masks = self.masks()
        b1, b2 = self.beta_1, self.beta_2
        if not self.decoupled_weight_decay:  # Keras 3 subtracts them from 1 before it rounds
            b1, b2 = round_decays(b1, b2)
        lamb = transforms.lamb(
            self._rate(),
            b1=b1,
            b2=b2,
            eps=value_of(self.epsilon),
            weight_decay=value_of(self.weight_decay_rate),
            weight_decay_mask=masks["weight decay"],
            trust_ratio_mask=masks["trust ratio"],
            min_ratio=self.min_ratio,
            max_ratio=make_max_ratio(self.max_ratio),
            stacked_axes=self.layer_axes(),
            record=self.record,
        )
        trust_ratio = "scale each layer by norm of parameter / norm of update"
        trust_ratio += limits_in_words(self.min_ratio, self.max_ratio) + self._exceptions_in_words("trust ratio")
        effects = {
            "moments": moments_in_words(self.beta_1, self.beta_2, self.epsilon, "beside the corrected root"),
            "weight decay": weight_decay_in_words(self.weight_decay_rate, self._exceptions_in_words("weight decay")),
            "trust ratio": trust_ratio + layers_in_words(self.stacked_axes) + record_in_words(self.record),
            "learning rate": self._learning_rate_in_words(),
        }
        by_name = transforms.stages_of(lamb)
        if not self.decoupled_weight_decay or is_zero(self.weight_decay_rate):
            return [Stage(name, effects[name], transformation) for name, transformation in by_name.items()]
        effects["weight decay"] = decoupled_decay_in_words(
            self.weight_decay_rate,
            True,
            self._exceptions_in_words("weight decay"),
            has_factors=self.rate_factors() is not None,
        )
        scales = super()._factor_stages()
        scale = scales[0].transformation if scales else None
        after_rate = [] if scale is None else [scale]
        step = optax.chain(by_name["trust ratio"], by_name["learning rate"], *after_rate)
        amount = value_of(decay_of_a_step(self._rate(), self.weight_decay_rate, True))
        decayed = transforms.after_weight_decay(step, amount, masks["weight decay"], scale)
        effects |= {stage.name: stage.effect for stage in scales}
        names = ["weight decay", "trust ratio", "learning rate", *(stage.name for stage in scales)]
        return [
            Stage("moments", effects["moments"], by_name["moments"]),
            Stage(" and ".join(names), ", and then ".join(effects[name] for name in names), decayed),
        ]

    def _factor_stages(self) -> list[Stage]:
        """Return nothing where weight decay comes first: norms of what has decayed are not as the rate is."""
        is_one_stage = self.decoupled_weight_decay and not is_zero(self.weight_decay_rate)
        return [] if is_one_stage else super()._factor_stages()
