"""The scaling of RMSprop, centered or not."""

from __future__ import annotations  # so that `help` shows types as they are written

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.norms import root
from optax_ext._core.public import public
from optax_ext.transforms._float32 import in_float32
from optax_ext.transforms._moments import average, divide, square


@public
def scale_by_rms(
    decay: float,
    eps: float,
    *,
    eps_in_sqrt: bool,
    centered: bool,
    bias_correction: bool = False,
    initial_scale: float = 0.0,
) -> optax.GradientTransformation:
    """Scale gradients by the root of their mean square or, with ``centered``, by their standard deviation.

    ```text
    n = decay * n + (1 - decay) * g**2
    m = decay * m + (1 - decay) * g     with centered; else m = 0
    u = g / (sqrt(n - m**2) + eps)      or, with eps_in_sqrt: g / sqrt(n - m**2 + eps)
    ```

    With ``bias_correction``, ``n / (1 - decay**t)`` takes the place of ``n`` in the last line, as in Adam.

    Args:
      decay: The decay of the running means, in [0, 1).
      eps: At least 0.
      eps_in_sqrt: Whether epsilon is added inside the root.
      centered: Whether to subtract the square of the mean gradient.
      bias_correction: Whether the mean is of the gradients so far only, rather than of a zero before them too; not with
        ``centered``.
      initial_scale: The first ``n``, at least 0.

    Returns:
      A transformation with the state of ``optax.scale_by_rms``, or with ``centered`` of ``optax.scale_by_stddev``, in
      at least float32.

    Raises:
      ValueError: If ``bias_correction`` is given with ``centered``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.scale_by_rms(0.75, 1e-7, eps_in_sqrt=False, centered=False)
      >>> grads = jnp.array([3.0, -4.0])
      >>> updates, state = tx.update(grads, tx.init(grads))
      >>> print(updates)
      [ 1.9999999 -2.       ]

    Differs from Optax:
      A variance that rounding makes negative counts as 0. A gradient that stays the same for some hundred steps can
      make it so, and then ``optax.scale_by_stddev`` returns NaN, as TensorFlow does. Here strict promotion is
      supported, and the derivative is finite where a gradient is zero.
    """
    if centered and bias_correction:
        raise ValueError("bias_correction must be False with centered, whose mean gradient it does not correct")
    init = (
        optax.scale_by_stddev(decay, eps, initial_scale).init
        if centered
        else optax.scale_by_rms(decay, eps, initial_scale, bias_correction=bias_correction).init
    )

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
        if bias_correction:
            count = jnp.asarray(optax.safe_increment(state.count))
            steps = count.astype(jnp.result_type(float))
            correction = 1 - jnp.asarray(decay, steps.dtype) ** steps
            variances = jax.tree.map(lambda n: n / correction.astype(n.dtype), nu)
            new_state = new_state._replace(count=count)

        def scale(update: jax.Array, variance: jax.Array) -> jax.Array:
            if eps_in_sqrt:
                return divide(update, root(variance.real + jnp.asarray(eps, variance.real.dtype)), 0)
            return divide(update, root(variance), eps)

        return jax.tree.map(scale, updates, variances), new_state

    return in_float32(optax.GradientTransformation(init, update_fn))
