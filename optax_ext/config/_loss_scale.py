"""Loss scales as data."""

import abc
import dataclasses
from typing import Annotated, Self

import optax
import pydantic

from optax_ext._schema import FLOAT32_MAX, PositiveInteger, PositiveNumber, Tagged, raise_problems
from optax_ext.transforms import dynamic_loss_scaling, fixed_loss_scaling


class LossScale(Tagged):
    """A loss scale as data; the base class of both."""

    @abc.abstractmethod
    def wrap(self, inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        """Return ``inner`` with this loss scaling around it."""


@dataclasses.dataclass(frozen=True)
class DynamicLossScale(LossScale):
    """A loss scale that follows the gradients; ``wrap`` is [`optax_ext.dynamic_loss_scaling`][].

    Args:
      initial_scale: The first scale, in [``min_scale``, ``max_scale``].
      growth_steps: Finite steps in a row after which the scale grows, at least 1.
      multiplier: The factor by which the scale grows and shrinks, more than 1.
      min_scale: The smallest scale, more than 0.
      max_scale: The largest scale, more than 0.
      hysteresis: Skips in a row from which on the scale shrinks, at least 1.
      count_skipped_steps: Whether a skipped step still advances the counts that schedules read.

    Raises:
      ConfigError: If an argument is out of its range.

    Example:
      >>> import optax
      >>> from optax_ext import config
      >>> tx = config.DynamicLossScale(growth_steps=100).wrap(optax.sgd(0.1))
    """

    type = "dynamic"
    initial_scale: PositiveNumber = 2.0**15
    growth_steps: PositiveInteger = 2000
    multiplier: Annotated[PositiveNumber, pydantic.Field(gt=1)] = 2.0
    min_scale: PositiveNumber = 1.0
    max_scale: PositiveNumber = FLOAT32_MAX
    hysteresis: PositiveInteger = 1
    count_skipped_steps: bool = False

    @pydantic.model_validator(mode="after")
    def _initial_scale_within_limits(self) -> Self:
        if not self.min_scale <= self.initial_scale <= self.max_scale:
            limits = f"[min_scale, max_scale] = [{self.min_scale}, {self.max_scale}]"
            text = f"must be in {limits}, got {self.initial_scale}"
            raise_problems(type(self).__name__, self.initial_scale, {("initial_scale",): text})
        return self

    def wrap(self, inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        """Return ``inner`` with this loss scaling around it."""
        return dynamic_loss_scaling(inner, **dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class FixedLossScale(LossScale):
    """A constant loss scale; ``wrap`` is [`optax_ext.fixed_loss_scaling`][].

    Args:
      scale: The scale, more than 0.
      skip_nonfinite: Whether to skip updates with a non-finite gradient. False applies them, as TensorFlow does.
      count_skipped_steps: Whether a skipped step still advances the counts that schedules read.

    Raises:
      ConfigError: If the scale is not more than 0 and finite.

    Example:
      >>> import optax
      >>> from optax_ext import config
      >>> tx = config.FixedLossScale(128.0).wrap(optax.sgd(0.1))
    """

    type = "fixed"
    scale: PositiveNumber
    skip_nonfinite: bool = True
    count_skipped_steps: bool = False

    def wrap(self, inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        """Return ``inner`` with this loss scaling around it."""
        return fixed_loss_scaling(inner, **dataclasses.asdict(self))
