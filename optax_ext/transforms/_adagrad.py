"""Adagrad with the epsilon of TensorFlow."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext.transforms._precision import in_float32


def scale_by_rss(initial_accumulator_value: float, eps: float) -> optax.GradientTransformation:
    r"""Scale gradients by the root of the sum of their squares so far: $u = g / (\sqrt{a + g^2} + \mathrm{eps})$.

    In ``optax.scale_by_rss`` epsilon stands inside the root. The state is Optax's, in at least float32.
    """
    rss = optax.scale_by_rss(initial_accumulator_value)

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        total = jax.tree.map(lambda update, a: a + jnp.square(jnp.abs(update)), updates, state.sum_of_squares)
        scaled = jax.tree.map(lambda update, a: update / (jnp.sqrt(a) + eps), updates, total)
        return scaled, optax.ScaleByRssState(sum_of_squares=total)

    return in_float32(optax.GradientTransformation(rss.init, update_fn))
