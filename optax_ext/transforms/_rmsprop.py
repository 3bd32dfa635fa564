"""The centered scaling of RMSprop."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext.transforms._precision import in_float32


def scale_by_rms(decay: float, eps: float, *, eps_in_sqrt: bool, centered: bool) -> optax.GradientTransformation:
    r"""Scale gradients by the root of their mean square, or with ``centered`` of their variance.

    $$u = g / (\sqrt{n - m^2} + \mathrm{eps}) \quad\text{or}\quad u = g / \sqrt{n - m^2 + \mathrm{eps}}$$

    with the running means $n$ of $g^2$ and $m$ of $g$, or 0 for $m$. It is Optax's, in at least float32, except that
    a variance that rounding makes negative counts as 0. A gradient that is the same for some hundred steps can do that,
    and then ``optax.scale_by_stddev`` returns NaN, as TensorFlow does.
    """
    if not centered:
        return in_float32(optax.scale_by_rms(decay, eps, eps_in_sqrt=eps_in_sqrt))
    stddev = optax.scale_by_stddev(decay, eps, eps_in_sqrt=eps_in_sqrt)

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        mu = optax.tree.update_moment(updates, state.mu, decay, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, decay, 2)

        def scale(update: jax.Array, m: jax.Array, n: jax.Array) -> jax.Array:
            variance = jnp.maximum(n - jnp.square(jnp.abs(m)), 0)
            return update / (jnp.sqrt(variance + eps) if eps_in_sqrt else jnp.sqrt(variance) + eps)

        return jax.tree.map(scale, updates, mu, nu), state._replace(mu=mu, nu=nu)

    return in_float32(optax.GradientTransformation(stddev.init, update_fn))
