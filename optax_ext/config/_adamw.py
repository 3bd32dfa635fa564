"""Model Garden's AdamWeightDecay as data."""

import dataclasses
from typing import Any

import jax
import optax

from optax_ext._core.field_types import FractionBelowOne, NonNegativeNumber, Patterns, PositiveNumber
from optax_ext.config._adam import round_decays
from optax_ext.config._optimizer import Optimizer
from optax_ext.masks import path_mask
from optax_ext.transforms import clip_by_global_norm, scale_by_adam


@dataclasses.dataclass(frozen=True)
class AdamW(Optimizer):
    r"""Adam with decoupled weight decay: Model Garden's ``AdamWeightDecay``.

    As [`Adam`][optax_ext.config.Adam], with $p \leftarrow (1 - \eta \cdot \mathrm{weight\_decay\_rate}) p$ before
    each step. Gradients are first clipped by ``gradient_clip_norm``, and then as any optimizer's are.

    Args:
      learning_rate: $\eta$: at least 0, or a schedule.
      beta_1: The decay of the first moment, in [0, 1).
      beta_2: The decay of the second moment, in [0, 1).
      epsilon: More than 0.
      amsgrad: Whether the largest $v$ so far takes the place of $v$.
      weight_decay_rate: At least 0.
      include_in_weight_decay: Regular expressions; parameters in whose path one is found decay, whatever
        ``exclude_from_weight_decay`` says. Those that it does not name decay too, unless they are excluded.
      exclude_from_weight_decay: Regular expressions; other parameters in whose path one is found do not decay.
      gradient_clip_norm: Largest norm of all gradients together, at least 0; 0 for no limit.
      clipnorm: Largest norm of each gradient by itself, at least 0; None for no limit.
      clipvalue: Largest magnitude of each number of a gradient, at least 0; None for no limit.
      global_clipnorm: Largest norm of all gradients together, at least 0; None for no limit. Not with ``clipnorm``.
      decay: The learning rate is divided by ``1 + decay * step``; at least 0.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> from optax_ext import config
      >>> adamw = config.AdamW(1e-4, weight_decay_rate=0.01, exclude_from_weight_decay=["LayerNorm", "bias"])
      >>> config.from_dict(config.to_dict(adamw)) == adamw
      True
      >>> tx = adamw.make()

    References:
      Loshchilov and Hutter, [arXiv:1711.05101](https://arxiv.org/abs/1711.05101), algorithm 2.

    Differs from TensorFlow:
      Moments are in at least float32, whatever the dtype of the parameters. An epsilon of 0, which TensorFlow silently
      takes for 1e-7, is an error. A pattern that matches no parameter is an error at ``init``. Inside a
      ``LossScaleOptimizer``, TensorFlow does not clip by ``gradient_clip_norm``; ours does, whatever is around it.
    """

    type = "adamw"
    beta_1: FractionBelowOne = 0.9
    beta_2: FractionBelowOne = 0.999
    epsilon: PositiveNumber = 1e-7
    amsgrad: bool = False
    weight_decay_rate: NonNegativeNumber = 0.0
    include_in_weight_decay: Patterns | None = None
    exclude_from_weight_decay: Patterns | None = None
    gradient_clip_norm: NonNegativeNumber = 1.0
    allow_unmatched: bool = dataclasses.field(default=False, kw_only=True)

    def _make_clipping(self) -> dict[str, optax.GradientTransformation]:
        """Return clipping by ``gradient_clip_norm``, and then that of every optimizer."""
        clipping = super()._make_clipping()
        if self.gradient_clip_norm == 0:
            return clipping
        return {"clip by gradient_clip_norm": clip_by_global_norm(self.gradient_clip_norm), **clipping}

    def _make_chain(self) -> optax.GradientTransformation:
        return optax.chain(
            scale_by_adam(*round_decays(self.beta_1, self.beta_2), self.epsilon, amsgrad=self.amsgrad),
            optax.add_decayed_weights(self.weight_decay_rate, self._decays),
            optax.scale_by_learning_rate(self._rate()),
        )

    def _decays(self, params: Any) -> Any:
        """Return the mask of the parameters that decay: those that are included, or else not excluded."""
        allow_unmatched = self.allow_unmatched
        not_excluded = path_mask(exclude=self.exclude_from_weight_decay, allow_unmatched=allow_unmatched)(params)
        included = path_mask(include=self.include_in_weight_decay or (), allow_unmatched=allow_unmatched)(params)
        return jax.tree.map(lambda left, named: left or named, not_excluded, included)
