"""The other half of loss scaling: the loss that is multiplied, where the gradients are taken."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext.transforms._loss_scale_state import loss_scale_states
from optax_ext.transforms._precision import unscale_by, widen


def scale_loss(loss: jax.Array, opt_state: optax.OptState) -> jax.Array:
    """Multiply a loss by the loss scale in an optimizer state.

    For losses that [`value_and_grad`][optax_ext.value_and_grad] cannot be put around, such as those of Flax NNX
    modules, which change state inside the loss:
    ``nnx.value_and_grad(lambda model: optax_ext.scale_loss(loss_fn(model), opt_state))(model)``.

    Args:
      loss: A floating-point array, of any shape.
      opt_state: An optimizer state that holds one [`LossScaleState`][optax_ext.LossScaleState], at any depth, or
        none: then the scale is 1.

    Returns:
      The scaled loss, in float32 if it was narrower, since a float16 loss would overflow at a scale of 65536.
      Its gradient still enters a float16 loss in float16, so let a model return its loss in float32.

    Raises:
      ValueError: If the state holds several loss scales.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> tx = optax_ext.fixed_loss_scaling(optax.sgd(0.1), 2.0**16)
      >>> print(optax_ext.scale_loss(jnp.float16(4.0), tx.init(jnp.ones(2))))
      262144.0
    """
    loss = widen(jnp.asarray(loss))
    return loss * _loss_scale(opt_state).astype(loss.dtype)


def unscale(tree: Any, opt_state: optax.OptState) -> Any:
    """Divide the inexact leaves of a tree by the loss scale in an optimizer state.

    For looking at gradients, their norm for example. What is given to ``tx.update`` stays scaled.

    Args:
      tree: Scaled gradients or losses. Integer leaves, None and masked nodes are left as they are.
      opt_state: The optimizer state that the loss was scaled with.

    Returns:
      The tree, its narrower leaves in float32.

    Raises:
      ValueError: If the state holds several loss scales.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> tx = optax_ext.fixed_loss_scaling(optax.sgd(0.1), 8.0)
      >>> print(optax_ext.unscale(jnp.array([16.0, 24.0]), tx.init(jnp.ones(2))))
      [2. 3.]
    """
    return unscale_by(_loss_scale(opt_state), tree)


def value_and_grad(
    fun: Callable[..., Any], opt_state: optax.OptState, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Make a function that returns the loss as it is and its gradients scaled, as ``tx.update`` takes them.

    ``jax.value_and_grad`` with the loss multiplied by the loss scale on the way to the gradients. It reads the
    scale from ``opt_state`` when it is made, so make it inside the training step.

    Args:
      fun: A function to a scalar loss, or with ``has_aux`` to a pair of it and anything else.
      opt_state: An optimizer state that holds one [`LossScaleState`][optax_ext.LossScaleState], at any depth, or
        none: then the scale is 1.
      argnums: The argument, or arguments, to differentiate with respect to.
      has_aux: Whether ``fun`` returns a pair.

    Returns:
      A function of the arguments of ``fun`` to ``(loss, grads)``, or ``((loss, aux), grads)``.

    Raises:
      ValueError: If the state holds several loss scales.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> tx = optax_ext.fixed_loss_scaling(optax.sgd(0.1), 8.0)
      >>> params = jnp.array([3.0])
      >>> state = tx.init(params)
      >>> print(*optax_ext.value_and_grad(lambda p: jnp.sum(p**2), state)(params))
      9.0 [48.]
    """
    _loss_scale(opt_state)  # fail here, where the state was given, rather than in the loss

    @functools.wraps(fun)
    def scaled(*args: Any, **kwargs: Any) -> tuple[jax.Array, Any]:
        out = fun(*args, **kwargs)
        loss = out[0] if has_aux else out
        return scale_loss(loss, opt_state), out

    scaled_value_and_grad = jax.value_and_grad(scaled, argnums, has_aux=True)

    def unscaled_value_and_scaled_grad(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        (_, out), grads = scaled_value_and_grad(*args, **kwargs)
        return out, grads

    return unscaled_value_and_scaled_grad


def _loss_scale(opt_state: optax.OptState) -> jax.Array:
    states = loss_scale_states(opt_state)
    if len(states) > 1:
        raise ValueError(f"opt_state must hold one LossScaleState or none, got {len(states)}: which scale is meant?")
    return jnp.asarray(states[0].loss_scale if states else 1, jnp.float32)
