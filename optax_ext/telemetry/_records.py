"""The trust ratios and norms of layers that a state has recorded: of each, and summarized."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_ext._core.trees import find_nodes, is_one_parameter, join_path
from optax_ext.transforms import TrustRatioState

_SUMMARIES = ("min", "median", "max")


def record_metrics(opt_state: optax.OptState, per_layer: bool) -> dict[str, jax.Array]:
    """Return the metrics of all `TrustRatioState` in a state: summaries over layers, and each layer if asked for."""
    found: dict[str, jax.Array] = {}
    states = find_nodes(opt_state, TrustRatioState)
    for field in TrustRatioState._fields:
        numbers = _by_parameter([getattr(state, field) for state in states])
        if not numbers:
            continue
        summaries, layers = _summarize(list(numbers.values()), per_layer=per_layer)
        found |= {f"{field}/{name}": number for name, number in zip(_SUMMARIES, summaries, strict=True)}
        for (path, entries), values in zip(numbers.items(), layers, strict=True) if per_layer else ():
            for index, value in zip(np.ndindex(jnp.shape(entries)), values, strict=True):
                key = _key(field, path, index)
                if key in found:
                    raise ValueError(f"two layers have the key {key!r}: rename one of their parameters")
                found[key] = value
    return found


def _key(field: str, path: str, index: tuple[int, ...]) -> str:
    if path in _SUMMARIES and not index:
        path = f"./{path}"  # beside the summary
    return "/".join([field, *([path] if path else []), *map(str, index)])


def _by_parameter(trees: list[Any]) -> dict[str, Any]:
    """Return the numbers of each parameter by its path: a scalar, or an array with one number a layer."""
    numbers: dict[str, Any] = {}
    for tree in trees:
        nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_one_parameter)
        for path, node in nodes:
            for leaf in jax.tree.leaves(node):  # none of a hole, one of a box
                if np.size(leaf) == 0:  # a stack of no layers
                    continue
                if join_path(path) in numbers:
                    raise ValueError(
                        "opt_state must hold one TrustRatioState, or several that record different parameters, got "
                        f"several that record {join_path(path)!r}: give the part of the state with the one to read"
                    )
                numbers[join_path(path)] = leaf
    return numbers


# Outside of a compiled step the many small operations would be started one by one.
@functools.partial(jax.jit, static_argnames="per_layer")
def _summarize(numbers: list[Any], per_layer: bool) -> tuple[list[jax.Array], list[list[jax.Array]]]:
    """Return the smallest, the middle and the largest of all numbers, and if asked for those of each leaf one by one.

    The middle of an even number is the mean of the two in the middle.
    """
    flat = [jnp.ravel(_replicate(jnp.asarray(entries, jnp.float32))) for entries in numbers]
    in_order = jnp.sort(jnp.concatenate(flat))
    low, high = in_order[(in_order.size - 1) // 2], in_order[in_order.size // 2]
    summaries = [in_order[0], low / 2 + high / 2, in_order[-1]]
    return summaries, [[entries[index] for index in range(entries.size)] for entries in flat] if per_layer else []


def _replicate(array: jax.Array) -> jax.Array:
    """Return an array without the sharding that its type has under explicit axes, where arrays to join must agree."""
    sharding: Any = jax.typeof(array).sharding
    if all(axis is None for axis in sharding.spec):
        return array
    return jax.sharding.reshard(array, jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec()))
