"""The arithmetic of moments: averages, squares and their roots, in one dtype and with finite derivatives."""

import jax
import jax.numpy as jnp

from optax_ext._core.arguments import Scalar


def average(old: jax.Array, new: jax.Array, decay: Scalar) -> jax.Array:
    """Return ``(1 - decay) * new + decay * old`` in the dtype of `old`, whatever the dtype of the decay."""
    kept, added = (jnp.asarray(factor, old.dtype) for factor in (decay, 1 - decay))
    return added * new.astype(old.dtype) + kept * old


def square(x: jax.Array) -> jax.Array:
    """Return the square of the magnitude, in the dtype of `x`: Optax stores it as a complex number as well."""
    squared = jnp.square(x.real) + jnp.square(x.imag) if jnp.iscomplexobj(x) else jnp.square(x)
    return clip_to_finite(squared.astype(x.dtype))


def clip_to_finite(squared: jax.Array) -> jax.Array:
    """Return squares with a large finite number in place of infinity, small enough that their averages are finite.

    A moment that is once infinite stays infinite, and its parameter silently never moves again.
    """
    real = squared.real if jnp.iscomplexobj(squared) else squared
    largest = jnp.asarray(float(jnp.finfo(real.dtype).max) * (1 - 2.0**-10), real.dtype)
    return jnp.minimum(real, largest).astype(squared.dtype)


def divide(x: jax.Array, root: jax.Array, eps: Scalar) -> jax.Array:
    """Return ``x / (root + eps)`` in the dtype of `x`."""
    return x / (root + jnp.asarray(eps, root.dtype)).astype(x.dtype)
