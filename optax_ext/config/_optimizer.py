"""The base class of all optimizer schemas."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import optax
import pydantic
from jax.typing import ArrayLike

from optax_ext._core.field_types import NonNegativeNumber
from optax_ext._core.schema import problem
from optax_ext._core.steps import exact_step
from optax_ext._core.tagged import Tagged
from optax_ext.masks import path_mask
from optax_ext.schedules import ScalarOrSchedule, evaluate
from optax_ext.transforms import chain, clip_by_global_norm, clip_by_norm


@dataclasses.dataclass(frozen=True)
class Optimizer(Tagged):
    """An optimizer as data; the base class of all optimizer schemas.

    Args:
      learning_rate: At least 0, or a schedule.
      clipnorm: Maximum norm of each gradient by itself, at least 0; None for no limit.
      clipvalue: Maximum magnitude of each element of a gradient, at least 0; None for no limit.
      global_clipnorm: Maximum norm of all gradients together, at least 0; None for no limit. Not with ``clipnorm``.
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
        """Return the transformation: clipping by value, by norm and by global norm, then the optimizer's own chain.

        Parameters that are not floating or complex numbers stay unchanged: their update is zero.
        """
        return chain({**self._make_clipping(), "optimizer": self._make_chain()})

    def _make_clipping(self) -> dict[str, optax.GradientTransformation]:
        """Return the clipping stages, which come first."""
        stages: dict[str, optax.GradientTransformation] = {}
        if self.clipvalue is not None:
            stages["clip by value"] = optax.clip(self.clipvalue)
        if self.clipnorm is not None:
            stages["clip by norm"] = clip_by_norm(self.clipnorm)
        if self.global_clipnorm is not None:
            stages["clip by global norm"] = clip_by_global_norm(self.global_clipnorm)
        return stages

    @abc.abstractmethod
    def _make_chain(self) -> optax.GradientTransformation:
        """Return the stages after clipping."""

    def _rate(self) -> optax.ScalarOrSchedule:
        """Return the learning rate, divided by `1 + decay * step` if there is a decay."""
        if self.decay == 0:
            return self.learning_rate

        def decayed(step: ArrayLike) -> jax.Array:
            return evaluate(self.learning_rate, step) / (1 + self.decay * exact_step(step).astype("float32"))

        return decayed


def layerwise_masks(
    exclude_from_weight_decay: Sequence[str],
    exclude_from_layer_adaptation: Sequence[str] | None,
    allow_unmatched: bool,
) -> dict[str, Any]:
    """Return the masks of a layer-wise optimizer; without a list for adaptation, the one for weight decay is used."""
    not_adapting = exclude_from_layer_adaptation
    if not_adapting is None:
        not_adapting = exclude_from_weight_decay
    return {
        "weight_decay_mask": path_mask(exclude=exclude_from_weight_decay, allow_unmatched=allow_unmatched),
        "trust_ratio_mask": path_mask(exclude=not_adapting, allow_unmatched=allow_unmatched),
    }
