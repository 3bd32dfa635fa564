"""Optimizers as data: what every one of them has, and the schema of each."""

import abc
import dataclasses
from typing import Annotated, Any

import jax
import optax
import pydantic
from jax.typing import ArrayLike

from optax_ext._schema import Fraction, NonNegativeNumber, Tagged, problem, shorten
from optax_ext.schedules._base import ScalarOrSchedule, evaluate, exact_step
from optax_ext.transforms import lars, path_mask
from optax_ext.transforms._clipping import clip_by_global_norm, clip_by_norm
from optax_ext.transforms._inexact import for_inexact
from optax_ext.transforms._momentum import add_momentum
from optax_ext.transforms._regexes import check_together, compile_pattern
from optax_ext.transforms._remat import within_remat_scope


def _compiles(pattern: str) -> str:
    try:
        compile_pattern(pattern)
    except ValueError as error:
        raise problem(f"must be a regular expression, got {shorten(pattern)}: {error}") from None
    return pattern


def _are_quick(patterns: tuple[str, ...]) -> tuple[str, ...]:
    try:
        check_together([compile_pattern(pattern) for pattern in patterns])
    except ValueError as error:
        raise problem(f"is too long a list: {error}") from None
    return patterns


Pattern = Annotated[str, pydantic.Field(max_length=1000), pydantic.AfterValidator(_compiles)]
Patterns = Annotated[tuple[Pattern, ...], pydantic.AfterValidator(_are_quick)]


@dataclasses.dataclass(frozen=True)
class Optimizer(Tagged):
    """An optimizer as data; the base class of all optimizer schemas.

    Args:
      learning_rate: At least 0, or a schedule.
      clipnorm: Largest norm of each gradient by itself, at least 0; None for no limit.
      clipvalue: Largest magnitude of each number of a gradient, at least 0; None for no limit.
      global_clipnorm: Largest norm of all gradients together, at least 0; None for no limit. Not with ``clipnorm``.
      decay: The learning rate is divided by ``1 + decay * step``; at least 0.
    """

    learning_rate: ScalarOrSchedule
    clipnorm: NonNegativeNumber | None = dataclasses.field(default=None, kw_only=True)
    clipvalue: NonNegativeNumber | None = dataclasses.field(default=None, kw_only=True)
    global_clipnorm: NonNegativeNumber | None = dataclasses.field(default=None, kw_only=True)
    decay: NonNegativeNumber = dataclasses.field(default=0.0, kw_only=True)

    @pydantic.field_validator("global_clipnorm")
    @classmethod
    def _one_norm(cls, global_clipnorm: float | None, info: pydantic.ValidationInfo) -> float | None:
        if global_clipnorm is not None and info.data.get("clipnorm") is not None:
            raise problem(f"must not be given with clipnorm, got {global_clipnorm} with {info.data['clipnorm']}")
        return global_clipnorm

    def make(self) -> optax.GradientTransformationExtraArgs:
        """Return the optimizer: clipping by value, by norm and by global norm, and then its own chain.

        Parameters that are no floating or complex numbers stay as they are: their update is zero.
        """
        return within_remat_scope(for_inexact(optax.chain(*self._make_clipping(), self._make_chain())))

    def _make_clipping(self) -> list[optax.GradientTransformation]:
        """Return what comes first."""
        steps: list[optax.GradientTransformation] = []
        if self.clipvalue is not None:
            steps.append(optax.clip(self.clipvalue))
        if self.clipnorm is not None:
            steps.append(clip_by_norm(self.clipnorm))
        if self.global_clipnorm is not None:
            steps.append(clip_by_global_norm(self.global_clipnorm))
        return steps

    @abc.abstractmethod
    def _make_chain(self) -> optax.GradientTransformation:
        """Return what comes after clipping."""

    def _rate(self) -> optax.ScalarOrSchedule:
        """Return the learning rate, divided by `1 + decay * step` where there is a decay."""
        if self.decay == 0:
            return self.learning_rate

        def decayed(step: ArrayLike) -> jax.Array:
            return evaluate(self.learning_rate, step) / (1 + self.decay * exact_step(step).astype("float32"))

        return decayed


def layerwise_masks(
    exclude_from_weight_decay: tuple[str, ...],
    exclude_from_layer_adaptation: tuple[str, ...] | None,
    allow_unmatched: bool,
) -> dict[str, Any]:
    """Return the masks of a layer-wise optimizer; without a list of its own, adaptation takes that of weight decay."""
    not_adapting = exclude_from_layer_adaptation
    if not_adapting is None:
        not_adapting = exclude_from_weight_decay
    return {
        "weight_decay_mask": path_mask(exclude=exclude_from_weight_decay, allow_unmatched=allow_unmatched),
        "trust_ratio_mask": path_mask(exclude=not_adapting, allow_unmatched=allow_unmatched),
    }


@dataclasses.dataclass(frozen=True)
class SGD(Optimizer):
    r"""Stochastic gradient descent with Keras's momentum: $v \leftarrow m v + \eta g$, $p \leftarrow p - v$.

    The learning rate enters the momentum, so that after a drop of the rate older gradients still move parameters
    at the old one. In ``optax.sgd`` it is the other way round; while the rate is constant the two are the same.

    Args:
      learning_rate: $\eta$: at least 0, or a schedule.
      momentum: $m$, in [0, 1].
      nesterov: Whether to use Nesterov's momentum: $p \leftarrow p - (m v + \eta g)$.
      clipnorm: Largest norm of each gradient by itself, at least 0; None for no limit.
      clipvalue: Largest magnitude of each number of a gradient, at least 0; None for no limit.
      global_clipnorm: Largest norm of all gradients together, at least 0; None for no limit. Not with ``clipnorm``.
      decay: The learning rate is divided by ``1 + decay * step``; at least 0.

    Raises:
      ConfigError: If an argument is out of its range.

    Example:
      >>> from optax_ext import config
      >>> sgd = config.SGD(learning_rate=0.1, momentum=0.9, global_clipnorm=1.0)
      >>> config.to_dict(sgd, exclude_defaults=True)
      {'type': 'sgd', 'learning_rate': 0.1, 'momentum': 0.9, 'global_clipnorm': 1.0}
      >>> tx = sgd.make()
    """

    type = "sgd"
    momentum: Fraction = 0.0
    nesterov: bool = False

    def _make_chain(self) -> optax.GradientTransformation:
        scale_by_learning_rate = optax.scale_by_learning_rate(self._rate())
        if self.momentum == 0:
            return scale_by_learning_rate
        return optax.chain(scale_by_learning_rate, add_momentum(self.momentum, nesterov=self.nesterov))


@dataclasses.dataclass(frozen=True)
class LARS(Optimizer):
    """LARS, in the names of Model Garden; ``make`` returns [`optax_ext.lars`][] after clipping.

    Args:
      learning_rate: At least 0, or a schedule.
      momentum: In [0, 1].
      weight_decay_rate: At least 0.
      eeta: The trust coefficient, at least 0.
      nesterov: Whether to use Nesterov's momentum.
      classic_momentum: Whether to use the paper's form rather than the popular one.
      exclude_from_weight_decay: Regular expressions; parameters in whose path one is found do not decay.
      exclude_from_layer_adaptation: Regular expressions; parameters in whose path one is found are not scaled by
        the trust ratio. None takes ``exclude_from_weight_decay``; an empty list means that all are scaled.
      clipnorm: Largest norm of each gradient by itself, at least 0; None for no limit.
      clipvalue: Largest magnitude of each number of a gradient, at least 0; None for no limit.
      global_clipnorm: Largest norm of all gradients together, at least 0; None for no limit. Not with ``clipnorm``.
      decay: The learning rate is divided by ``1 + decay * step``; at least 0.
      allow_unmatched_patterns: Whether a pattern that matches no parameter is accepted.

    Raises:
      ConfigError: If an argument is out of its range.

    Example:
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
    allow_unmatched_patterns: bool = dataclasses.field(default=False, kw_only=True)

    def _make_chain(self) -> optax.GradientTransformation:
        return lars(
            self._rate(),
            momentum=self.momentum,
            weight_decay=self.weight_decay_rate,
            trust_coefficient=self.eeta,
            nesterov=self.nesterov,
            classic_momentum=self.classic_momentum,
            **layerwise_masks(
                self.exclude_from_weight_decay, self.exclude_from_layer_adaptation, self.allow_unmatched_patterns
            ),
        )
