"""The learning rate of any config, evaluated for many steps at once."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optax_ext._core.field_types import INT32_MAX
from optax_ext.config import LossScale, OptimizationConfig, Partition, UpdateRule
from optax_ext.schedules import Milestone, Schedule

LAST_STEP = INT32_MAX
Config = OptimizationConfig | UpdateRule | Schedule | LossScale  # what a file holds


class GroupRate(NamedTuple):
    """The learning rate of a group of parameters.

    Attributes:
      rate: The function from a step to the rate.
      steps: The steps at which it is worth looking at.
    """

    rate: Callable[[jax.Array], jax.Array]
    steps: tuple[Milestone, ...]

    def milestones(self) -> tuple[Milestone, ...]:
        """Return the steps at which it is worth looking at the rate."""
        return self.steps


def by_group(loaded: Config) -> dict[str, Config | GroupRate]:
    """Return what has a learning rate of its own: each group that has one by its name, or all under ""."""
    rule = loaded.optimizer if isinstance(loaded, OptimizationConfig) else loaded
    if not isinstance(rule, Partition):
        return {} if rate_of(loaded) is None else {"": loaded}
    rates, starts, found = rule.learning_rates(), rule.start_steps(), dict[str, Config | GroupRate]()
    for name, optimizer in rule.rules().items():
        for inner, part in by_group(optimizer).items():
            steps = () if isinstance(part, LossScale) else part.milestones()
            if starts[name]:
                steps = (*steps, Milestone(starts[name], "first step that moves"))
            group = f"{name}/{inner}" if inner else name
            found[group] = GroupRate(rates[group], tuple(sorted(steps, key=lambda milestone: milestone.step)))
    return found


def rate_of(loaded: Config | GroupRate) -> Callable[[jax.Array], jax.Array] | None:
    """Return the function from a step to the rate that a config takes there; None if it has no learning rate."""
    if isinstance(loaded, GroupRate):
        return loaded.rate
    if isinstance(loaded, OptimizationConfig | UpdateRule):
        return loaded.learning_rate_at if loaded.learning_rates() else None
    return loaded if isinstance(loaded, Schedule) else None


def rates(loaded: Config | GroupRate, steps: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the learning rates that a config trains with at these steps, in float32, by one compiled program."""
    rate = rate_of(loaded)
    if rate is None:
        raise ValueError(f"must have a learning rate, got {loaded!r}")
    # Compiled, as in training, and ten times faster. The schedule sees one step at a time.
    at_steps = jnp.asarray(np.minimum(np.asarray(steps, np.int64), LAST_STEP), jnp.int32)
    return np.asarray(jax.jit(jax.vmap(rate))(at_steps), np.float32)
