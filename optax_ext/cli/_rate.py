"""The learning rate of any config, evaluated for many steps at once."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from optax_ext._core.field_types import INT32_MAX
from optax_ext.config import LossScale, OptimizationConfig, UpdateRule
from optax_ext.schedules import Schedule

LAST_STEP = INT32_MAX
Config = OptimizationConfig | UpdateRule | Schedule | LossScale  # what a file holds


def rate_of(loaded: Config) -> Callable[[jax.Array], jax.Array] | None:
    """Return the function from a step to the rate that a config takes there; None unless it has one."""
    if isinstance(loaded, OptimizationConfig | UpdateRule):
        return loaded.learning_rate_at if len(loaded.learning_rates()) == 1 else None
    return loaded if isinstance(loaded, Schedule) else None


def rates(loaded: Config, steps: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the learning rates that a config trains with at these steps, in float32, by one compiled program."""
    rate = rate_of(loaded)
    if rate is None:
        raise ValueError(f"must have a learning rate, got {loaded!r}")
    # Compiled, as in training, and ten times faster. The schedule sees one step at a time.
    at_steps = jnp.asarray(np.minimum(np.asarray(steps, np.int64), LAST_STEP), jnp.int32)
    return np.asarray(jax.jit(jax.vmap(rate))(at_steps), np.float32)
