"""A group of parameters that does not move, as data."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import pydantic

from optax_ext._core.errors import shorten
from optax_ext._core.lazy import optax
from optax_ext._core.schema import init_fields, problem
from optax_ext.config._stage import Stage
from optax_ext.config._update_rule import RateAtStep, UpdateRule
from optax_ext.schedules import Milestone


@dataclasses.dataclass(frozen=True)
class Frozen(UpdateRule):
    """Parameters that do not move: every update is zero, and there is no state.

    It is for a group of a [`Partition`][optax_ext.config.Partition], and takes no arguments. Clipping by the global
    norm of the partition leaves out the gradients of frozen groups.

    Raises:
      ConfigError: If a field that all optimizers have is given, since there is nothing to clip and no rate to multiply:
        ``stacked_axes``, ``clipnorm``, ``clipvalue``, ``global_clipnorm``, ``learning_rate_multipliers``,
        ``layer_decay``, ``allow_unmatched``.

    Examples:
      >>> from optax_ext import config
      >>> config.to_dict(config.Frozen(), exclude_defaults=True)
      {'type': 'frozen'}
      >>> tx = config.Frozen().make()
    """

    __refused__: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("learning_rate", "momentum", "weight_decay_rate"), "must not be given: what is frozen has no updates"
    )

    @pydantic.field_validator("*")
    @classmethod
    def _nothing_else(cls, value: object, info: pydantic.ValidationInfo) -> object:
        default = next(field.default for field in init_fields(UpdateRule) if field.name == info.field_name)
        if value != default:
            raise problem(f"must not be given: what is frozen has no updates, got {shorten(value)}")
        return value

    def stages(self) -> list[Stage]:
        """Return the one stage, which sets updates to zero."""
        return self._stages()

    def in_words(self) -> str:
        """Say that nothing moves."""
        return "frozen"

    def learning_rates(self) -> Mapping[str, RateAtStep]:
        """Return no learning rate."""
        return {}

    def has_constant_rate(self) -> bool:
        """Return True: no schedule needs a count."""
        return True

    def milestones(self) -> tuple[Milestone, ...]:
        """Return no step."""
        return ()

    def _stages(self) -> list[Stage]:
        return [Stage("frozen", "every update is zero", optax.set_to_zero())]
