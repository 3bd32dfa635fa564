"""The state of loss scaling: its fields, its sharding, and the structure it must keep."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_ext._core.arguments import is_concrete
from optax_ext._core.precision import keep_without_gradient
from optax_ext._core.trees import find_nodes


class LossScaleState(NamedTuple):
    """The state of loss scaling, the same for a dynamic and a fixed scale.

    Attributes:
      loss_scale: The factor for the next loss; float32 scalar.
      counter: Finite steps since the scale last changed or a step was skipped; int32 scalar, 0 with a fixed scale.
      grads_finite: Whether the last gradients were finite; bool scalar, initially True.
      skipped_steps: How many updates were skipped so far; int32 scalar.
      consecutive_skips: How many updates in a row were skipped up to now; int32 scalar.
      inner_state: The state of the wrapped transformation. A skipped step leaves it bit-identical.
      skips_since_growth: How many updates were skipped since ``growth_steps`` finite steps in a row were last reached;
        int32 scalar, 0 with a fixed scale.
    """

    loss_scale: jax.Array
    counter: jax.Array
    grads_finite: jax.Array
    skipped_steps: jax.Array
    consecutive_skips: jax.Array
    inner_state: optax.OptState
    skips_since_growth: jax.Array | int = 0


def loss_scale_states(opt_state: optax.OptState) -> list[LossScaleState]:
    """Return the loss-scale states in an optimizer state, found by their type at any depth."""
    return find_nodes(opt_state, LossScaleState)


def check_state(state: Any) -> None:
    """Raise ValueError unless a state is a LossScaleState; one that was restored without its structure is not."""
    if not isinstance(state, LossScaleState):
        raise ValueError(
            f"state must be a {_outline(LossScaleState)}, got {_outline(state)}: "
            "restore checkpoints into the structure of tx.init(params)"
        )


def _outline(state: Any) -> str:
    """Return the name of a node's type with those of its fields, its keys, or the types of its items."""
    kind = state if isinstance(state, type) else type(state)
    names = getattr(state, "_fields", None)
    if names is None and isinstance(state, dict):
        names = state
    elif names is None and isinstance(state, tuple | list):
        names = [type(item).__name__ for item in state]
    return kind.__name__ if names is None else f"{kind.__name__}({', '.join(map(str, names))})"


def keep_structure(new: optax.OptState, old: optax.OptState) -> optax.OptState:
    """Return the new inner state, with parts of the old one where a gradient is missing.

    Raise ValueError if its structure differs from the old one's, since no step could be skipped then.
    """
    try:
        filled = keep_without_gradient(new, old)
    except ValueError:  # of JAX, in its own words
        filled = new
    if jax.tree.structure(filled) == jax.tree.structure(old):
        return filled
    name, found, expected = _first_difference(type(old).__name__, old, new)
    hint = ": to record a measure, use optax.snapshot, whose state is whole from init on" if "Monitor" in name else ""
    raise ValueError(
        "the state of the wrapped transformation must keep its structure, so that a skipped step can leave it "
        f"unchanged; in {name}, init made {found} and update made {expected}{hint}"
    )


def _first_difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """Return the name of the innermost named tuple in which two states differ, and the structures that differ there."""
    if type(old) is type(new) and isinstance(old, tuple) and len(old) == len(new):
        for before, after in zip(old, new, strict=True):
            if jax.tree.structure(before) != jax.tree.structure(after):
                inside = type(before).__name__ if hasattr(before, "_fields") else name
                return _first_difference(inside, before, after)
    return name, jax.tree.structure(old), jax.tree.structure(new)


def copy_strongly_typed(leaf: Any) -> Any:
    """Copy an array, strongly typed, so that no two leaves share a buffer and no type changes with the first step."""
    is_array = isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex)
    return jnp.array(leaf, dtype=jnp.result_type(leaf)) if is_array else leaf


def replicate_like(params: optax.Params, state: LossScaleState) -> LossScaleState:
    """Put what `init` left on the default device where a step returns it: with the parameters, on their whole mesh.

    The second step would else be compiled anew.
    """
    leaves = [leaf for leaf in jax.tree.leaves(params) if isinstance(leaf, jax.Array) and is_concrete(leaf)]
    committed = [leaf.sharding for leaf in leaves if leaf.committed]
    if not committed:
        return state
    sharding = next((s for s in committed if isinstance(s, jax.sharding.NamedSharding)), committed[0])
    if isinstance(sharding, jax.sharding.NamedSharding):
        sharding = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    elif not isinstance(sharding, jax.sharding.SingleDeviceSharding):
        return state

    def place(leaf: Any) -> Any:
        is_free = isinstance(leaf, jax.Array) and is_concrete(leaf) and not leaf.committed
        return jax.device_put(leaf, sharding) if is_free else leaf

    return jax.tree.map(place, state)


def increment_counts(inner_state: optax.OptState) -> optax.OptState:
    """Advance the scalar integer fields named `count`."""

    def advance(path: tuple[Any, ...], leaf: Any) -> Any:
        is_count = bool(path) and path[-1] == jax.tree_util.GetAttrKey("count")
        is_scalar_integer = jnp.ndim(leaf) == 0 and jnp.issubdtype(jnp.result_type(leaf), jnp.integer)
        return optax.safe_increment(leaf) if is_count and is_scalar_integer else leaf

    return jax.tree_util.tree_map_with_path(advance, inner_state)
