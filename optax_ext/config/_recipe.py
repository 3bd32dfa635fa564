"""A whole recipe: an optimizer and its wrappers."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pydantic

from optax_ext import loss_scaling, transforms
from optax_ext._core.errors import ConfigError
from optax_ext._core.field_types import PositiveInteger
from optax_ext._core.lazy import jax, optax
from optax_ext._core.relative import is_relative
from optax_ext._core.schema import Schema, problem, raise_below, raise_problems
from optax_ext._core.tagged import Nested
from optax_ext.config._loss_scale import LossScale
from optax_ext.config._params_ema import ParamsEma
from optax_ext.config._run import Run, resolve
from optax_ext.config._stage import Stage
from optax_ext.config._update_rule import RateAtStep, UpdateRule
from optax_ext.schedules import Milestone


@dataclasses.dataclass(frozen=True)
class OptimizationConfig(Schema):
    """An optimizer, a moving average after it, and what is around both, as data.

    Around them are the accumulation of gradients, master weights and a loss scale, in this order from the inside.

    Args:
      optimizer: The optimizer: a schema such as [`LARS`][optax_ext.config.LARS].
      loss_scale: The loss scale, such as [`DynamicLossScale`][optax_ext.config.DynamicLossScale]; None for no loss
        scaling.
      ema: The parameter average, a [`ParamsEma`][optax_ext.config.ParamsEma]; None for no average.
      master_weights: Whether the optimizer and its average work on float32 copies of narrower parameters, as
        [`optax_ext.master_weights`][] keeps them.
      accumulate_steps: How many calls of ``update`` one update of the parameters takes, at least 1: their gradients are
        averaged, and the updates before the last are zero. Schedules and the average count updates of parameters.
      run: What durations and rates for a batch in the recipe are taken of, a [`Run`][optax_ext.config.Run]; None if it
        is given to ``make``, or there are none.

    Raises:
      ConfigError: If an argument is not valid.

    Examples:
      >>> from optax_ext import config
      >>> recipe = config.OptimizationConfig(
      ...     optimizer=config.LARS(learning_rate=0.5, weight_decay_rate=1e-4),
      ...     loss_scale=config.DynamicLossScale(growth_steps=1000),
      ...     ema=config.ParamsEma(average_decay=0.9999),
      ... )
      >>> recipe.loss_scale
      DynamicLossScale(growth_steps=1000)
      >>> tx = recipe.make()

      Mappings in place of schemas are what [`from_dict`][optax_ext.config.from_dict] takes, in the words of a file.
    """

    optimizer: UpdateRule
    loss_scale: LossScale | None = None
    ema: Annotated[ParamsEma, Nested()] | None = None
    master_weights: bool = dataclasses.field(default=False, kw_only=True)
    accumulate_steps: PositiveInteger = dataclasses.field(default=1, kw_only=True)
    run: Annotated[Run, Nested()] | None = dataclasses.field(default=None, kw_only=True)

    @pydantic.field_validator("optimizer", mode="before")
    @classmethod
    def _no_transformation(cls, optimizer: Any) -> Any:
        if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
            raise problem(
                "must be an optimizer of config, got a transformation of Optax: a recipe is data, which a"
                " transformation is not; use a schema such as config.SGD(...), or chain the transformation with what"
                " make() of a recipe returns"
            )
        return optimizer

    @pydantic.field_validator("run")
    @classmethod
    def _accumulates_whole_batches(cls, run: Run | None, info: pydantic.ValidationInfo) -> Run | None:
        batch_size, accumulated = run and run.batch_size, info.data.get("accumulate_steps", 1)
        if batch_size is not None and batch_size % accumulated:
            text = f"must be a multiple of accumulate_steps, {accumulated}, since it counts the examples of all of them"
            raise_below("batch_size", f"{text}, got {batch_size}", batch_size)
        return run

    @pydantic.model_validator(mode="after")
    def _resolves(self) -> "OptimizationConfig":
        """Check, where the recipe has a run, that everything in it can be resolved."""
        try:
            if self.run is not None:
                resolve(self)
        except ConfigError as error:
            raise_problems(error)
        return self

    def make(
        self, run: Run | Mapping[str, Any] | None = None, *, hyperparameters: Sequence[str] = ()
    ) -> "optax.GradientTransformationExtraArgs":
        """Return the transformation.

        Loss scaling is outermost, so that clipping sees unscaled, finite gradients, and neither averages nor master
        weights move on a skipped step. A non-finite gradient does not count as one of ``accumulate_steps``.

        Args:
          run: What durations and rates for a batch are taken of, as [`resolve`][optax_ext.config.resolve] takes it;
            None for that of the recipe.
          hyperparameters: Number fields of the optimizer to keep in the state, such as ``["learning_rate"]``, as
            [`UpdateRule.make`][optax_ext.config.UpdateRule] does, where they can be changed between two steps.
        """
        return resolve(self, run)._make(hyperparameters)

    def _make(self, hyperparameters: Sequence[str]) -> "optax.GradientTransformationExtraArgs":
        inner = self.optimizer.make(hyperparameters=hyperparameters)
        if self.ema is not None:
            inner = optax.chain(inner, self.ema.make())
        if self.accumulate_steps > 1:
            inner = transforms.accumulate_gradients(inner, self.accumulate_steps)
        if self.master_weights:
            inner = loss_scaling.master_weights(inner)
        return inner if self.loss_scale is None else self.loss_scale.wrap(inner)

    def stages(self) -> list[Stage]:
        """Return what happens to gradients, in order: the stages of the optimizer, and what is around them."""
        if is_relative(self):
            return resolve(self).stages()
        stages = self.optimizer.stages()
        if self.ema is not None:
            stages.append(self.ema.stage())
        if self.accumulate_steps > 1:
            effect = f"average the gradients of {self.accumulate_steps} steps; only the last of them goes on"
            stages.insert(0, Stage("accumulation", effect, None))
        if self.master_weights:
            effect = "all that follows is in float32, with a copy of each narrower parameter"
            stages.insert(0, Stage("master weights", effect, None))
        return stages if self.loss_scale is None else self.loss_scale.stages(stages)

    def learning_rates(self) -> Mapping[str, RateAtStep]:
        """Return the learning rates of the optimizer, by the name of the group of parameters that each is of."""
        return resolve(self).optimizer.learning_rates()

    def learning_rate_at(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        """Return the rate that a step takes, as [`UpdateRule.learning_rate_at`][optax_ext.config.UpdateRule] does."""
        return resolve(self).optimizer.learning_rate_at(step)

    def milestones(self) -> tuple[Milestone, ...]:
        """Return the steps at which it is worth looking at the rate of the optimizer."""
        return resolve(self).optimizer.milestones()
