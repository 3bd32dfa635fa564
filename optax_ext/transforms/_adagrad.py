"""Adagrad with the epsilon of TensorFlow."""

from typing import Any

import jax
import optax

from optax_ext._core.norms import root
from optax_ext._core.public import public
from optax_ext.transforms._float32 import in_float32
from optax_ext.transforms._moments import clip_to_finite, divide, square


@public
def scale_by_rss(initial_accumulator_value: float, eps: float, *, eps_in_sqrt: bool) -> optax.GradientTransformation:
    r"""Scale gradients by the root of the sum of their squares so far: $u = g / (\sqrt{a + g^2} + \mathrm{eps})$.

    With ``eps_in_sqrt`` epsilon stands inside the root, as always in ``optax.scale_by_rss``, which returns 0 where the
    sum is 0. The state is Optax's, in at least float32. Unlike Optax's, this works under strict promotion, and its
    derivative is finite where a gradient is zero.
    """
    rss = optax.scale_by_rss(initial_accumulator_value)

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        total = jax.tree.map(lambda g, a: clip_to_finite(a + square(g).astype(a.dtype)), updates, state.sum_of_squares)

        def scale(update: jax.Array, total: jax.Array) -> jax.Array:
            return divide(update, root(total.real + eps), 0) if eps_in_sqrt else divide(update, root(total), eps)

        return jax.tree.map(scale, updates, total), optax.ScaleByRssState(sum_of_squares=total)

    return in_float32(optax.GradientTransformation(rss.init, update_fn))
