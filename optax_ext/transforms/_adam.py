"""Adam, with the epsilon of TensorFlow or with that of the paper."""

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
    r"""Scale gradients by their moments, with "epsilon hat", as TensorFlow's fused Adam does, or without.

    $$u = \frac{\sqrt{1 - b_2^t}}{1 - b_1^t} \cdot \frac{m}{\sqrt{v} + \mathrm{eps}} \quad\text{or}\quad
      u = \frac{m / (1 - b_1^t)}{\sqrt{v / (1 - b_2^t)} + \mathrm{eps}}$$

    The second is that of ``optax.scale_by_adam``. It corrects $v$ before it adds epsilon, so that its epsilon is larger
    by $1 / \sqrt{1 - b_2^t}$, 31 times in the first step. With ``amsgrad``, the largest $v$ so far takes the place
    of $v$; ``optax.scale_by_amsgrad`` compares corrected moments unless told.

    The states are Optax's, in at least float32, but for $m$ in ``mu_dtype``. Unlike Optax's, this works under strict
    promotion, the decays may be of any dtype, and its derivative is finite where a gradient is zero.
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
