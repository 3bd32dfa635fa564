"""Whether what was given is an optimizer state, and where in it something stands."""

import sys
from typing import Any, TypeVar

from optax_ext._core.lazy import jax, optax
from optax_ext._core.trees import find_nodes

_State = TypeVar("_State")


def check_opt_state(opt_state: Any) -> None:
    """Raise TypeError if something else stands in place of an optimizer state."""
    given = _name_of_other(opt_state)
    if given is not None:
        raise TypeError(f"opt_state must be an optimizer state, which tx.init(params) returns, got {given}")


def places_of(opt_state: Any, kind: type[Any]) -> list[str]:
    """Return the expressions that lead to each state of a type."""
    paths = jax.tree_util.tree_leaves_with_path(opt_state, is_leaf=lambda node: isinstance(node, kind))
    return ["opt_state" + jax.tree_util.keystr(path) for path, node in paths if isinstance(node, kind)]


def counts_for_schedules(node: Any) -> bool:
    """Whether a state has a count that schedules are evaluated at, and that has no other meaning, such as Adam's has.

    Such are states that have nothing else, those of `optax.inject_hyperparams`, and those of ours that say so.
    """
    if not isinstance(node, tuple) or "count" not in getattr(node, "_fields", ()):
        return False
    injected = (optax.InjectStatefulHyperparamsState, optax.InjectHyperparamsState)
    only_counts = getattr(node, "_fields", ()) == ("count",)
    return only_counts or isinstance(node, injected) or getattr(node, "counts_for_schedules", False)


def find_one(opt_state: Any, kind: type[_State]) -> _State | None:
    """Return the one state of a type at any depth, or None if there is none; raise ValueError if there are several."""
    states = find_nodes(opt_state, kind)
    if len(states) > 1:
        places = places_of(opt_state, kind)
        raise ValueError(
            f"opt_state must hold one {kind.__name__}, got {len(states)}, at {', '.join(places)}: "
            f"give the part with the one to use, such as {places[0]}"
        )
    return states[0] if states else None


def _name_of_other(opt_state: Any) -> str | None:
    """Return what was given in place of an optimizer state, and what to give; None for an optimizer state.

    States are NamedTuples: a chain, a wrapper, and even a transformation that remembers nothing, has at least one.
    """
    nnx = sys.modules.get("flax.nnx")
    made_by_optax = (optax.GradientTransformation, optax.MultiSteps)
    kind = type(opt_state).__name__
    if nnx is not None and isinstance(opt_state, nnx.Module):
        return f"a Flax NNX module, {kind}: give the opt_state of its nnx.Optimizer"
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: _is_named_tuple(node) or isinstance(node, made_by_optax))
    if any(_is_named_tuple(node) for node in nodes) or not nodes:
        return None
    for node in nodes:
        if isinstance(node, made_by_optax):
            kinds = (optax.GradientTransformationExtraArgs, *made_by_optax)  # a class of ours would say nothing
            name = next(kind.__name__ for kind in kinds if isinstance(node, kind))
            return f"a transformation, {name}: call its init(params), and update(...) from then on"
    if nnx is not None and find_nodes(opt_state, nnx.OptState):
        return f"{kind}, in which an optimizer state loses its types: give the opt_state of the nnx.Optimizer"
    if callable(opt_state) and nodes[0] is opt_state:
        return f"{opt_state!r}"
    return f"{kind} without any of Optax's states: parameters, or a checkpoint that was restored without its structure"


def _is_named_tuple(node: Any) -> bool:
    """Whether a node may be a state; transformations are NamedTuples too, and so are the holes in parameters."""
    is_other = isinstance(node, optax.GradientTransformation | optax.MaskedNode)
    return isinstance(node, tuple) and hasattr(node, "_fields") and not is_other
