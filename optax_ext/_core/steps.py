"""Exact arithmetic on steps: integers past 2**24, offsets, and quotients that round the same everywhere."""

from typing import Literal

from optax_ext._core.lazy import jax, jnp, np
from optax_ext._core.relative import resolved

BeforeOffset = Literal["extrapolate", "hold"]


def exact_step(step: "jax.typing.ArrayLike") -> "jax.Array":
    """Return `step` in JAX's widest signed integer type, or in its widest float type if it is a float.

    Integers stay integers because float32 skips every odd step past 2**24. Values out of range saturate: a large
    unsigned step, or a large Python integer, must not become negative.
    """
    widest = jnp.iinfo(jnp.result_type(int))
    if isinstance(step, int) and not isinstance(step, bool):
        step = min(max(step, widest.min), widest.max)
    step = step if isinstance(step, jax.Array) else np.asarray(step)  # NumPy keeps 64 bits where JAX would not
    if jnp.issubdtype(step.dtype, jnp.floating):
        return jnp.asarray(step).astype(jnp.result_type(float))
    if not jnp.issubdtype(step.dtype, jnp.integer):
        raise TypeError(f"step must be an integer or a float, got {step.dtype} {step!r}")
    limits = jnp.iinfo(step.dtype)
    clip = jnp.clip if isinstance(step, jax.Array) else np.clip
    return jnp.asarray(clip(step, max(limits.min, widest.min), min(limits.max, widest.max)), widest.dtype)


def elapsed_steps(step: "jax.typing.ArrayLike", offset: int | str, before_offset: BeforeOffset) -> "jax.Array":
    """Return `step - offset`, exact and saturating; 0 before the offset if `before_offset` is "hold"."""
    step, offset = exact_step(step), resolved(offset)
    if jnp.issubdtype(step.dtype, jnp.integer):
        limits = jnp.iinfo(step.dtype)
        room = (limits.min + offset, limits.max) if offset > 0 else (limits.min, limits.max + offset)
        step = jnp.clip(step, *room)
    elapsed = step - offset
    return jnp.maximum(elapsed, 0) if before_offset == "hold" else elapsed


def true_divide(steps: "jax.Array", by: "float | jax.Array") -> "jax.Array":
    """Return `steps / by` in float32, rounded to nearest, the same eagerly and compiled.

    XLA replaces division by a constant with multiplication by its reciprocal, which can differ in the last bit:
    1 - t / T then changes by percents just before the end, and is negative at the end. A divisor that depends on the
    steps, even if only by adding zero times the steps, is not a constant.
    """
    steps = steps.astype(jnp.float32)
    return steps / (by + 0 * steps)
