"""LARS as data."""

import dataclasses

from optax_ext import transforms
from optax_ext._core.field_types import Fraction, NonNegativeNumber, Patterns
from optax_ext.config._optimizer import Optimizer, momentum_in_words, weight_decay_in_words
from optax_ext.config._patterns import PatternField, layerwise_fields
from optax_ext.config._stage import Stage


@dataclasses.dataclass(frozen=True)
class LARS(Optimizer):
    """LARS, with the argument names of Model Garden; ``make`` returns [`optax_ext.lars`][] after clipping.

    Args:
      learning_rate: At least 0, or a schedule.
      momentum: The momentum coefficient, in [0, 1].
      weight_decay_rate: At least 0.
      eeta: The trust coefficient, at least 0.
      nesterov: Whether to use Nesterov's momentum.
      classic_momentum: Whether to use the paper's form rather than the popular one.
      exclude_from_weight_decay: Regular expressions; parameters whose path contains a match do not decay.
      exclude_from_layer_adaptation: Regular expressions; parameters whose path contains a match are not scaled by
        the trust ratio. None uses ``exclude_from_weight_decay``; an empty list excludes nothing.
      clipnorm: Maximum norm of each gradient by itself, at least 0; None for no limit.
      clipvalue: Maximum magnitude of each element of a gradient, at least 0; None for no limit.
      global_clipnorm: Maximum norm of all gradients together, at least 0; None for no limit. Not with ``clipnorm``.
      decay: The learning rate is divided by ``1 + decay * step``; at least 0.
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
    weight_decay_rate: NonNegativeNumber = 0.0
    eeta: NonNegativeNumber = 0.001
    nesterov: bool = False
    classic_momentum: bool = True
    exclude_from_weight_decay: Patterns = ()
    exclude_from_layer_adaptation: Patterns | None = None
    allow_unmatched: bool = dataclasses.field(default=False, kw_only=True)

    def pattern_fields(self) -> list[PatternField]:
        """Return the lists of weight decay and of layer adaptation, which may take that of weight decay."""
        return layerwise_fields(
            self.exclude_from_weight_decay, self.exclude_from_layer_adaptation, self.allow_unmatched
        )

    def _stages(self) -> list[Stage]:
        masks = self.masks()
        lars = transforms.lars(
            self._rate(),
            momentum=self.momentum,
            weight_decay=self.weight_decay_rate,
            trust_coefficient=self.eeta,
            nesterov=self.nesterov,
            classic_momentum=self.classic_momentum,
            weight_decay_mask=masks["weight decay"],
            trust_ratio_mask=masks["trust ratio"],
        )
        of = "gradient" if self.classic_momentum else "momentum"
        trust_ratio = f"scale each layer by {self.eeta:.10g} x norm of parameter / norm of {of}"
        effects = {
            "weight decay": weight_decay_in_words(self.weight_decay_rate, self._exceptions_in_words("weight decay")),
            "trust ratio": trust_ratio + self._exceptions_in_words("trust ratio"),
            "learning rate": self._learning_rate_in_words(),
            "momentum": momentum_in_words(self.momentum, self.nesterov),
        }
        return [
            Stage(name, effects[name], transformation) for name, transformation in transforms.stages_of(lars).items()
        ]
