"""Adam, with the epsilon of TensorFlow or with that of the paper."""

from __future__ import annotations  # so that `help` shows types as they are written

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from optax_ext._core.arguments import Scalar
from optax_ext._core.norms import root
from optax_ext._core.public import public
from optax_ext._core.remat import rematerializable
from optax_ext.transforms._float32 import accumulator_dtype_of, in_float32
from optax_ext.transforms._moments import average, divide, square


@public
def scale_by_adam(
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    *,
    amsgrad: bool = False,
    epsilon_hat: bool = True,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformation:
    """Scale gradients by their moments, with the epsilon of TensorFlow's Adam or with that of Optax.

    ```text
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    u = sqrt(1 - b2**t) / (1 - b1**t) * m / (sqrt(v) + eps)             with epsilon_hat
    u = (m / (1 - b1**t)) / (sqrt(v / (1 - b2**t)) + eps)               without
    ```

    The second corrects ``v`` before it adds epsilon. In the first, epsilon therefore counts ``1 / sqrt(1 - b2**t)``
    times as much, more than 31 times in the first step.

    Args:
      b1: The decay of the first moment, in [0, 1).
      b2: The decay of the second moment, in [0, 1).
      eps: At least 0.
      amsgrad: Whether the largest ``v`` so far takes the place of ``v``.
      epsilon_hat: Whether epsilon is added to the uncorrected root, as TensorFlow's fused Adam does.
      mu_dtype: The dtype in which ``m`` is stored; None for that of each parameter, but at least float32.

    Returns:
      A transformation with the state of ``optax.scale_by_adam``, or with ``amsgrad`` of ``optax.scale_by_amsgrad``, in
      at least float32.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.scale_by_adam(0.5, 0.75, 1e-8)
      >>> grads = jnp.array([2.0, -3.0])
      >>> updates, state = tx.update(grads, tx.init(grads))
      >>> print(updates)
      [ 1. -1.]

    References:
      Kingma and Ba, [arXiv:1412.6980](https://arxiv.org/abs/1412.6980), algorithm 1 and the end of section 2.

    Differs from Optax:
      ``optax.scale_by_amsgrad`` compares corrected moments. Here the decays may be of any dtype, strict promotion is
      supported, moments never become infinite, and the derivative is finite where a gradient is zero.
    """

    def init_fn(params: optax.Params) -> optax.OptState:
        count = jnp.zeros([], jnp.int32)
        mu = jax.tree.map(lambda param: jnp.zeros_like(param, dtype=accumulator_dtype_of(param, mu_dtype)), params)
        nu = optax.tree.zeros_like(params)
        if amsgrad:
            return optax.ScaleByAmsgradState(count, mu, nu, optax.tree.zeros_like(params))
        return optax.ScaleByAdamState(count, mu, nu)

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        count = jnp.asarray(optax.safe_increment(state.count))
        steps = count.astype(jnp.result_type(float))
        correction1, correction2 = (1 - jnp.asarray(decay, steps.dtype) ** steps for decay in (b1, b2))
        mu = jax.tree.map(lambda g, m, v: average(m.astype(v.dtype), g, b1), updates, state.mu, state.nu)
        nu = jax.tree.map(lambda g, v: average(v, square(g), b2), updates, state.nu)
        stored_mu = jax.tree.map(lambda new, old: new.astype(old.dtype), mu, state.mu)
        below, new_state = nu, state._replace(count=count, mu=stored_mu, nu=nu)
        if amsgrad:
            below = jax.tree.map(lambda v, most: jnp.maximum(v.real, most.real).astype(v.dtype), nu, state.nu_max)
            new_state = new_state._replace(nu_max=below)

        def scale(
            m: jax.Array, v: jax.Array, correction1: jax.Array, correction2: jax.Array, eps: jax.Array
        ) -> jax.Array:
            if epsilon_hat:
                correction = jnp.sqrt(correction2) / correction1
                return divide(correction.astype(m.dtype) * m, root(v), eps)
            return divide(m / correction1.astype(m.dtype), root(v / correction2.astype(v.dtype)), eps)

        def scaled(m: jax.Array, v: jax.Array) -> jax.Array:  # LAMB's norm computes it again, rather than read it
            return rematerializable(scale, m, v, correction1, correction2, jnp.asarray(eps, root(v).dtype))

        return jax.tree.map(scaled, mu, below), new_state

    return in_float32(optax.GradientTransformation(init_fn, update_fn))
