"""Float32 copies of narrower parameters, in which small updates accumulate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import check_transformation
from optax_ext._core.precision import as_array, is_inexact, widen
from optax_ext._core.trees import find_nodes, is_none
from optax_ext.loss_scaling._precision import trained, zero_where_not_inexact


class MasterWeightsState(NamedTuple):
    """The state of master weights.

    Attributes:
      master: A float32 copy of each narrower parameter, and ``optax.MaskedNode()`` in place of the others.
      inner_state: The state of the wrapped transformation for float32 parameters.
    """

    master: optax.Params
    inner_state: optax.OptState


def master_weights(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Wrap a transformation so that it updates a float32 copy of each narrower parameter.

    A bfloat16 number has 8 significant bits, so an update of less than 1/512 of a parameter is rounded away: at a
    learning rate of 2e-4, four in ten numbers of a bfloat16 model never move. With ``w`` the float32 copy of a
    parameter ``p``, and ``u`` what ``inner`` returns for gradients and parameters in float32:

    ```text
    w = w + u
    update = w - p      returned in float32
    ```

    After ``optax.apply_updates`` each parameter is bit-identical to its copy rounded to the parameter's dtype.

    Put it inside loss scaling, so that a skipped step changes no copy, and around the optimizer and ``params_ema``,
    which then averages the copies: ``dynamic_loss_scaling(master_weights(optax.chain(optax.adamw(1e-3),
    params_ema())))``.

    Args:
      inner: What to wrap: an optimizer or a chain.

    Returns:
      A transformation that needs ``params`` and passes all extra arguments to ``inner``. Its state is a
      [`MasterWeightsState`][optax_ext.MasterWeightsState]. Parameters in float32 or wider, complex parameters, integers
      and keys have no copy. The copy determines the parameter: a change made to the parameter by other means is undone
      by the next update.

    Raises:
      ValueError: If ``inner`` is not an ``optax.GradientTransformation`` or already keeps master weights, or if
        ``update`` is called without ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> params, grads = jnp.ones(1, jnp.bfloat16), jnp.full(1, 1e-3, jnp.bfloat16)
      >>> for tx in (optax.sgd(1.0), optax_ext.master_weights(optax.sgd(1.0))):
      ...     moved, state = params, tx.init(params)
      ...     for _ in range(10):
      ...         updates, state = tx.update(grads, state, moved)
      ...         moved = optax.apply_updates(moved, updates)
      ...     print(moved)
      [1]
      [0.988281]

    References:
      Micikevicius et al., Mixed precision training, [arXiv:1710.03740](https://arxiv.org/abs/1710.03740), section 3.1.
    """
    check_transformation("inner", inner)
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: optax.Params) -> MasterWeightsState:
        master = jax.tree.map(_copy_if_narrow, params)
        inner_state = inner.init(_in_float32(params, master))
        if find_nodes(inner_state, MasterWeightsState):
            raise ValueError("inner must not keep master weights itself, got one with a MasterWeightsState")
        return MasterWeightsState(master, inner_state)

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, MasterWeightsState]:
        if params is None:
            raise ValueError("master_weights needs the parameters: call update(updates, state, params), got None")
        wide = _in_float32(params, state.master)
        grads = jax.tree.map(_like_parameter, updates, trained(wide), is_leaf=is_none)
        moves, inner_state = inner.update(grads, state.inner_state, wide, **extra_args)

        def apply(param: Any, master: Any, move: Any) -> Any:
            if move is None or isinstance(master, optax.MaskedNode):
                return master
            # Not `master + move`, which may lie between two numbers that adding to the parameter can lead to.
            param = param.astype(master.dtype)
            return param + ((master + move) - param)

        def to_master(param: Any, master: Any, move: Any) -> Any:
            if move is None or isinstance(master, optax.MaskedNode):
                return move
            return master - param.astype(master.dtype)

        master = jax.tree.map(apply, params, state.master, moves, is_leaf=is_none)
        updates = jax.tree.map(to_master, params, master, moves, is_leaf=is_none)
        return zero_where_not_inexact(updates, params), MasterWeightsState(master, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def masters_of(state: optax.OptState, init: Callable[[], optax.OptState]) -> optax.OptState:
    """Return a state whose master weights are those of `init()`, which knows the dtypes of the parameters."""

    def is_masters(node: Any) -> bool:
        return isinstance(node, MasterWeightsState)

    if not find_nodes(state, MasterWeightsState):
        return state
    return jax.tree.map(lambda other, own: own if is_masters(own) else other, state, init(), is_leaf=is_masters)


def _copy_if_narrow(param: Any) -> Any:
    param = as_array(param)
    wide = widen(param)
    return optax.MaskedNode() if wide is param else wide


def _in_float32(params: Any, master: Any) -> Any:
    """Return the parameters with their copies in place of the narrower ones."""
    return jax.tree.map(lambda p, m: p if isinstance(m, optax.MaskedNode) else m, params, master)


def _like_parameter(update: Any, param: Any) -> Any:
    """Return a gradient in the dtype of its parameter, which holds all of it; zeros for that of an integer."""
    if update is None:
        return None
    return widen(jnp.asarray(update)) if is_inexact(param) else jnp.zeros_like(param)
