"""The steps at which it is worth looking at a learning rate, as the fields of a schedule name them."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from optax_ext._core.public import public
from optax_ext._core.relative import Relative, resolved

_OPEN_END = 1000  # how far to follow what has no end of its own
_REPETITIONS = 4  # how much to show of what goes on forever


@public
class Milestone(NamedTuple):
    """A step at which to look at a learning rate.

    Attributes:
      step: Counted from 0.
      reason: What happens there, in a few words.

    Examples:
      >>> import optax_ext
      >>> for milestone in optax_ext.PiecewiseConstantDecay([10, 20], [1.0, 0.5, 0.1]).milestones():
      ...     print(milestone.step, milestone.reason)
      10 boundary
      20 boundary
    """

    step: int
    reason: str


def field_milestones(tag: str, fields: Mapping[str, object], *, has_end: bool) -> Iterator[Milestone]:
    """Find what fields name: an offset, the end of a warm-up, boundaries, the ends of other steps.

    Without any end, and unless something else `has_end`, there is a step far from the start.
    """
    fields = {name: _resolved(value) for name, value in fields.items()}
    start = _integer(fields.get("offset"))
    if start:
        yield Milestone(start, f"offset of {tag}")
    warmup_steps = _integer(fields.get("warmup_steps"))
    if warmup_steps:
        start += warmup_steps  # what follows starts when it ends
        yield Milestone(start, "end of warmup_steps")
    for name, value in fields.items():
        if name == "boundaries" and isinstance(value, tuple):
            yield from (Milestone(start + boundary, "boundary") for boundary in map(_integer, value))
        elif name.endswith("steps") and name != "warmup_steps" and isinstance(value, int | float) and value > 0:
            yield Milestone(start + math.ceil(value), f"end of {name}")
        else:
            continue
        has_end = True
    if not has_end:
        yield Milestone(start + _OPEN_END, "goes on without an end")


def repetitions() -> range:
    """Return the numbers of the periods whose ends are milestones, besides the first."""
    return range(2, _REPETITIONS + 1)


def in_order(milestones: Iterable[Milestone]) -> tuple[Milestone, ...]:
    """Return milestones by their steps; of those at one step, the first one stays first."""
    return tuple(sorted(milestones, key=lambda milestone: milestone.step))


def _resolved(value: object) -> object:
    """Return a value as it is in this run; raise ValueError where that is not known."""
    if isinstance(value, tuple):
        return tuple(_resolved(item) for item in value)
    return resolved(value) if isinstance(value, Relative) else value


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0
