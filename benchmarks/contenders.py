"""What is compared: one training step for each optimizer, from gradients to new parameters.

A step is `(params, state, grads) -> (params, state)`. The gradients are given, so that only the optimizer is measured.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.training.dynamic_scale import DynamicScale

import optax_ext
from benchmarks.trees import is_adapted

Step = Callable[[Any, Any, Any], tuple[Any, Any]]
Contender = tuple[Callable[[Any], Any], Step]  # the initial state of some parameters, and the step

_RATE, _DECAY, _MOMENTUM, _SCALE = 0.1, 1e-4, 0.9, 2.0**15


def _optimizer(tx: optax.GradientTransformation) -> Contender:
    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return tx.init, step


def _sgd() -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(_DECAY, is_adapted), optax.sgd(_RATE, momentum=_MOMENTUM))


def _lars(make: Callable[..., optax.GradientTransformation]) -> optax.GradientTransformation:
    return make(
        _RATE, weight_decay=_DECAY, weight_decay_mask=is_adapted, trust_ratio_mask=is_adapted, momentum=_MOMENTUM
    )


def _bandwidth_floor() -> Contender:
    """Read and write what SGD with momentum must, in two flat arrays without any other work."""

    def flat(tree: Any) -> jax.Array:
        leaves = jax.tree.leaves(tree)
        return jnp.zeros(sum(leaf.size for leaf in leaves), leaves[0].dtype)

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        velocity = state + grads
        return params - velocity, velocity

    return flat, step


def _flax_dynamic_scale() -> Contender:
    """Select with the flag of Flax's DynamicScale, as its documentation shows, around `optax.lars`."""
    tx = _lars(optax.lars)

    @jax.custom_vjp
    def loss_fn(params: Any, grads: Any) -> jax.Array:
        return jnp.float32(0)

    # The gradients arrive scaled, as for the others: the backward pass has multiplied them already.
    loss_fn.defvjp(lambda params, grads: (jnp.float32(0), grads), lambda grads, _: (grads, None))

    def init(params: Any) -> Any:
        return DynamicScale(scale=jnp.float32(_SCALE)), tx.init(params)

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        dynamic_scale, opt_state = state
        dynamic_scale, is_finite, _, grads = dynamic_scale.value_and_grad(loss_fn)(params, grads)
        # Unscaled in float32, which would change the dtype of the state.
        grads = jax.tree.map(lambda grad, param: grad.astype(param.dtype), grads, params)
        updates, new_opt_state = tx.update(grads, opt_state, params)
        new_params = optax.apply_updates(params, updates)
        select = functools.partial(jnp.where, is_finite)
        return jax.tree.map(select, new_params, params), (
            dynamic_scale,
            jax.tree.map(select, new_opt_state, opt_state),
        )

    return init, step


FLOOR, SGD, OURS, SCALED = "bandwidth floor", "sgd", "optax_ext.lars", "loss-scaled optax_ext.lars"

# The rows, and how each is made.
CONTENDERS: dict[str, Callable[[], Contender]] = {
    FLOOR: _bandwidth_floor,
    SGD: lambda: _optimizer(_sgd()),
    "optax.lars": lambda: _optimizer(_lars(optax.lars)),
    OURS: lambda: _optimizer(_lars(optax_ext.lars)),
    "apply_if_finite(optax.lars)": lambda: _optimizer(optax.apply_if_finite(_lars(optax.lars), 10**6)),
    "DynamicScale + where": _flax_dynamic_scale,
    SCALED: lambda: _optimizer(optax_ext.dynamic_loss_scaling(_lars(optax_ext.lars), initial_scale=_SCALE)),
}
