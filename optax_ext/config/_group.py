"""A group of parameters with an optimizer of its own, as data."""

import dataclasses
from typing import Annotated

import pydantic

from optax_ext._core.errors import shorten
from optax_ext._core.field_types import NonNegativeSteps, Patterns
from optax_ext._core.schema import Schema, problem
from optax_ext.config._frozen import Frozen
from optax_ext.config._update_rule import UpdateRule


def _at_least_one(patterns: tuple[str, ...]) -> tuple[str, ...]:
    if not patterns:
        raise problem("must have at least one pattern, got []: the optimizer of all other parameters is `rest`")
    return patterns


def check_can_move_a_group(optimizer: UpdateRule) -> None:
    """Raise what a validator raises for a rule that can only move all parameters together."""
    if why := optimizer.why_no_group():
        raise problem(f"must be able to move a part of the parameters, got {why}")


@dataclasses.dataclass(frozen=True)
class Group(Schema):
    """The parameters that patterns match, and what moves them: a group of a [`Partition`][optax_ext.config.Partition].

    Args:
      match: Regular expressions, at least one; parameters whose path contains a match are in the group.
        ``"rank <= 1"`` matches parameters with at most one axis, such as biases, whatever their names.
      optimizer: What moves them: an optimizer, or [`Frozen`][optax_ext.config.Frozen].
      start_step: The first step that moves them, counted from 0, or a duration such as ``"1 epoch"``. Before it their
        optimizer keeps its first momentum and moments, while its schedules count the steps of training.
      name: What the group is called in states, metrics and tables; None for its patterns, joined by ``|``.

    Raises:
      ConfigError: If an argument is not valid.

    Examples:
      >>> from optax_ext import config
      >>> config.Group(["^prototypes/"], config.SGD(0.1), start_step=313).label
      '^prototypes/'
    """

    match: Annotated[
        Patterns, pydantic.AfterValidator(_at_least_one), pydantic.Field(json_schema_extra={"minItems": 1})
    ]
    optimizer: UpdateRule
    start_step: NonNegativeSteps = dataclasses.field(default=0, kw_only=True)
    name: str | None = dataclasses.field(default=None, kw_only=True)

    @pydantic.field_validator("optimizer")
    @classmethod
    def _is_of_a_group(cls, optimizer: UpdateRule) -> UpdateRule:
        check_can_move_a_group(optimizer)
        return optimizer

    @pydantic.field_validator("start_step")
    @classmethod
    def _starts(cls, start_step: int | str, info: pydantic.ValidationInfo) -> int | str:
        optimizer: UpdateRule | None = info.data.get("optimizer")
        if start_step and isinstance(optimizer, Frozen):
            raise problem(f"must not be given with a frozen optimizer, got {start_step}: what is frozen never starts")
        if start_step and optimizer is not None and (why := optimizer.why_no_counts()):
            raise problem(f"must not be given with {why}, got {start_step}")
        return start_step

    @pydantic.field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and not (name and name.isprintable()):
            raise problem(f"must be a name, got {shorten(name)}")
        return name

    @property
    def label(self) -> str:
        """What the group is called."""
        return "|".join(self.match) if self.name is None else self.name
