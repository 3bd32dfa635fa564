"""Learning rates that are given for a batch of some size."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from optax_ext._core.errors import shorten
from optax_ext._core.field_types import NonNegativeNumber, NumberOr, PositiveInteger, PositiveNumber
from optax_ext._core.relative import Relative
from optax_ext._core.schema import Schema, construct, problem, type_adapter


@dataclasses.dataclass(frozen=True)
class RatePerBatch(Schema, Relative):
    """A learning rate for a batch of some size, from which that of the run's batch follows.

    ```text
    linear: rate = value * batch_size / per_batch
    sqrt:   rate = value * sqrt(batch_size / per_batch)
    ```

    It may stand wherever a learning rate may; [`resolve`][optax_ext.config.resolve] puts a number in its place, for the
    ``batch_size`` of the [`Run`][optax_ext.config.Run]. In data it is a mapping: ``{value: 0.3, per_batch: 256}``.

    Args:
      value: The rate for a batch of ``per_batch`` examples, positive.
      per_batch: The number of examples, at least 1.
      rule: How the rate goes with the size of the batch: ``"linear"`` or ``"sqrt"``.

    Raises:
      ConfigError: If an argument is out of its range.

    Examples:
      >>> import optax_ext
      >>> from optax_ext import config, schedules
      >>> rate = schedules.RatePerBatch(0.3, per_batch=256)
      >>> config.resolve(config.SGD(rate), config.Run(batch_size=4096))
      SGD(learning_rate=4.8)

    References:
      Goyal et al., [arXiv:1706.02677](https://arxiv.org/abs/1706.02677), section 2.1, for the linear rule; Krizhevsky,
      [arXiv:1404.5997](https://arxiv.org/abs/1404.5997), section 5, for the square root.
    """

    value: PositiveNumber
    per_batch: PositiveInteger
    rule: Literal["linear", "sqrt"] = "linear"

    def for_batch(self, batch_size: int) -> float:
        """Return the rate for a batch of this many examples."""
        times = batch_size / self.per_batch
        return self.value * (times if self.rule == "linear" else math.sqrt(times))

    def in_words(self) -> str:
        """Say what the rate is."""
        by_rule = ", by the square root" if self.rule == "sqrt" else ""
        return f"{self.value:.10g} for each {self.per_batch} examples of a batch{by_rule}"


def is_rate_per_batch(value: object) -> bool:
    """Return whether a value is a rate for a batch, or data of one."""
    return isinstance(value, RatePerBatch) or (
        isinstance(value, Mapping) and {"value", "per_batch"} & {*value} != set() and "type" not in value
    )


def make_rate_per_batch(value: Any) -> RatePerBatch:
    """Return a rate for a batch, built from it if it is data; for validators."""
    return value if isinstance(value, RatePerBatch) else construct(RatePerBatch, (), value)


class _RateOr(NumberOr):
    """Takes a number of the type given, or a rate for a batch."""

    def check(self, value: object) -> object:
        if is_rate_per_batch(value):
            return make_rate_per_batch(value)
        if isinstance(value, Mapping):
            raise problem(f"must be a number, or a mapping of value, per_batch and rule, got {shorten(value)}")
        return type_adapter(self.number).validate_python(value, strict=True)

    def alternatives(self) -> list[dict[str, Any]]:
        return [{"x-family": RatePerBatch.__name__}]


Rate = Annotated[float | RatePerBatch, _RateOr(NonNegativeNumber)]
