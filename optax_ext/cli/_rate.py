"""The learning rate of whatever a file holds, evaluated for many steps at once."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from optax_ext.config import LossScale, OptimizationConfig, Optimizer
from optax_ext.schedules import Schedule

LAST_STEP = 2**31 - 1  # steps are int32
Config = OptimizationConfig | Optimizer | Schedule | LossScale  # what a file holds


def rate_of(loaded: Config) -> Callable[[jax.Array], jax.Array] | None:
    """Return the function from a step to the rate that a config takes there; None if it has no learning rate."""
    if isinstance(loaded, OptimizationConfig | Optimizer):
        return loaded.learning_rate_at
    return loaded if isinstance(loaded, Schedule) else None


def rates(loaded: Config, steps: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the learning rates that a config trains with at these steps, in float32, by one compiled program."""
    rate = rate_of(loaded)
    if rate is None:
        raise ValueError(f"must have a learning rate, got {loaded!r}")
    # Compiled, as in training, and ten times sooner there. One step at a time, as far as the schedule can tell.
    at_steps = jnp.asarray(np.minimum(np.asarray(steps, np.int64), LAST_STEP), jnp.int32)
    return np.asarray(jax.jit(jax.vmap(rate))(at_steps), np.float32)
