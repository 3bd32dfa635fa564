"""Finding the one scaler in an optimizer state, or saying what was given instead."""

from typing import Any

import jax
import optax

from optax_ext._core.arguments import check_flag
from optax_ext._core.opt_states import check_opt_state, find_one
from optax_ext.loss_scaling._state import LossScaleState, loss_scale_states


def find_scaler(opt_state: optax.OptState, missing_ok: bool) -> LossScaleState | None:
    """Return the one loss-scale state in an optimizer state, found by its type; None if there may be none.

    Raises:
      TypeError: If it is no optimizer state.
      ValueError: If it holds no loss-scale state and none may be missing, or several, or one that stands where other
        parameters take scaled gradients.
    """
    check_flag("missing_ok", missing_ok)
    scaler = find_one(opt_state, LossScaleState)
    if scaler is not None:
        _check_place(opt_state)
        return scaler
    check_opt_state(opt_state)
    if not missing_ok:
        raise ValueError(
            "opt_state must hold a LossScaleState, got a state without one: wrap the transformation in "
            "dynamic_loss_scaling or fixed_loss_scaling and give the state that its init(params) returns, "
            "or pass missing_ok=True for a scale of 1"
        )
    return None


def _check_place(opt_state: optax.OptState) -> None:
    """Raise ValueError if the scaler does not see all gradients that were scaled, walking down to it."""
    node, place = opt_state, "opt_state"
    while not isinstance(node, LossScaleState):
        if isinstance(node, optax.ApplyIfFiniteState):
            raise ValueError(
                f"the LossScaleState in opt_state is inside optax.apply_if_finite, at {place}, which hides each "
                "overflow from it, so that the scale never shrinks: remove apply_if_finite, since loss scaling skips "
                "such steps itself"
            )
        (within, child), others = _split_children(node)
        unscaled = [key for key, other in others if _takes_gradients(other)]
        if isinstance(child, optax.MaskedState) and unscaled:
            raise ValueError(
                f"the LossScaleState in opt_state is in one group of optax.partition or optax.masked, {within} of "
                f"{place}, and other groups would apply scaled gradients as they are: {', '.join(unscaled)}. Put the "
                "scaler outermost, dynamic_loss_scaling(optax.partition(...)); or, if the loss trains only this group, "
                f"give {place}{within}"
            )
        node, place = child, place + within


def _split_children(node: Any) -> tuple[tuple[str, Any], list[tuple[str, Any]]]:
    """Return the child of a node that holds the scaler, and the others, with their keys."""
    children = jax.tree_util.tree_leaves_with_path(node, is_leaf=lambda child: child is not node)
    named = [(jax.tree_util.keystr(key), child) for key, child in children]
    index = next(index for index, (_, child) in enumerate(named) if loss_scale_states(child))
    return named[index], named[:index] + named[index + 1 :]


def _takes_gradients(state: Any) -> bool:
    """Whether a state is that of a group which reads gradients; `optax.set_to_zero` does not, and has no state."""
    return isinstance(state, optax.MaskedState) and type(state.inner_state) is not optax.EmptyState
