"""Loss scales as data."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import pydantic

from optax_ext import loss_scaling
from optax_ext._core.field_types import FLOAT32_MAX, NumberAboveOne, PositiveInteger, PositiveNumber, PositiveSteps
from optax_ext._core.lazy import optax
from optax_ext._core.relative import resolved
from optax_ext._core.schema import init_fields, problem
from optax_ext._core.tagged import Tagged
from optax_ext.config._stage import Stage


class LossScale(Tagged):
    """A loss scale as data; the base class of all loss scale schemas."""

    @abc.abstractmethod
    def wrap(self, inner: "optax.GradientTransformation") -> "optax.GradientTransformationExtraArgs":
        """Return ``inner`` with this loss scaling around it."""

    def stages(self, inner: Sequence[Stage] = ()) -> list[Stage]:
        """Return what happens to gradients in order, where ``inner`` happens inside: here the fields, and then that."""
        fields = ", ".join(f"{field.name}={getattr(self, field.name)}" for field in init_fields(type(self)))
        return [Stage(type(self).__name__, fields, None), *inner]


@dataclasses.dataclass(frozen=True)
class DynamicLossScale(LossScale):
    """A loss scale that adapts to the gradients; ``wrap`` is [`optax_ext.dynamic_loss_scaling`][].

    Args:
      initial_scale: The first scale, in [``min_scale``, ``max_scale``].
      growth_steps: Number of consecutive finite steps after which the scale grows, at least 1.
      multiplier: The factor by which the scale grows and shrinks, greater than 1.
      min_scale: The smallest scale, positive.
      max_scale: The largest scale, positive.
      hysteresis: Number of skipped steps at which the scale starts to shrink, at least 1.
      count_skipped_steps: Whether a skipped step still advances the counts that schedules read.
      consecutive_hysteresis: Whether only consecutive skips count for ``hysteresis``: a finite step resets the count.
      check_updates: Whether a step is also skipped if it would make a parameter non-finite.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import optax
      >>> from optax_ext import config
      >>> tx = config.DynamicLossScale(growth_steps=100).wrap(optax.sgd(0.1))
    """

    type = "dynamic"
    initial_scale: PositiveNumber = 2.0**15
    growth_steps: PositiveSteps = 2000
    multiplier: NumberAboveOne = 2.0
    min_scale: PositiveNumber = 1.0
    max_scale: Annotated[PositiveNumber, pydantic.Field(validate_default=True)] = FLOAT32_MAX
    hysteresis: PositiveInteger = 1
    count_skipped_steps: bool = False
    consecutive_hysteresis: bool = dataclasses.field(default=True, kw_only=True)
    check_updates: bool = dataclasses.field(default=False, kw_only=True)

    @pydantic.field_validator("max_scale")
    @classmethod
    def _limits_in_order(cls, max_scale: float, info: pydantic.ValidationInfo) -> float:
        initial_scale, min_scale = info.data.get("initial_scale"), info.data.get("min_scale")
        if min_scale is not None and min_scale > max_scale:
            raise problem(f"must be at most max_scale = {max_scale}, got {min_scale}", at="min_scale")
        if initial_scale is not None and min_scale is not None and not min_scale <= initial_scale <= max_scale:
            limits = f"[min_scale, max_scale] = [{min_scale}, {max_scale}]"
            raise problem(f"must be in {limits}, got {initial_scale}", at="initial_scale")
        return max_scale

    def wrap(self, inner: "optax.GradientTransformation") -> "optax.GradientTransformationExtraArgs":
        """Return ``inner`` with this loss scaling around it."""
        fields: dict[str, Any] = {**dataclasses.asdict(self), "growth_steps": resolved(self.growth_steps)}
        return loss_scaling.dynamic_loss_scaling(inner, **fields)

    def stages(self, inner: Sequence[Stage] = ()) -> list[Stage]:
        """Return what happens to gradients in order: unscaling, ``inner``, and the adapting of the scale."""
        skip = _skip_in_words(self.check_updates, self.count_skipped_steps)
        unscale = f"divide by the loss scale, at first {self.initial_scale:.10g}; {skip}"
        limit = f", up to {self.max_scale:.10g}" if self.max_scale < FLOAT32_MAX else ""
        within = "in a row" if self.consecutive_hysteresis else "since it last grew"
        patience = f", from number {self.hysteresis} {within} on" if self.hysteresis > 1 else ""
        adapt = (
            f"x {self.multiplier:.10g} after {self.growth_steps} finite steps in a row{limit}; "
            f"/ {self.multiplier:.10g} at each skip{patience}, down to {self.min_scale:.10g}"
        )
        return [Stage("unscale", unscale, None), *inner, Stage("adapt loss scale", adapt, None)]


@dataclasses.dataclass(frozen=True)
class FixedLossScale(LossScale):
    """A constant loss scale; ``wrap`` is [`optax_ext.fixed_loss_scaling`][].

    Args:
      scale: The scale, positive.
      skip_nonfinite: Whether to skip updates with a non-finite gradient. False applies them, as TensorFlow does.
      count_skipped_steps: Whether a skipped step still advances the counts that schedules read.
      check_updates: Whether a step is also skipped if it would make a parameter non-finite.

    Raises:
      ConfigError: If the scale is not positive and finite.

    Examples:
      >>> import optax
      >>> from optax_ext import config
      >>> tx = config.FixedLossScale(128.0).wrap(optax.sgd(0.1))
    """

    type = "fixed"
    scale: PositiveNumber
    skip_nonfinite: bool = True
    count_skipped_steps: bool = False
    check_updates: bool = dataclasses.field(default=False, kw_only=True)

    def wrap(self, inner: "optax.GradientTransformation") -> "optax.GradientTransformationExtraArgs":
        """Return ``inner`` with this loss scaling around it."""
        return loss_scaling.fixed_loss_scaling(inner, **dataclasses.asdict(self))

    def stages(self, inner: Sequence[Stage] = ()) -> list[Stage]:
        """Return what happens to gradients in order: unscaling, and ``inner``."""
        skip = _skip_in_words(self.check_updates, self.count_skipped_steps)
        if not self.skip_nonfinite:
            skip = "whether finite or not"
        return [Stage("unscale", f"divide by the loss scale, always {self.scale:.10g}; {skip}", None), *inner]


def _skip_in_words(check_updates: bool, count_skipped_steps: bool) -> str:
    checked = "gradient or new parameter" if check_updates else "gradient"
    counted = "; it counts as a step nevertheless" if count_skipped_steps else ""
    return f"skip the step if any {checked} is not finite{counted}"
