"""The arithmetic of moments: averages, squares and their roots, in one dtype and with finite derivatives."""

import jax
import jax.numpy as jnp

from optax_ext._core.arguments import Scalar


def average(old: jax.Array, new: jax.Array, decay: Scalar) -> jax.Array:
    """Return ``(1 - decay) * new + decay * old`` in the dtype of `old`, whatever that of the decay."""
    kept, added = (jnp.asarray(factor, old.dtype) for factor in (decay, 1 - decay))
    return added * new.astype(old.dtype) + kept * old


def square(x: jax.Array) -> jax.Array:
    """Return the square of the magnitude, in the dtype of `x`: Optax keeps it as a complex number too."""
    squared = jnp.square(x.real) + jnp.square(x.imag) if jnp.iscomplexobj(x) else jnp.square(x)
    return clip_to_finite(squared.astype(x.dtype))


def clip_to_finite(squared: jax.Array) -> jax.Array:
    """Return a square, or a sum of some, with a large number for infinity, of which averages are finite too.

    An infinite moment would stay one, and its parameter would never move again, without a word.
    """
    real = squared.real if jnp.iscomplexobj(squared) else squared
    largest = jnp.asarray(float(jnp.finfo(real.dtype).max) * (1 - 2.0**-10), real.dtype)
    return jnp.minimum(real, largest).astype(squared.dtype)


def divide(x: jax.Array, root: jax.Array, eps: Scalar) -> jax.Array:
    """Return ``x / (root + eps)`` in the dtype of `x`."""
    return x / (root + jnp.asarray(eps, root.dtype)).astype(x.dtype)
