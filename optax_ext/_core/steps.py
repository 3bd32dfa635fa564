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
    """Return `steps / by` in float32, rounded to nearest, the same eagerly and compiled, on a CPU and on a GPU.

    XLA replaces division by a constant with multiplication by its reciprocal, which can differ in the last bit:
    1 - t / T then changes by percents just before the end, and is negative at the end. A divisor that depends on the
    steps, even if only by adding zero times the steps, is not a constant.

    On a GPU a quotient of two variables may be two units in the last place off, and T / T not 1.
    """
    steps = steps.astype(jnp.float32)
    by = by + 0 * steps
    return _to_nearest(steps / by, steps, by)


def _to_nearest(quotient: "jax.Array", steps: "jax.Array", by: "jax.Array") -> "jax.Array":
    """Return `steps / by` rounded to nearest, from a quotient that may be some units in the last place off.

    What the quotient leaves of the steps says by how much. It is exact, as each product is of halves with 12 bits.
    """
    (high, low), (by_high, by_low) = _halves(quotient), _halves(by)
    rest = steps - high * by_high - high * by_low - low * by_high - low * by_low
    # Not small where a number is infinite, or so tiny that products of halves are flushed to 0.
    is_small = jnp.abs(rest) <= 2.0**-20 * jnp.abs(steps)
    return quotient + jnp.where(is_small, rest / by, 0)


def _halves(x: "jax.Array") -> "tuple[jax.Array, jax.Array]":
    """Return the first 12 significant bits of float32 numbers and what is left of them, which are 12 more."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32) & -(2**12)
    high = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return high, x - high
