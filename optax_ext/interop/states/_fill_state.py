"""Writes values from elsewhere into the states of Optax's and our transformations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from optax_ext._core.errors import did_you_mean, join_words
from optax_ext._core.trees import find_nodes, join_path

NO_COUNT = object()


def map_nodes(change: Callable[[Any], Any], state: optax.OptState, *kinds: type[Any]) -> optax.OptState:
    """Return a state with its nodes of some types changed."""

    def is_one(node: Any) -> bool:
        return isinstance(node, kinds)

    return jax.tree.map(lambda node: change(node) if is_one(node) else node, state, is_leaf=is_one)


def find_momentum(state: optax.OptState) -> optax.TraceState:
    """Return the one momentum in a state."""
    states = find_nodes(state, optax.TraceState)
    if len(states) != 1:
        raise ValueError(f"state must hold the momentum of one optimizer, found {len(states)}")
    return states[0]


def check_place_of_momentum(state: optax.OptState, *, before_learning_rate: bool) -> None:
    """Raise ValueError if the momentum in a chain is on the other side of the learning rate than the file's."""
    paths = jax.tree_util.tree_leaves_with_path(state, is_leaf=lambda node: isinstance(node, optax.TraceState))
    path = next(path for path, node in paths if isinstance(node, optax.TraceState))
    parent: Any = state
    for key in path[:-1]:
        is_field = isinstance(key, jax.tree_util.GetAttrKey)
        parent = getattr(parent, key.name) if is_field else parent[getattr(key, "idx", getattr(key, "key", None))]
    if not isinstance(parent, tuple) or hasattr(parent, "_fields"):
        return
    after = parent[getattr(path[-1], "idx", 0) + 1 :]  # a learning rate has one of these states
    if before_learning_rate != any(isinstance(node, optax.EmptyState | optax.ScaleByScheduleState) for node in after):
        found, right = ("before", "after") if before_learning_rate else ("after", "before")
        raise ValueError(
            f"state must have the learning rate {right} the momentum, as the file's optimizer has, got it {found}: "
            "take the state of the recipe that from_keras returns; optax.sgd is not Keras's SGD"
        )


def leaves_by_path(tree: Any, order: Sequence[str]) -> dict[str, Any]:
    """Return the leaves of a tree that is shaped as the parameters, by their paths, all of which must be in `order`."""
    paths = {join_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    unknown = [path for path in order if path not in paths]
    if unknown:
        raise ValueError(f"order must name parameters, got {unknown[0]!r}{did_you_mean(unknown[0], paths)}")
    if len(set(order)) < len(order):
        raise ValueError("order must name each parameter once")
    if missing := [path for path in paths if path not in order]:
        raise ValueError(f"order must name all parameters, {join_words(missing)} is missing")
    return paths


def fill_tree(tree: Any, values: Mapping[str, ArrayLike]) -> Any:
    """Return a tree with values by path in place of its leaves, in their dtypes and on their devices."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: like(leaf, values[join_path(path)]), tree)


def like(leaf: Any, value: ArrayLike) -> jax.Array:
    """Return a value in the dtype of a leaf and, if that is committed to devices, on them."""
    new = jnp.asarray(np.asarray(value).astype(jnp.result_type(leaf)))
    return jax.device_put(new, leaf.sharding) if isinstance(leaf, jax.Array) and leaf.committed else new


def set_counts(state: optax.OptState, iterations: int) -> optax.OptState:
    """Return a state in which every scalar ``count`` is the number of iterations."""

    def fill(path: Any, leaf: Any) -> Any:
        is_count = bool(path) and path[-1] == jax.tree_util.GetAttrKey("count") and jnp.ndim(leaf) == 0
        return like(leaf, iterations) if is_count else leaf

    return jax.tree_util.tree_map_with_path(fill, state)


def count_of(state: optax.OptState) -> Any:
    """Return the number of steps that a state has counted, or NO_COUNT."""
    counts = optax.tree.get_all_with_path(state, "count", _is_count)
    return counts[0][1] if counts else NO_COUNT


def _is_count(path: Any, value: Any) -> bool:
    """Return whether this is a field of a transformation's state, not a parameter of the same name."""
    return isinstance(path[-1], optax.tree_utils.NamedTupleKey) and jnp.ndim(value) == 0
