"""How others scale a loss around an Optax optimizer, as their documentation shows it: Flax, JMP and MPX.

Each is imported where it is used, so that the other rows need none of them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

Init = Callable[[Any], Any]
Step = Callable[[Any, Any, Any], tuple[Any, Any]]

SCALE = 2.0**15  # by which the gradients of a loss-scaled step arrive multiplied


def with_flax(tx: optax.GradientTransformation) -> tuple[Init, Step]:
    """Select with the flag of Flax's DynamicScale."""
    from flax.training.dynamic_scale import DynamicScale

    @jax.custom_vjp
    def loss_fn(params: Any, grads: Any) -> jax.Array:
        return jnp.float32(0)

    # The gradients arrive scaled, as for the others: the backward pass has multiplied them already.
    loss_fn.defvjp(lambda params, grads: (jnp.float32(0), grads), lambda grads, _: (grads, None))

    def unscale(scale: Any, params: Any, grads: Any) -> tuple[Any, jax.Array, Any]:
        scale, is_finite, _, grads = scale.value_and_grad(loss_fn)(params, grads)
        return scale, is_finite, grads

    def select(is_finite: jax.Array, new: Any, old: Any) -> Any:
        return jax.tree.map(functools.partial(jnp.where, is_finite), new, old)

    return _scaled(tx, lambda: DynamicScale(scale=jnp.float32(SCALE)), unscale, _update_by(select))


def with_jmp(tx: optax.GradientTransformation) -> tuple[Init, Step]:
    """Select with JMP's flag, and by its function."""
    import jmp

    # Its arrays are the state: its class takes only arrays, and lowering makes trees of their descriptions.
    def unscale(scale: Any, params: Any, grads: Any) -> tuple[Any, jax.Array, Any]:
        loss_scale = jmp.DynamicLossScale(*scale)
        grads = loss_scale.unscale(grads)
        is_finite = jmp.all_finite(grads)
        loss_scale = loss_scale.adjust(is_finite)
        return (loss_scale.loss_scale, loss_scale.counter), is_finite, grads

    return _scaled(tx, lambda: (jnp.float32(SCALE), jnp.int32(0)), unscale, _update_by(jmp.select_tree))


def with_mpx(tx: optax.GradientTransformation) -> tuple[Init, Step]:
    """Check, unscale and update as MPX's `filter_value_and_grad` and `optimizer_update` do."""
    import equinox
    import mpx

    def start() -> Any:
        return mpx.DynamicLossScaling(jnp.float32(SCALE), min_loss_scaling=jnp.float32(1))

    constants = equinox.filter(start(), equinox.is_array, inverse=True)  # as under `equinox.filter_jit`

    def unscale(scale: Any, params: Any, grads: Any) -> tuple[Any, jax.Array, Any]:
        is_finite = mpx.all_finite(grads)
        scale = equinox.combine(scale, constants).adjust(is_finite)
        return equinox.filter(scale, equinox.is_array), is_finite, scale.unscale(grads)

    return _scaled(tx, lambda: equinox.filter(start(), equinox.is_array), unscale, mpx.optimizer_update)


def _scaled(
    tx: optax.GradientTransformation, start: Callable[[], Any], unscale: Callable[..., Any], update: Callable[..., Any]
) -> tuple[Init, Step]:
    def init(params: Any) -> Any:
        return start(), tx.init(params)

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        scale, opt_state = state
        scale, is_finite, grads = unscale(scale, params, grads)
        # Unscaled in float32, which would change the dtype of the state.
        grads = jax.tree.map(lambda grad, param: grad.astype(param.dtype), grads, params)
        params, opt_state = update(params, tx, opt_state, grads, is_finite)
        return params, (scale, opt_state)

    return init, step


def _update_by(select: Callable[[jax.Array, Any, Any], Any]) -> Callable[..., tuple[Any, Any]]:
    def update(params: Any, tx: optax.GradientTransformation, state: Any, grads: Any, is_finite: jax.Array) -> Any:
        updates, new_state = tx.update(grads, state, params)
        return select(is_finite, optax.apply_updates(params, updates), params), select(is_finite, new_state, state)

    return update
