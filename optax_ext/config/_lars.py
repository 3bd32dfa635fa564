"""LARS as data."""

import dataclasses
from typing import ClassVar

import pydantic

from optax_ext import transforms
from optax_ext._core.field_types import Fraction, NonNegativeNumber, Patterns, PositiveNumber
from optax_ext._core.schema import problem
from optax_ext.config._hyperparameters import value_of
from optax_ext.config._optimizer import Optimizer, momentum_in_words, weight_decay_in_words
from optax_ext.config._patterns import PatternField, layerwise_fields
from optax_ext.config._stacked_axes import layers_in_words
from optax_ext.config._stage import Stage
from optax_ext.config._trust_ratio import check_max_ratio, limits_in_words, make_max_ratio, record_in_words
from optax_ext.schedules import NonNegativeOrSchedule, is_zero, values_in_words


@dataclasses.dataclass(frozen=True)
class LARS(Optimizer):
    """LARS, with the argument names of Model Garden; ``make`` returns [`optax_ext.lars`][] after clipping.

    Args:
      learning_rate: At least 0, or a schedule.
      momentum: The momentum coefficient, in [0, 1].
      weight_decay_rate: At least 0, or a schedule.
      eeta: The trust coefficient, at least 0.
      nesterov: Whether to use Nesterov's momentum.
      classic_momentum: Whether to use the paper's form rather than the popular one.
      learning_rate_in_momentum: Whether the classic form's momentum sums gradients times their rates, as in TensorFlow,
        rather than gradients, whose sum is then multiplied by the newest rate, as in PyTorch and in the code of BYOL,
        Barlow Twins and MoCo v3. The popular form always does the latter.
      exclude_from_weight_decay: Regular expressions; parameters whose path contains a match do not decay.
        ``"rank <= 1"`` matches parameters with at most one axis, such as biases, whatever their names.
      exclude_from_layer_adaptation: Regular expressions; parameters whose path contains a match are not scaled by
        the trust ratio. None uses ``exclude_from_weight_decay``; an empty list excludes nothing.
      separate_norms: Whether the trust ratio divides by ``|g| + weight_decay_rate * |p|``, as the paper does, rather
        than by the norm of the sum. Only with ``classic_momentum``.
      epsilon: Added to what the trust ratio divides by, at least 0: 1e-7 in MLPerf's reference and 1e-8 in apex.
      min_ratio: The smallest trust ratio, at least 0.
      max_ratio: The largest trust ratio, positive and at least ``min_ratio``; None for no limit.
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
      >>> lars = config.LARS(0.5, weight_decay_rate=1e-4, exclude_from_weight_decay=["bias", "BatchNorm"])
      >>> config.from_dict(config.to_dict(lars)) == lars
      True
      >>> tx = lars.make()

    Differs from TensorFlow:
      An empty ``exclude_from_layer_adaptation`` excludes nothing; in TensorFlow it is the same as None. A pattern
      that matches no parameter is an error at ``init``.
    """

    type = "lars"
    momentum: Fraction = 0.9
    weight_decay_rate: NonNegativeOrSchedule = 0.0
    eeta: NonNegativeNumber = 0.001
    nesterov: bool = False
    classic_momentum: bool = True
    exclude_from_weight_decay: Patterns = ()
    exclude_from_layer_adaptation: Patterns | None = None
    learning_rate_in_momentum: bool = dataclasses.field(default=True, kw_only=True)
    separate_norms: bool = dataclasses.field(default=False, kw_only=True)
    epsilon: NonNegativeNumber = dataclasses.field(default=0.0, kw_only=True)
    min_ratio: NonNegativeNumber = dataclasses.field(default=0.0, kw_only=True)
    max_ratio: PositiveNumber | None = dataclasses.field(default=None, kw_only=True)
    record: bool = dataclasses.field(default=False, kw_only=True)

    _norms_per_layer: ClassVar[bool] = True
    _check_max_ratio = pydantic.field_validator("max_ratio")(check_max_ratio)

    @pydantic.field_validator("separate_norms")
    @classmethod
    def _of_the_classic_form(cls, separate_norms: bool, info: pydantic.ValidationInfo) -> bool:
        if separate_norms and info.data.get("classic_momentum") is False:
            raise problem(
                "needs classic_momentum, got true with classic_momentum false: the popular form takes the norm of the "
                "momentum, in which gradients and weight decay are no longer apart"
            )
        return separate_norms

    def _hyperparameters(self) -> tuple[str, ...]:
        return (*super()._hyperparameters(), "momentum", "weight_decay_rate", "eeta", "epsilon")

    def pattern_fields(self) -> list[PatternField]:
        """Return the lists of weight decay and of layer adaptation, which may take that of weight decay."""
        return layerwise_fields(
            self.exclude_from_weight_decay, self.exclude_from_layer_adaptation, self.allow_unmatched
        )

    def _stages(self) -> list[Stage]:
        masks = self.masks()
        lars = transforms.lars(
            self._rate(),
            momentum=value_of(self.momentum),
            weight_decay=value_of(self.weight_decay_rate),
            trust_coefficient=value_of(self.eeta),
            eps=value_of(self.epsilon),
            nesterov=self.nesterov,
            classic_momentum=self.classic_momentum,
            learning_rate_in_momentum=self.learning_rate_in_momentum,
            weight_decay_mask=masks["weight decay"],
            trust_ratio_mask=masks["trust ratio"],
            separate_norms=self.separate_norms,
            min_ratio=self.min_ratio,
            max_ratio=make_max_ratio(self.max_ratio),
            stacked_axes=self.layer_axes(),
            record=self.record,
        )
        decay = weight_decay_in_words(self.weight_decay_rate, self._exceptions_in_words("weight decay"))
        trust_ratio = self._trust_ratio_in_words()
        both = trust_ratio if is_zero(self.weight_decay_rate) else f"{decay}, and {trust_ratio}"
        effects = {
            "weight decay": decay,
            "trust ratio": trust_ratio,
            "weight decay and trust ratio": both,
            "learning rate": self._learning_rate_in_words(),
            "momentum": momentum_in_words(self.momentum, self.nesterov),
        }
        return [
            Stage(name, effects[name], transformation) for name, transformation in transforms.stages_of(lars).items()
        ]

    def _trust_ratio_in_words(self) -> str:
        terms = [f"norm of {'gradient' if self.classic_momentum else 'momentum'}"]
        if self.separate_norms and not is_zero(self.weight_decay_rate):
            terms.append(f"{values_in_words(self.weight_decay_rate)} x norm of parameter")
        if not is_zero(self.epsilon):
            terms.append(f"{self.epsilon:.10g}")
        divisor = f"({' + '.join(terms)})" if len(terms) > 1 else terms[0]
        ratio = f"{self.eeta:.10g} x norm of parameter / {divisor}{limits_in_words(self.min_ratio, self.max_ratio)}"
        exceptions = self._exceptions_in_words("trust ratio")
        layers = layers_in_words(self.stacked_axes) + record_in_words(self.record)
        return f"scale each layer by {ratio}{exceptions}{layers}"
