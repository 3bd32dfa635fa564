"""The scaling of RMSprop, centered or not."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.norms import root
from optax_ext._core.public import public
from optax_ext.transforms._float32 import in_float32
from optax_ext.transforms._moments import average, divide, square


@public
def scale_by_rms(decay: float, eps: float, *, eps_in_sqrt: bool, centered: bool) -> optax.GradientTransformation:
    r"""Scale gradients by the root of their mean square, or with ``centered`` of their variance.

    $$u = g / (\sqrt{n - m^2} + \mathrm{eps}) \quad\text{or}\quad u = g / \sqrt{n - m^2 + \mathrm{eps}}$$

    with the running means $n$ of $g^2$ and $m$ of $g$, or 0 for $m$. The states are Optax's, in at least float32.
    Unlike Optax's, this works under strict promotion, its derivative is finite where a gradient is zero, and a variance
    that rounding makes negative counts as 0. A gradient that is the same for some hundred steps can do that, and then
    ``optax.scale_by_stddev`` returns NaN, as TensorFlow does.
    """
    init = optax.scale_by_stddev(decay, eps).init if centered else optax.scale_by_rms(decay, eps).init

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        nu = jax.tree.map(lambda g, n: average(n, square(g), decay), updates, state.nu)
        variances, new_state = nu, state._replace(nu=nu)
        if centered:
            mu = jax.tree.map(lambda g, m: average(m, g, decay), updates, state.mu)
            variances = jax.tree.map(lambda m, n: jnp.maximum((n - square(m)).real, 0), mu, nu)
            new_state = new_state._replace(mu=mu)

        def scale(update: jax.Array, variance: jax.Array) -> jax.Array:
            if eps_in_sqrt:
                return divide(update, root(variance.real + jnp.asarray(eps, variance.real.dtype)), 0)
            return divide(update, root(variance), eps)

        return jax.tree.map(scale, updates, variances), new_state

    return in_float32(optax.GradientTransformation(init, update_fn))
