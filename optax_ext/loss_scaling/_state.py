"""The states of wrappers that skip steps: their fields, their sharding, and the structure they must keep."""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_ext._core.arguments import is_concrete
from optax_ext._core.precision import keep_without_gradient
from optax_ext._core.public import public
from optax_ext._core.trees import PyTree, find_nodes

_State = TypeVar("_State")


@public
class LossScaleState(NamedTuple):
    """The state of loss scaling, the same for a dynamic and a fixed scale.

    Attributes:
      loss_scale: The factor for the next loss; float32 scalar.
      counter: Finite steps since the scale last changed or a step was skipped; int32 scalar, 0 with a fixed scale.
      grads_finite: Whether the last gradients were finite, and with ``check_updates`` the parameters that they would
        make; bool scalar, initially True. True in a step that [`skip_bad_steps`][optax_ext.skip_bad_steps] inside
        rejects.
      skipped_steps: How many updates were skipped so far; int32 scalar.
      consecutive_skips: How many updates in a row were skipped up to now; int32 scalar, 0 after an applied one.
      inner_state: The state of the wrapped transformation. A skipped step leaves it bit-identical.
      skips_since_growth: How many updates were skipped since ``growth_steps`` finite steps in a row were last reached;
        int32 scalar, 0 with a fixed scale.
      grad_norm: The norm of the last gradients, unscaled; float32 scalar, initially 0. Infinite if they were
        non-finite, so never NaN. It counts the gradients that the inner transformation reads; a step that is not
        compiled counts all. For ``axis_name`` see [`skip_bad_steps`][optax_ext.skip_bad_steps].
      last_step_counted: Whether the last update advanced the counts of ``inner_state``, because the update was applied
        or ``count_skipped_steps`` is set; bool scalar, initially True.
    """

    loss_scale: jax.Array
    counter: jax.Array
    grads_finite: jax.Array
    skipped_steps: jax.Array
    consecutive_skips: jax.Array
    inner_state: PyTree
    # The defaults, of states made before there were these fields, have the types that a step returns.
    skips_since_growth: jax.Array | np.int32 = np.int32(0)
    grad_norm: jax.Array | np.float32 = np.float32(0)
    last_step_counted: jax.Array | np.bool_ = np.True_


@public
class SkipBadStepsState(NamedTuple):
    """The state of ``skip_bad_steps``, the same whatever its arguments.

    Attributes:
      grads_finite: Whether the last gradients were finite, and with ``check_updates`` the parameters that they would
        make; bool scalar, initially True. True in a step whose norm is rejected.
      skipped_steps: How many updates were skipped so far; int32 scalar.
      consecutive_skips: How many updates in a row were skipped up to now; int32 scalar, 0 after an applied one.
      inner_state: The state of the wrapped transformation. A skipped step leaves it bit-identical.
      grad_norm: The norm of the last gradients, applied or not; float32 scalar, initially 0, and infinite if they were
        non-finite. It counts the gradients that the inner transformation reads; without ``max_norm_ratio``, a step that
        is not compiled counts all.
      average_norm: The running average of the norms of applied steps; float32 scalar, initially 0.
      average_weight: The sum of the weights in the average, by which it is corrected for its start; float32 scalar that
        rises from 0 to 1.
      applied_steps: How many updates were applied so far; int32 scalar.
    """

    grads_finite: jax.Array
    skipped_steps: jax.Array
    consecutive_skips: jax.Array
    inner_state: PyTree
    grad_norm: jax.Array
    average_norm: jax.Array
    average_weight: jax.Array
    applied_steps: jax.Array


def loss_scale_states(opt_state: optax.OptState) -> list[LossScaleState]:
    """Return the loss-scale states in an optimizer state, found by their type at any depth."""
    return find_nodes(opt_state, LossScaleState)


def check_state(state: Any, kind: type[Any] = LossScaleState) -> None:
    """Raise ValueError unless a state is of a kind; one that was restored without its structure is not."""
    if not isinstance(state, kind):
        raise ValueError(
            f"state must be a {_outline(kind)}, got {_outline(state)}: "
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


def replicate_like(params: optax.Params, state: _State) -> _State:
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
