"""Weight decay: added to gradients, where norms can rematerialize it, or apart from the rest of a step."""

from __future__ import annotations  # so that `help` shows types as they are written

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import Mask
from optax_ext._core.precision import apply_update, widen
from optax_ext._core.public import public
from optax_ext._core.remat import rematerializable
from optax_ext._core.trees import is_none


@public
def add_decayed_weights(weight_decay: optax.ScalarOrSchedule, mask: Mask) -> optax.GradientTransformation:
    """Add weight decay to updates: ``u + weight_decay * p``.

    Args:
      weight_decay: At least 0, or a schedule of the step.
      mask: The parameters that decay: a tree of bool, a prefix of one, or a function from parameters to one.

    Returns:
      A transformation that needs ``params``, with the state of ``optax.add_decayed_weights``.

    Raises:
      ValueError: If ``update`` is called without ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.add_decayed_weights(0.5, True)
      >>> params, grads = jnp.array([2.0]), jnp.array([3.0])
      >>> print(tx.update(grads, tx.init(params), params)[0])
      [4.]

    Differs from Optax:
      A schedule, or a traced number, leaves a bfloat16 update in bfloat16, as a Python number does. Norms can
      rematerialize the sums rather than read them from memory.
    """

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        if params is None:
            raise ValueError("weight decay needs the parameters: call update(updates, state, params), got None")
        if isinstance(weight_decay, int | float) and weight_decay == 0:
            return updates, state
        rate = weight_decay(state.count) if callable(weight_decay) else weight_decay

        def decay(update: Any, param: Any) -> Any:
            if update is None:
                return None
            update, param = jnp.asarray(update), jnp.asarray(param)
            dtype = jnp.promote_types(update.dtype, param.dtype)

            def add(update: jax.Array, param: jax.Array, rate: jax.Array) -> jax.Array:
                return update.astype(dtype) + rate * param.astype(dtype)

            return rematerializable(add, update, param, jnp.asarray(rate).astype(dtype))

        if callable(weight_decay):
            state = state._replace(count=optax.safe_increment(state.count))
        return jax.tree.map(decay, updates, params, is_leaf=is_none), state

    init_fn = optax.add_decayed_weights(weight_decay).init
    return optax.masked(optax.GradientTransformation(init_fn, update_fn), mask)


@public
def subtract_decayed_weights(weight_decay: optax.ScalarOrSchedule, mask: Mask) -> optax.GradientTransformation:
    """Subtract weight decay from updates that are already multiplied by minus the learning rate.

    ```text
    u = u - weight_decay * p
    ```

    As the last of a chain it is weight decay apart from everything else: no momentum remembers it, and ``weight_decay``
    is the part of a parameter that a step takes away, such as ``learning_rate * weight_decay_rate``.

    Args:
      weight_decay: At least 0, or a schedule of the step.
      mask: The parameters that decay: a tree of bool, a prefix of one, or a function from parameters to one.

    Returns:
      A transformation that needs ``params``, with the state of ``optax.add_decayed_weights``.

    Raises:
      ValueError: If ``update`` is called without ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.subtract_decayed_weights(0.25, True)
      >>> params, updates = jnp.array([2.0]), jnp.array([-3.0])
      >>> print(tx.update(updates, tx.init(params), params)[0])
      [-3.5]
    """
    if not callable(weight_decay):
        return add_decayed_weights(-weight_decay, mask)
    return add_decayed_weights(lambda step: -jnp.asarray(weight_decay(step)), mask)


@public
def after_weight_decay(
    inner: optax.GradientTransformation,
    weight_decay: optax.ScalarOrSchedule,
    mask: Mask,
    scale: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Let parameters decay before each step of a transformation that reads them.

    ```text
    p = p - weight_decay * p
    p = p + u                     where u = inner(g, p), for the p that has decayed
    ```

    All of it is in at least float32, since a step may be smaller than bfloat16's rounding.

    For a transformation that does not read parameters, such as Adam,
    [`subtract_decayed_weights`][optax_ext.transforms.subtract_decayed_weights] after it is the same.

    Args:
      inner: The transformation of a whole step, with the learning rate.
      weight_decay: The part of a parameter that decays in a step, at least 0, or a schedule of the step.
      mask: The parameters that decay: a tree of bool, a prefix of one, or a function from parameters to one.
      scale: A stateless transformation of what decays, such as [`scale_by_path`][optax_ext.scale_by_path]; None for
        ``weight_decay`` of every parameter.

    Returns:
      A transformation that needs ``params``, whose state is a tuple of that of ``optax.add_decayed_weights`` and that
      of ``inner``. A parameter without a gradient does not decay.

    Raises:
      ValueError: If ``update`` is called without ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from optax_ext import transforms
      >>> to_zero = optax.stateless(lambda updates, params: -params)
      >>> tx = transforms.after_weight_decay(to_zero, 0.25, True)
      >>> params, grads = jnp.array([2.0]), jnp.array([3.0])
      >>> print(tx.update(grads, tx.init(params), params)[0])  # 2 decays to 1.5, and -1.5 takes it to 0
      [-2.]
    """
    inner, decay = optax.with_extra_args_support(inner), subtract_decayed_weights(weight_decay, mask)

    def init_fn(params: optax.Params) -> optax.OptState:
        return decay.init(params), inner.init(jax.tree.map(widen, params))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        decayed, decay_state = decay.update(jax.tree.map(jnp.zeros_like, updates), state[0], params)
        if scale is not None:
            decayed, _ = scale.update(decayed, optax.EmptyState(), params)

        def subtract(param: Any, decayed: Any) -> Any:
            return None if param is None else apply_update(widen(param), decayed)

        def add(update: Any, decayed: Any, gradient: Any, param: Any) -> Any:
            if update is None:
                return None
            total = apply_update(update, decayed)
            return total.astype(jnp.promote_types(gradient.dtype, param.dtype))

        seen = jax.tree.map(subtract, params, decayed, is_leaf=is_none)
        stepped, inner_state = inner.update(jax.tree.map(widen, updates), state[1], seen, **extra_args)
        return jax.tree.map(add, stepped, decayed, updates, params, is_leaf=is_none), (decay_state, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
