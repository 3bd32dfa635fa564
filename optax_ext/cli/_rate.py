"""The learning rate of any config."""

import jax
import jax.numpy as jnp
import numpy as np

from optax_ext.config import OptimizationConfig, Optimizer
from optax_ext.schedules import Schedule, evaluate

LAST_STEP = 2**31 - 1  # steps are int32


def schedule_of(loaded: object) -> float | Schedule | None:
    """Return the schedule in a config, or the constant there; None if it has no learning rate."""
    if isinstance(loaded, OptimizationConfig):
        loaded = loaded.optimizer
    if isinstance(loaded, Optimizer):
        return loaded.learning_rate
    return loaded if isinstance(loaded, Schedule) else None


def decay_of(loaded: object) -> float:
    """Return the ``decay`` by which an optimizer divides its learning rate, or 0."""
    if isinstance(loaded, OptimizationConfig):
        loaded = loaded.optimizer
    return loaded.decay if isinstance(loaded, Optimizer) else 0.0


def rates(loaded: object, steps: np.ndarray) -> np.ndarray:
    """Return the learning rates that a config trains with at these steps, in float32."""
    schedule, decay = schedule_of(loaded), decay_of(loaded)
    if schedule is None:
        raise ValueError(f"must have a learning rate, got {loaded!r}")

    def at(step: jax.Array) -> jax.Array:
        return evaluate(schedule, step) / (1 + decay * step.astype("float32"))

    # Compiled, as in training, and ten times faster. The schedule sees one step at a time.
    return np.asarray(jax.jit(jax.vmap(at))(jnp.asarray(np.minimum(steps, LAST_STEP), jnp.int32)), np.float32)
