"""Nadam, whose momentum rises from step to step."""

# No `from __future__ import annotations` here: it would turn the annotations of a NamedTuple into text.

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.norms import root
from optax_ext._core.public import public
from optax_ext._core.trees import PyTree
from optax_ext.transforms._float32 import in_float32
from optax_ext.transforms._moments import average, divide, square


@public
class NadamState(NamedTuple):
    """The state of [`scale_by_nadam`][optax_ext.transforms.scale_by_nadam].

    Attributes:
      count: How many updates came before, int32.
      momentum_product: The product of the momentum of all steps so far, float32.
      mu: The running mean of gradients, a tree like the parameters in at least float32.
      nu: The running mean of their squares, another.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> state = transforms.scale_by_nadam(0.9, 0.999, 1e-7, momentum_decay=1.0).init(jnp.zeros(2))
      >>> print(state.count, state.momentum_product, state.mu, state.nu)
      0 1.0 [0. 0.] [0. 0.]
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  # Optax's name; a tuple's method goes
    momentum_product: jax.Array
    mu: PyTree
    nu: PyTree


@public
def scale_by_nadam(b1: float, b2: float, eps: float, *, momentum_decay: float) -> optax.GradientTransformation:
    """Scale gradients by their moments with Nesterov's momentum, which rises from half of ``b1`` to ``b1``.

    ```text
    c(t) = b1 * (1 - 0.5 * 0.96**(momentum_decay * t))
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    h = c(t + 1) * m / (1 - c(1) * ... * c(t + 1)) + (1 - c(t)) * g / (1 - c(1) * ... * c(t))
    u = h / (sqrt(v / (1 - b2**t)) + eps)
    ```

    Args:
      b1: The decay of the first moment, in [0, 1).
      b2: The decay of the second moment, in [0, 1).
      eps: At least 0.
      momentum_decay: How fast the momentum rises, at least 0.

    Returns:
      A transformation with the state [`NadamState`][optax_ext.transforms.NadamState].

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.scale_by_nadam(0.0, 0.75, 0.0, momentum_decay=1.0)
      >>> grads = jnp.array([2.0, -3.0])
      >>> updates, state = tx.update(grads, tx.init(grads))
      >>> print(updates)
      [ 1. -1.]

    References:
      Dozat, Incorporating Nesterov momentum into Adam, 2016, algorithm 2.

    Differs from Optax:
      The momentum of ``optax.scale_by_adam(nesterov=True)`` is ``b1`` at every step.
    """

    def init_fn(params: optax.Params) -> NadamState:
        zeros = optax.tree.zeros_like(params)
        return NadamState(jnp.zeros([], jnp.int32), jnp.ones([], jnp.float32), zeros, optax.tree.zeros_like(params))

    def momentum_at(step: jax.Array) -> jax.Array:
        return b1 * (1 - 0.5 * 0.96 ** (momentum_decay * step))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        count = jnp.asarray(optax.safe_increment(state.count))
        step = count.astype(jnp.float32)
        now, ahead = momentum_at(step), momentum_at(step + 1)
        product = state.momentum_product * now
        of_mean, of_grad, correction2 = ahead / (1 - product * ahead), (1 - now) / (1 - product), 1 - b2**step
        mu = jax.tree.map(lambda g, m: average(m, g, b1), updates, state.mu)
        nu = jax.tree.map(lambda g, v: average(v, square(g), b2), updates, state.nu)

        def scale(grad: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
            mean = of_mean.astype(m.dtype) * m + of_grad.astype(m.dtype) * grad.astype(m.dtype)
            return divide(mean, root(v / correction2.astype(v.dtype)), eps)

        return jax.tree.map(scale, updates, mu, nu), NadamState(count, product, mu, nu)

    return in_float32(optax.GradientTransformation(init_fn, update_fn), scalars=("count", "momentum_product"))
