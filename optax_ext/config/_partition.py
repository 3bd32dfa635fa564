"""Groups of parameters with optimizers of their own, as data."""

import copy
import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import pydantic

from optax_ext import masks, transforms
from optax_ext._core.field_types import ListOf
from optax_ext._core.lazy import jax, jnp, optax
from optax_ext._core.relative import resolved
from optax_ext._core.schema import problem
from optax_ext._core.steps import exact_step
from optax_ext._core.tagged import Nested
from optax_ext.config._frozen import Frozen
from optax_ext.config._group import Group, check_can_move_a_group
from optax_ext.config._hyperparameters import inject
from optax_ext.config._patterns import matches_in_words
from optax_ext.config._rate_factors import Factors, RateFactors
from optax_ext.config._stage import Stage
from optax_ext.config._update_rule import RateAtStep, UpdateRule
from optax_ext.schedules import Milestone

REST = "rest"


@dataclasses.dataclass(frozen=True)
class Partition(UpdateRule):
    """Groups of parameters, each with an optimizer of its own: ``optax.partition``.

    Every parameter is in exactly one group. The fields that all optimizers have are here of all groups together, and
    come first: ``global_clipnorm`` is of the norm over all groups that are not frozen. Each optimizer has its own as
    well, of its group alone. Factors of the learning rate multiply those of the optimizers.

    Args:
      groups: The groups, at least one: each a [`Group`][optax_ext.config.Group].
      rest: What moves the parameters that no group matches; None if each must be matched.
      stacked_axes: The axes of parameters that count layers, as scanned models store them: an axis, a list of axes, or
        a mapping from regular expressions on paths to these, as in ``{"^blocks/": 0}``; None for none. Ranks in
        ``match`` and ``clipnorm`` are then of each layer. Optimizers of groups that have none of their own take these.
      clipnorm: Maximum norm of each gradient by itself, at least 0; None for no limit.
      clipvalue: Maximum magnitude of each element of a gradient, at least 0; None for no limit.
      global_clipnorm: Maximum norm of all gradients together, at least 0; None for no limit. Not with ``clipnorm``.
        Gradients of frozen groups are left out, and those of a group that has not started are not.
      learning_rate_multipliers: Factors of the learning rate of parameters, by regular expressions on their paths, as
        in ``{"^head/": 10.0}``; each at least 0, and 0 for parameters that do not move. None for none.
      layer_decay: Factors of the learning rate that fall from the last layer to the first, a
        [`LayerDecay`][optax_ext.config.LayerDecay]; None for none.
      allow_unmatched: Whether a pattern in ``match`` that matches no parameter is accepted, and a pattern of the fields
        above.

    Raises:
      ConfigError: If an argument is not valid, or if two groups have one name.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import config
      >>> head = config.Group(["^head/"], config.SGD(0.5, momentum=0.9), name="head")
      >>> partition = config.Partition([head], rest=config.Frozen(), global_clipnorm=1.0)
      >>> tx = partition.make()
      >>> params = {"backbone": {"kernel": jnp.ones(2)}, "head": {"kernel": jnp.ones(1)}}
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> print(updates["backbone"]["kernel"], updates["head"]["kernel"])
      [0. 0.] [-0.5]
      >>> list(partition.learning_rates())
      ['head']

    Differs from Optax:
      Where ``optax.partition`` takes labels from the gradients, here they are those of the parameters, so that a
      gradient of None does not move its parameter into another group.
    """

    groups: Annotated[ListOf[Annotated[Group, Nested()]], pydantic.Field(json_schema_extra={"minItems": 1})]
    rest: UpdateRule | None = None
    _group_hyperparameters: ClassVar[Mapping[str, Sequence[str]]] = {}  # of a copy that keeps some in the state

    @pydantic.field_validator("groups")
    @classmethod
    def _have_names_of_their_own(cls, groups: tuple[Group, ...]) -> tuple[Group, ...]:
        if not groups:
            raise problem("must have at least one group, got []")
        labels = [group.label for group in groups]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise problem(f"must have names of their own, got {twice!r} twice: give each group a `name`")
        return groups

    @pydantic.field_validator("rest")
    @classmethod
    def _has_its_name(cls, rest: UpdateRule | None, info: pydantic.ValidationInfo) -> UpdateRule | None:
        if rest is not None and any(group.label == REST for group in info.data.get("groups", ())):
            raise problem(f"is called {REST!r}, as a group is: give that one another `name`")
        if rest is not None:
            check_can_move_a_group(rest)
        return rest

    @pydantic.field_validator("learning_rate_multipliers", "layer_decay")
    @classmethod
    def _of_proportional_updates(cls, factors: Any, info: pydantic.ValidationInfo) -> Any:
        optimizers = [group.optimizer for group in info.data.get("groups", ())]
        optimizers += [rest] if (rest := info.data.get("rest")) is not None else []
        why = next((why for optimizer in optimizers if (why := optimizer.why_no_factors())), None)
        if factors is not None and why is not None:
            raise problem(f"must be null with a group of {why}: give the factors to the optimizers of other groups")
        return factors

    def rules(self) -> Mapping[str, UpdateRule]:
        """Return what moves each group, by the name of the group, with the factors of the rate and the axes of all."""
        return self._rules(self._factors())

    def start_steps(self) -> Mapping[str, int]:
        """Return the first step that moves each group, by the name of the group."""
        steps = {group.label: resolved(group.start_step) for group in self.groups}
        return steps if self.rest is None else {**steps, REST: 0}

    def labels(self, *, allow_unmatched: bool | None = None) -> "masks.PathLabels":
        """Return the function from parameters to a tree of the names of their groups, as `stages` uses it.

        Args:
          allow_unmatched: Whether a pattern that matches no parameter is accepted; None for what the partition says.
        """
        return masks.path_labels(
            {group.label: group.match for group in self.groups},
            None if self.rest is None else REST,
            allow_unmatched=self.allow_unmatched if allow_unmatched is None else allow_unmatched,
            stacked_axes=self.layer_axes(allow_unmatched=allow_unmatched),
        )

    def in_words(self) -> str:
        """Say how many groups there are, and what they are called."""
        names = [*self._optimizers()]
        return f"{len(names)} group{'s' * (len(names) > 1)}: {', '.join(names)}"

    def learning_rates(self) -> Mapping[str, RateAtStep]:
        """Return the learning rates of the groups that have one, by the name of the group; 0 before its first step."""
        starts, found = self.start_steps(), dict[str, RateAtStep]()
        for name, rule in self.rules().items():
            for inner, rate in rule.learning_rates().items():
                found[f"{name}/{inner}" if inner else name] = _from_step(rate, starts[name])
        return found

    def has_constant_rate(self) -> bool:
        """Return whether every step takes the same rate in each group."""
        waits = any(group.start_step for group in self.groups)
        return not waits and all(rule.has_constant_rate() for rule in self._optimizers().values())

    def milestones(self) -> tuple[Milestone, ...]:
        """Return those of all groups, each with the name of its group, and the first step of each group that waits."""
        starts = self.start_steps()
        found = [Milestone(step, f"{name}: first step that moves") for name, step in starts.items() if step > 0]
        for name, rule in self.rules().items():
            found += [Milestone(step, f"{name}: {reason}") for step, reason in rule.milestones()]
        return tuple(sorted(found, key=lambda milestone: milestone.step))

    def _inject(self, hyperparameters: Sequence[str]) -> "optax.GradientTransformationExtraArgs":
        if isinstance(hyperparameters, str) or not isinstance(hyperparameters, Sequence):
            return super()._inject(hyperparameters)  # an error
        optimizers, own, of_groups = self._optimizers(), list[str](), dict[str, list[str]]()
        for name in hyperparameters:
            labels = [label for label in optimizers if str(name).startswith(f"{label}/")]
            if labels:
                label = max(labels, key=len)
                of_groups.setdefault(label, []).append(name.removeprefix(f"{label}/"))
            else:
                own.append(name)
        for label, names in of_groups.items():
            optimizers[label].make(hyperparameters=names)  # what is wrong with them is told here, rather than in `init`
        inside = copy.copy(self)
        object.__setattr__(inside, "_group_hyperparameters", of_groups)
        return inject(inside, own, inside._hyperparameters()) if own else inside.make()

    def _hyperparameters(self) -> tuple[str, ...]:
        of_groups = [
            f"{name}/{field}" for name, rule in self._optimizers().items() for field in rule._hyperparameters()
        ]
        return (*super()._hyperparameters(), *of_groups)

    def _optimizers(self) -> dict[str, UpdateRule]:
        """Return the optimizer of each group as it was given, by the name of the group."""
        optimizers = {group.label: group.optimizer for group in self.groups}
        return optimizers if self.rest is None else {**optimizers, REST: self.rest}

    def _rules(self, factors: Sequence[RateFactors]) -> dict[str, UpdateRule]:
        return {name: rule._inside(factors, self.stacked_axes) for name, rule in self._optimizers().items()}

    def why_no_factors(self) -> str | None:
        return next((why for rule in self._optimizers().values() if (why := rule.why_no_factors())), None)

    def why_no_counts(self) -> str | None:
        return next((why for rule in self._optimizers().values() if (why := rule.why_no_counts())), None)

    def _clipping(self) -> list[Stage]:
        """Return what comes first, without the gradients of frozen groups: in PyTorch they would have none."""
        frozen = {name for name, rule in self._optimizers().items() if isinstance(rule, Frozen)}
        if not frozen:
            return super()._clipping()
        labels = self.labels()

        def moves(params: Any) -> Any:
            return jax.tree.map(lambda label: label not in frozen, labels(params))

        return [
            Stage(name, f"{effect}, frozen groups left out", optax.masked(clip, moves))
            for name, effect, clip in super()._clipping()
            if clip is not None
        ]

    def _scaled_stages(self) -> list[Stage]:
        """Return the one stage of all groups, whose optimizers have the factors."""
        return self._stages()

    def _freezing(self) -> list[Stage]:
        return []

    def _stages(self) -> list[Stage]:
        starts, matches = self.start_steps(), {group.label: group.match for group in self.groups}
        words: list[str] = []
        for name, rule in self.rules().items():
            waits = f", from step {starts[name]} on" if starts[name] else ""
            where = "every other path" if name not in matches else self._where(matches[name])
            words.append(f"{where}: {rule.in_words()}{waits}")
        return [
            Stage("groups", "; ".join(words), _partition(self._transformations, self.labels(), self.rate_factors()))
        ]

    def _where(self, patterns: Sequence[str]) -> str:
        return matches_in_words(patterns, is_stacked=self.stacked_axes is not None)

    def _transformations(self, factors: Factors | None) -> dict[Hashable, "optax.GradientTransformation"]:
        """Return the transformation of each group, with these factors of the rate."""
        around = [] if factors is None else [part._replace(factors=factors) for part in self._factors()[:1]]
        has_zero = any(part.has_zero for part in self._factors())
        around = [part._replace(has_zero=has_zero, are_one=False) for part in around]
        starts = self.start_steps()
        made: dict[Hashable, optax.GradientTransformation] = {}
        for name, rule in self._rules(around).items():
            tx = rule.make(hyperparameters=self._group_hyperparameters.get(name, ()))
            made[name] = transforms.frozen_until(tx, starts[name]) if starts[name] else tx
        return made


def _from_step(rate: RateAtStep, start_step: int) -> RateAtStep:
    """Return a rate that is 0 before a step."""
    if start_step == 0:
        return rate
    return lambda step: jnp.where(exact_step(step) >= start_step, rate(step), jnp.float32(0))


def _partition(
    make: Callable[[Factors | None], dict[Hashable, "optax.GradientTransformation"]],
    labels: "masks.PathLabels",
    factors: Factors | None,
) -> "optax.GradientTransformationExtraArgs":
    """Return `optax.partition` by the labels, and with the factors, of the parameters rather than of their gradients.

    A gradient of None has no rank that would tell its group. A group alone does not know how many blocks there are in
    all of the model, so the factors that depend on it are taken from all parameters.
    """
    without_factors = make(None) if factors is None else {}

    def by_params(params: Any) -> "optax.GradientTransformationExtraArgs":
        of_params = labels(params)
        if factors is None:
            made = without_factors
        else:
            of_all = factors(params)
            made = make(lambda tree: of_all)
        # Optax calls what can be called, also a module that has labels in place of its arrays.
        return optax.partition(made, lambda tree: of_params)

    def init_fn(params: Any) -> Any:
        return by_params(params).init(params)

    def update_fn(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return by_params(updates if params is None else params).update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
