"""A whole recipe: an optimizer and what is around it."""

import dataclasses

import optax

from optax_ext._schema import Schema
from optax_ext.config._loss_scale import LossScale
from optax_ext.config._optimizers import Optimizer


@dataclasses.dataclass(frozen=True)
class OptimizationConfig(Schema):
    """An optimizer, and a loss scale around it, as data.

    Args:
      optimizer: The optimizer: a schema such as [`LARS`][optax_ext.config.LARS], or a mapping with its ``type``.
      loss_scale: The loss scale, likewise; None for none.

    Raises:
      ConfigError: If either is not valid.

    Example:
      >>> from optax_ext import config
      >>> recipe = config.OptimizationConfig(
      ...     optimizer=config.LARS(learning_rate=0.5, weight_decay_rate=1e-4),
      ...     loss_scale={"type": "dynamic", "growth_steps": 1000},
      ... )
      >>> recipe.loss_scale.growth_steps
      1000
      >>> tx = recipe.make()
    """

    optimizer: Optimizer
    loss_scale: LossScale | None = None

    def make(self) -> optax.GradientTransformationExtraArgs:
        """Return the transformation: loss scaling outermost, so that clipping sees unscaled, finite gradients."""
        inner = self.optimizer.make()
        return inner if self.loss_scale is None else self.loss_scale.wrap(inner)
