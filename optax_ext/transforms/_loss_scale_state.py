"""The state of loss scaling: what it holds, where it lies, and what a step takes of it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_ext.transforms._arguments import is_concrete
from optax_ext.transforms._trees import find_nodes


class LossScaleState(NamedTuple):
    """The state of loss scaling, the same for a dynamic and a fixed scale.

    Attributes:
      loss_scale: The factor for the next loss; float32 scalar.
      counter: Finite steps since the scale last changed or a step was skipped; int32 scalar, 0 with a fixed scale.
      grads_finite: Whether the last gradients were finite; bool scalar, True at first.
      skipped_steps: Updates that were skipped so far; int32 scalar.
      consecutive_skips: Updates that were skipped since the last that was not; int32 scalar.
      inner_state: The state of the wrapped transformation, which a skipped step leaves bit by bit as it was.
    """

    loss_scale: jax.Array
    counter: jax.Array
    grads_finite: jax.Array
    skipped_steps: jax.Array
    consecutive_skips: jax.Array
    inner_state: optax.OptState


def loss_scale_states(opt_state: optax.OptState) -> list[LossScaleState]:
    """Return the loss-scale states in an optimizer state, found by their type, however deep they are."""
    return find_nodes(opt_state, LossScaleState)


def check_state(state: Any) -> None:
    """Raise ValueError unless a state is of this layout; one that was restored without its structure is not."""
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


def own(leaf: Any) -> Any:
    """Copy an array, strongly typed, so that no two leaves share a buffer and no type changes with the first step."""
    is_array = isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex)
    return jnp.array(leaf, dtype=jnp.result_type(leaf)) if is_array else leaf


def place_beside(params: optax.Params, state: LossScaleState) -> LossScaleState:
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


def take(applied: jax.Array, new: Any, old: Any) -> Any:
    """Return the new leaf of a state if `applied`, else the old; in the type of the old, which never changes."""
    if not jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
        new = jnp.asarray(new).astype(old.dtype)
    return jnp.where(applied, new, old)


def take_updates(applied: jax.Array, updates: Any, new_state: Any, taken_state: Any) -> Any:
    """Return the updates if `applied`, else zeros.

    An update that is in the state as well, as momentum is, comes from what was taken there, which is the same: the
    old state can then be overwritten, with nothing else to keep.
    """
    pairs = zip(jax.tree.leaves(new_state), jax.tree.leaves(taken_state), strict=True)
    taken = {id(new): taken for new, taken in pairs if hasattr(new, "dtype") and new.dtype == taken.dtype}
    return jax.tree.map(lambda u: jnp.where(applied, taken.get(id(u), u), jnp.zeros_like(u)), updates)


def count_step(inner_state: optax.OptState) -> optax.OptState:
    """Advance the scalar integer fields named `count`."""

    def advance(path: tuple[Any, ...], leaf: Any) -> Any:
        is_count = bool(path) and path[-1] == jax.tree_util.GetAttrKey("count")
        is_scalar_integer = jnp.ndim(leaf) == 0 and jnp.issubdtype(jnp.result_type(leaf), jnp.integer)
        return optax.safe_increment(leaf) if is_count and is_scalar_integer else leaf

    return jax.tree_util.tree_map_with_path(advance, inner_state)
