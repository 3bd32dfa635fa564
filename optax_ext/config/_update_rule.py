"""The base class of all that a recipe has under ``optimizer``: how gradients become updates, as data."""

import abc
import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import pydantic

from optax_ext import transforms
from optax_ext._core.errors import join_words
from optax_ext._core.field_types import FactorsByPattern, NonNegativeNumber, StackedAxes
from optax_ext._core.lazy import jax, optax
from optax_ext._core.schema import problem
from optax_ext._core.tagged import Nested, Tagged
from optax_ext.config._hyperparameters import clip_by_value, inject, value_of
from optax_ext.config._layer_decay import LayerDecay
from optax_ext.config._patterns import PatternField, exceptions_in_words, make_mask
from optax_ext.config._rate_factors import RateFactors, by_layer, by_pattern, factor_stages, freezing_stages, product
from optax_ext.config._run import Run, resolve
from optax_ext.config._stacked_axes import checking_stage, layers_in_words, make_axes
from optax_ext.config._stage import Stage
from optax_ext.schedules import Milestone

RateAtStep = Callable[["jax.typing.ArrayLike"], "jax.Array"]


@dataclasses.dataclass(frozen=True)
class UpdateRule(Tagged):
    """How gradients become updates, as data: the base class of optimizers, and of what combines several of them.

    What a rule does is said once, in its stages: ``make()`` chains their transformations, and ``optax-ext describe``
    prints their words.

    Args:
      stacked_axes: The axes of parameters that count layers, as scanned models store them: an axis, a list of axes, or
        a mapping from regular expressions on paths to these, as in ``{"^blocks/": 0}``; None for none. Each layer has
        norms of its own, and the rank of one layer. What does not fit the parameters is an error at ``init``.
      clipnorm: Maximum norm of each gradient by itself, at least 0; None for no limit.
      clipvalue: Maximum magnitude of each element of a gradient, at least 0; None for no limit.
      global_clipnorm: Maximum norm of all gradients together, at least 0; None for no limit. Not with ``clipnorm``.
      learning_rate_multipliers: Factors of the learning rate of parameters, by regular expressions on their paths, as
        in ``{"^head/": 10.0}``; each at least 0, and 0 for parameters that do not move. None for none.
      layer_decay: Factors of the learning rate that fall from the last layer to the first, a
        [`LayerDecay`][optax_ext.config.LayerDecay]; None for none.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.

    Examples:
      >>> from optax_ext import config
      >>> recipe = config.from_dict({"optimizer": {"type": "sgd", "learning_rate": 0.1}})
      >>> isinstance(recipe.optimizer, config.UpdateRule)
      True
    """

    _norms_per_layer: ClassVar[bool] = False  # whether the rule's own stages take the norm of each layer
    _factors_around: ClassVar[Sequence[RateFactors]] = ()  # of a rule that this one is part of

    stacked_axes: StackedAxes | None = dataclasses.field(default=None, kw_only=True)
    clipnorm: NonNegativeNumber | None = dataclasses.field(default=None, kw_only=True)
    clipvalue: NonNegativeNumber | None = dataclasses.field(default=None, kw_only=True)
    global_clipnorm: NonNegativeNumber | None = dataclasses.field(default=None, kw_only=True)
    learning_rate_multipliers: FactorsByPattern | None = dataclasses.field(default=None, kw_only=True)
    layer_decay: Annotated[LayerDecay, Nested()] | None = dataclasses.field(default=None, kw_only=True)
    allow_unmatched: bool = dataclasses.field(default=False, kw_only=True)

    @pydantic.field_validator("global_clipnorm")
    @classmethod
    def _one_norm(cls, global_clipnorm: float | None, info: pydantic.ValidationInfo) -> float | None:
        if global_clipnorm is not None and info.data.get("clipnorm") is not None:
            raise problem(f"must not be given with clipnorm, got {global_clipnorm} with {info.data['clipnorm']}")
        return global_clipnorm

    def make(
        self, run: Run | Mapping[str, Any] | None = None, *, hyperparameters: Sequence[str] = ()
    ) -> "optax.GradientTransformationExtraArgs":
        """Return the transformation: the chain of the stages.

        Parameters that are not floating or complex numbers stay unchanged: their update is zero.

        Args:
          run: What durations and rates for a batch are taken of, as [`resolve`][optax_ext.config.resolve] takes it;
            None if there are none.
          hyperparameters: Number fields to keep in the state, such as ``["learning_rate"]``, where they can be changed
            between two steps: ``optax.tree.set(state, learning_rate=jnp.float32(0.01))``. The transformation is then
            ``optax.inject_hyperparams`` around what it would be. They are float32. A schedule is evaluated in each
            step, whatever the state says. That of a group has its name first: ``"head/learning_rate"``.

        Raises:
          ConfigError: If a hyperparameter is no field, or one that is fixed when the transformation is made.
        """
        rule = resolve(self, run)
        if hyperparameters:
            return rule._inject(hyperparameters)
        stages = rule.stages()
        named = {stage.name: stage.transformation for stage in stages if stage.transformation is not None}
        if len(named) < len(stages):
            names = [stage.name for stage in stages]
            raise ValueError(
                f"each stage of {type(self).__name__} must have a transformation, and a name of its own; got {names}"
            )
        return transforms.chain(named)

    def stages(self) -> list[Stage]:
        """Return what happens to gradients, in order: clipping, then the rule's own stages."""
        return [*self._checking(), *self._clipping(), *self._scaled_stages(), *self._freezing()]

    def pattern_fields(self) -> list[PatternField]:
        """Return the fields that hold patterns, and what each of them means for which stage."""
        return []

    def masks(self, *, allow_unmatched: bool | None = None) -> dict[str, Callable[[Any], Any]]:
        """Return the masks of the stages that leave out parameters, as `stages` uses them.

        Args:
          allow_unmatched: Whether a pattern that matches no parameter is accepted; None for what the rule says.

        Returns:
          Functions from parameters to a tree of bool, by the name of the stage.
        """
        fields, axes = self.pattern_fields(), self.layer_axes(allow_unmatched=allow_unmatched)
        return {
            stage: make_mask(
                [field for field in fields if field.stage == stage],
                all(field.allow_unmatched for field in fields) if allow_unmatched is None else allow_unmatched,
                axes,
            )
            for stage in dict.fromkeys(field.stage for field in fields)
        }

    def layer_axes(self, *, allow_unmatched: bool | None = None) -> Any:
        """Return the axes that count layers, as ``lars`` and ``path_mask`` take them for ``stacked_axes``.

        Args:
          allow_unmatched: Whether a pattern that matches no parameter is accepted; None for what the rule says.

        Returns:
          An axis, a tuple of axes, None, or a function from parameters to a tree of these.
        """
        return make_axes(self.stacked_axes, self.allow_unmatched if allow_unmatched is None else allow_unmatched)

    def rate_factors(self, *, allow_unmatched: bool | None = None) -> Callable[[Any], Any] | None:
        """Return the factors by which the learning rates of parameters are multiplied, as `stages` uses them.

        Args:
          allow_unmatched: Whether a pattern that matches no parameter is accepted; None for what the rule says.

        Returns:
          A function from parameters to a tree of numbers, or of arrays for stacks of layers; None without factors.
        """
        return product(self._factors(allow_unmatched=allow_unmatched))

    def in_words(self) -> str:
        """Say what the rule is, in a few words."""
        return type(self).__name__

    @abc.abstractmethod
    def learning_rates(self) -> Mapping[str, RateAtStep]:
        """Return the learning rates as functions of the step, by the name of the group of parameters that each is of.

        Returns:
          One rate under the name ``""`` for a rule that has one for all parameters.
        """

    def learning_rate_at(self, step: "jax.typing.ArrayLike") -> "jax.Array":
        """Return the rate that a step takes.

        Args:
          step: How many updates came before, as a schedule takes it: an integer, a float, or an array of either.

        Returns:
          float32, of the shape of ``step``.

        Raises:
          ValueError: If the rule has no learning rate, or several.
        """
        rates = self.learning_rates()
        if len(rates) != 1:
            groups = f"one for each of {join_words(rates)}: take learning_rates()" if rates else "none"
            raise ValueError(f"{type(self).__name__} must have one learning rate for that, got {groups}")
        return next(iter(rates.values()))(step)

    def has_constant_rate(self) -> bool:
        """Return whether every step takes the same rate, for which the transformation then counts no steps."""
        return False

    @abc.abstractmethod
    def milestones(self) -> tuple[Milestone, ...]:
        """Return the steps at which it is worth looking at the learning rates."""

    def why_no_factors(self) -> str | None:
        """Return which part of the rule has updates that factors of the learning rate cannot multiply, and why."""
        return None

    def why_no_counts(self) -> str | None:
        """Return which part of the rule has schedules without a count of their own, which nothing could set."""
        return None

    def why_no_group(self) -> str | None:
        """Return why the rule can only move all parameters together."""
        return None

    def _inject(self, hyperparameters: Sequence[str]) -> "optax.GradientTransformationExtraArgs":
        """Return the transformation with fields in the state."""
        return inject(self, hyperparameters, self._hyperparameters())

    def _hyperparameters(self) -> tuple[str, ...]:
        """Return the fields that `make` can keep in the state: their stages compute with `value_of` them."""
        return ("clipnorm", "clipvalue", "global_clipnorm")

    def _checking(self) -> list[Stage]:
        """Return what checks the axes of a rule that does not use them, so that no misspelling goes unnoticed."""
        is_used = self._norms_per_layer or self.clipnorm is not None
        return [] if self.stacked_axes is None or is_used else [checking_stage(self.layer_axes())]

    def _clipping(self) -> list[Stage]:
        """Return what comes first."""
        stages: list[Stage] = []
        if self.clipvalue is not None:
            effect = f"each number to at most {self.clipvalue:.10g} either way"
            stages.append(Stage("clip by value", effect, clip_by_value(self.clipvalue)))
        if self.clipnorm is not None:
            layers = layers_in_words(self.stacked_axes)
            each = "the gradient of each layer" if layers else "each gradient"
            effect = f"{each} by itself to a norm of at most {self.clipnorm:.10g}{layers}"
            clip = transforms.clip_by_norm(value_of(self.clipnorm), stacked_axes=self.layer_axes())
            stages.append(Stage("clip by norm", effect, clip))
        if self.global_clipnorm is not None:
            effect = f"all together to a norm of at most {self.global_clipnorm:.10g}"
            clip = transforms.clip_by_global_norm(value_of(self.global_clipnorm))
            stages.append(Stage("clip by global norm", effect, clip))
        return stages

    @abc.abstractmethod
    def _stages(self) -> list[Stage]:
        """Return what comes after clipping, each stage with its name, its words and its transformation."""

    def _factors(self, *, allow_unmatched: bool | None = None) -> list[RateFactors]:
        """Return the factors of the learning rate by each field, this rule's and those of what it is part of."""
        allowed = self.allow_unmatched if allow_unmatched is None else allow_unmatched
        found: list[RateFactors] = []
        if self.learning_rate_multipliers is not None:
            found.append(by_pattern(self.learning_rate_multipliers, allowed))
        if self.layer_decay is not None:
            found.append(by_layer(self.layer_decay, self.layer_axes(allow_unmatched=allow_unmatched), allowed))
        return [*found, *self._factors_around]

    def _factor_stages(self) -> list[Stage]:
        """Return the stage that multiplies updates by the factors; none where the rule's own stages do it."""
        return factor_stages(self._factors())

    def _scaled_stages(self) -> list[Stage]:
        """Return the rule's own stages with that of the factors after the learning rate, or else at the end.

        There is nothing of the update before the rate that should not be multiplied, and after it there may be: weight
        decay that is not times the rate, and averages that must know how far parameters really move.
        """
        stages = self._stages()
        names = [stage.name for stage in stages]
        place = names.index("learning rate") + 1 if "learning rate" in names else len(stages)
        return [*stages[:place], *self._factor_stages(), *stages[place:]]

    def _freezing(self) -> list[Stage]:
        """Return what comes last where a factor is 0."""
        return freezing_stages(self._factors())

    def _inside(self, factors: Sequence[RateFactors], stacked_axes: StackedAxes | None) -> Self:
        """Return this rule as part of another one, with its factors, and with its axes where it has none."""
        inside = copy.copy(self)
        object.__setattr__(inside, "_factors_around", (*self._factors_around, *factors))
        if self.stacked_axes is None:
            object.__setattr__(inside, "stacked_axes", stacked_axes)
        return inside

    def _exceptions_in_words(self, stage: str) -> str:
        fields = [field for field in self.pattern_fields() if field.stage == stage]
        return exceptions_in_words(fields, is_stacked=self.stacked_axes is not None)
