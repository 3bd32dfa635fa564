"""Adam with the epsilon of TensorFlow."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_ext.transforms._precision import in_float32


def scale_by_adam(b1: float, b2: float, eps: float, *, amsgrad: bool) -> optax.GradientTransformation:
    r"""Scale gradients by their moments, as TensorFlow's fused Adam does: with "epsilon hat".

    $$u = \frac{\sqrt{1 - b_2^t}}{1 - b_1^t} \cdot \frac{m}{\sqrt{v} + \mathrm{eps}}$$

    With ``amsgrad``, the largest $v$ so far takes its place. ``optax.scale_by_adam`` corrects $v$ before it adds
    epsilon, so that its epsilon is larger by $1 / \sqrt{1 - b_2^t}$, 31 times in the first step; and
    ``optax.scale_by_amsgrad`` compares corrected moments unless told. The states are Optax's, in at least float32.
    """
    # TensorFlow subtracts the rounded decays from 1, and 1 - float32(0.999) is off by 1.3e-5.
    decay1, decay2 = np.float32(b1), np.float32(b2)

    def init_fn(params: optax.Params) -> optax.OptState:
        count = jnp.zeros([], jnp.int32)
        mu, nu = optax.tree.zeros_like(params), optax.tree.zeros_like(params)
        if amsgrad:
            return optax.ScaleByAmsgradState(count, mu, nu, optax.tree.zeros_like(params))
        return optax.ScaleByAdamState(count, mu, nu)

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        count = jnp.asarray(optax.safe_increment(state.count))
        steps = count.astype(jnp.float32)
        correction = jnp.sqrt(1 - decay2**steps) / (1 - decay1**steps)
        mu = optax.tree.update_moment(updates, state.mu, decay1, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, decay2, 2)
        below, new_state = nu, state._replace(count=count, mu=mu, nu=nu)
        if amsgrad:
            below = jax.tree.map(jnp.maximum, nu, state.nu_max)
            new_state = new_state._replace(nu_max=below)
        return jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + eps), mu, below), new_state

    return in_float32(optax.GradientTransformation(init_fn, update_fn))
