"""Keras's Muon as data."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from optax_ext import masks, transforms
from optax_ext._core.field_types import (
    Fraction,
    FractionBelowOne,
    NonNegativeInteger,
    NonNegativeNumber,
    Number,
    Patterns,
    PositiveNumber,
)
from optax_ext._core.lazy import jax, optax
from optax_ext.config._adam import moments_in_words
from optax_ext.config._decaying import DecayingOptimizer, decay_of_a_step
from optax_ext.config._hyperparameters import value_of
from optax_ext.config._patterns import PatternField
from optax_ext.config._stacked_axes import layers_in_words
from optax_ext.config._stage import Stage
from optax_ext.schedules import NonNegativeOrSchedule, is_zero, values_in_words

_EMBEDDING = "(?i)embedding"  # in a path in upper case or lower case, as Keras looks for it
_Mask = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Muon(DecayingOptimizer):
    """Muon as Keras computes it: matrices move by their orthogonalized momentum, everything else by AdamW.

    ```text
    v = momentum * v + g
    x = orthogonalize(momentum * v + g)                     with nesterov; else of v
    p = p - learning_rate * rms_rate * sqrt(max(rows, columns)) * x
    ```

    Matrices are the parameters with two axes, except for those that ``exclude_layers`` and ``exclude_embeddings`` name:
    these, and all with fewer or more axes, take a step of [`Adam`][optax_ext.config.Adam] by ``adam_lr_ratio`` times
    the learning rate. Name the output layer in ``exclude_layers``, as the authors of Muon advise. Weight decay precedes
    each step: ``p = p - learning_rate * weight_decay_rate * p`` of matrices, and by ``adam_weight_decay`` of the rest.

    Args:
      learning_rate: At least 0, or a schedule.
      adam_beta_1: The decay of Adam's first moment, in [0, 1).
      adam_beta_2: The decay of Adam's second moment, in [0, 1).
      adam_weight_decay: At least 0, or a schedule; the ``weight_decay_rate`` of what Adam moves, multiplied by the
        learning rate without ``adam_lr_ratio``.
      epsilon: Adam's "epsilon hat", positive.
      exclude_layers: Regular expressions; parameters whose path contains a match are Adam's.
      exclude_embeddings: Whether parameters with "embedding" in their path, in upper case or lower case, are Adam's.
      muon_a: The first coefficient of the iteration that makes matrices orthogonal.
      muon_b: The second.
      muon_c: The third.
      adam_lr_ratio: The learning rate of Adam as a part of that of Muon, at least 0.
      momentum: The momentum coefficient, in [0, 1].
      ns_steps: How often the iteration of Newton and Schulz is repeated, at least 0.
      nesterov: Whether to use Nesterov's momentum.
      rms_rate: About the root mean square of the update of a matrix before the learning rate, positive; None for an
        orthogonal matrix as it is.
      weight_decay_rate: At least 0, or a schedule; of matrices.
      exclude_from_weight_decay: Regular expressions; parameters whose path contains a match do not decay, whoever moves
        them. ``"rank <= 1"`` matches parameters with at most one axis, such as biases, whatever their names.
      weight_decay_times_learning_rate: Whether ``weight_decay_rate`` and ``adam_weight_decay`` are multiplied by the
        learning rate, as in Keras; if not, ``p = p - weight_decay_rate * p``.
      stacked_axes: The axes of parameters that count layers, as scanned models store them: an axis, a list of axes, or
        a mapping from regular expressions on paths to these, as in ``{"^blocks/": 0}``; None for none. A stack of
        matrices is then moved matrix by matrix, and ranks and ``clipnorm`` are of each layer.
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
      >>> import jax.numpy as jnp
      >>> from optax_ext import config
      >>> muon = config.Muon(0.02, exclude_layers=["^head/"])
      >>> config.from_dict(config.to_dict(muon)) == muon
      True
      >>> params = {"body": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "head": {"kernel": jnp.ones((3, 2))}}
      >>> muon.masks()["orthogonalization"](params)
      {'body': {'bias': False, 'kernel': True}, 'head': {'kernel': False}}
      >>> tx = muon.make()

    References:
      Jordan et al., [Muon](https://kellerjordan.github.io/posts/muon/), 2024.
      Liu et al., [arXiv:2502.16982](https://arxiv.org/abs/2502.16982).

    Differs from Keras:
      Patterns are searched for in paths of JAX. A pattern that matches no parameter is an error at ``init``. Momentum
      and moments are in at least float32, whatever the dtype of the parameters.
    """

    type = "muon"
    adam_beta_1: FractionBelowOne = 0.9
    adam_beta_2: FractionBelowOne = 0.999
    adam_weight_decay: NonNegativeOrSchedule = 0.004
    epsilon: PositiveNumber = 1e-7
    exclude_layers: Patterns = ()
    exclude_embeddings: bool = True
    muon_a: Number = 3.4445
    muon_b: Number = -4.775
    muon_c: Number = 2.0315
    adam_lr_ratio: NonNegativeNumber = 1.0
    momentum: Fraction = 0.95
    ns_steps: NonNegativeInteger = 5
    nesterov: bool = True
    rms_rate: PositiveNumber | None = 0.2
    weight_decay_rate: NonNegativeOrSchedule = dataclasses.field(default=0.004, kw_only=True)

    _norms_per_layer: ClassVar[bool] = True

    def stages(self) -> list[Stage]:
        """Return what happens to gradients, in order: clipping, Muon's stage and Adam's, the rate, and weight decay."""
        before, after = [*self._checking(), *self._clipping()], self._freezing()
        if "weight decay" not in self.masks():
            return [*before, *self._scaled_stages(), *after]
        if self.weight_decay_times_learning_rate:
            return [*before, *self._stages(), self._decay_stage(), *self._factor_stages(), *after]
        return [*before, *self._scaled_stages(), self._decay_stage(), *after]

    def pattern_fields(self) -> list[PatternField]:
        """Return what says which parameters are Adam's, and the list of weight decay if anything decays."""
        stage, allowed = "orthogonalization", self.allow_unmatched
        fields = [PatternField("exclude_layers", stage, False, self.exclude_layers, None, allowed)]
        if self.exclude_embeddings:  # a model without any is no mistake
            fields.append(PatternField("exclude_embeddings", stage, False, (_EMBEDDING,), None, True))
        excluded = self.exclude_from_weight_decay
        if excluded or not (is_zero(self.weight_decay_rate) and is_zero(self.adam_weight_decay)):
            fields.append(PatternField("exclude_from_weight_decay", "weight decay", False, excluded, None, allowed))
        return fields

    def masks(self, *, allow_unmatched: bool | None = None) -> dict[str, Callable[[Any], Any]]:
        """Return the masks of the matrices that Muon moves, and of the parameters that decay."""
        allowed = self.allow_unmatched if allow_unmatched is None else allow_unmatched
        axes = self.layer_axes(allow_unmatched=allow_unmatched)

        def without(patterns: "Patterns", allowed: bool = True) -> _Mask:
            return masks.path_mask(exclude=patterns, allow_unmatched=allowed, stacked_axes=axes)

        of_two_axes = masks.path_mask(
            include=["rank <= 2"], exclude=["rank <= 1"], allow_unmatched=True, stacked_axes=axes
        )
        embeddings = [_EMBEDDING] if self.exclude_embeddings else []
        matrices = _all_of(without(self.exclude_layers, allowed), of_two_axes, without(embeddings))
        found: dict[str, _Mask] = {"orthogonalization": matrices}
        if any(field.stage == "weight decay" for field in self.pattern_fields()):
            not_excluded = without(self.exclude_from_weight_decay, allowed)
            parts = [not_excluded]
            if is_zero(self.weight_decay_rate):
                parts.append(_not(matrices))
            if is_zero(self.adam_weight_decay):
                parts.append(matrices)
            found["weight decay"] = _all_of(*parts)
        return found

    def _stages(self) -> list[Stage]:
        matrices = self.masks()["orthogonalization"]
        scale = transforms.scale_by_muon(
            self.momentum,
            nesterov=self.nesterov,
            ns_coefficients=(self.muon_a, self.muon_b, self.muon_c),
            ns_steps=self.ns_steps,
            rms_rate=self.rms_rate,
            stacked_axes=self.layer_axes(),
        )
        # Not rounded to float32, as TensorFlow's Adam rounds them: Keras subtracts these from 1 before it rounds.
        adam = optax.chain(
            transforms.scale_by_adam(self.adam_beta_1, self.adam_beta_2, self.epsilon),
            optax.scale(self.adam_lr_ratio),
        )
        moments = moments_in_words(self.adam_beta_1, self.adam_beta_2, self.epsilon, "TensorFlow's epsilon hat")
        ratio = "" if self.adam_lr_ratio == 1 else f", x {self.adam_lr_ratio:.10g}"
        return [
            Stage("orthogonalization", self._orthogonalization_in_words(), _masked(scale, matrices)),
            Stage("moments", f"of everything else, {moments}{ratio}", _masked(adam, _not(matrices))),
            self._learning_rate_stage(),
        ]

    def _orthogonalization_in_words(self) -> str:
        ahead = ", looking one step ahead (Nesterov)" if self.nesterov else ""
        size = "" if self.rms_rate is None else f", x {self.rms_rate:.10g} x the root of its longer side"
        coefficients = f"{self.muon_a:.10g}, {self.muon_b:.10g} and {self.muon_c:.10g}"
        exceptions = self._exceptions_in_words("orthogonalization") + layers_in_words(self.stacked_axes)
        return (
            f"of each matrix, take the momentum {self.momentum:.10g}{ahead}, made orthogonal by {self.ns_steps} steps "
            f"with {coefficients}{size}{exceptions}"
        )

    def _decay_stage(self) -> Stage:
        matrices, decaying = (self.masks()[stage] for stage in ("orthogonalization", "weight decay"))
        if is_zero(self.weight_decay_rate) and is_zero(self.adam_weight_decay):
            effect = "nothing: weight_decay_rate and adam_weight_decay are 0"
            return Stage("weight decay", effect, transforms.subtract_decayed_weights(0.0, decaying))
        of_matrices, of_others = (
            value_of(decay_of_a_step(self._rate(), rate, self.weight_decay_times_learning_rate))
            for rate in (self.weight_decay_rate, self.adam_weight_decay)
        )
        decay = optax.chain(
            transforms.subtract_decayed_weights(of_matrices, _all_of(decaying, matrices)),
            transforms.subtract_decayed_weights(of_others, _all_of(decaying, _not(matrices))),
        )
        rate = "the learning rate x " if self.weight_decay_times_learning_rate else ""
        of_both = (
            f"{rate}{values_in_words(one)} x parameter" for one in (self.weight_decay_rate, self.adam_weight_decay)
        )
        parts = " of matrices, and ".join(of_both)
        effect = f"subtract {parts} of everything else{self._exceptions_in_words('weight decay')}"
        return Stage("weight decay", effect, decay)


def _all_of(*parts: _Mask) -> _Mask:
    def mask(params: Any) -> Any:
        return jax.tree.map(lambda *chosen: all(chosen), *(part(params) for part in parts))

    return mask


def _not(mask: _Mask) -> _Mask:
    return lambda params: jax.tree.map(lambda chosen: not chosen, mask(params))


def _masked(inner: "optax.GradientTransformation", mask: _Mask) -> "optax.GradientTransformation":
    """Mask by the parameters, where Optax masks by the updates: a gradient of None has no rank that would tell."""

    def update_fn(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("Muon needs the parameters: call update(updates, state, params), got None")
        return optax.masked(inner, mask(params)).update(updates, state, params)

    return optax.GradientTransformation(optax.masked(inner, mask).init, update_fn)
