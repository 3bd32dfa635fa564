"""The trust ratios and norms of layers that a state has recorded: of each, and summarized."""

from collections.abc import Mapping
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
        if numbers:
            found |= {f"{field}/{key}": number for key, number in _summarize(numbers).items()}
        for path, entries in numbers.items() if per_layer else ():
            for index in np.ndindex(entries.shape):
                key = "/".join([field, *([path] if path else []), *map(str, index)])
                if key in {f"{field}/{summary}" for summary in _SUMMARIES}:
                    key = f"{field}/./{path}"  # a parameter of this name, beside the summary
                if key in found:
                    raise ValueError(f"two layers have the key {key!r}: rename one of their parameters")
                found[key] = jnp.array(entries[index], copy=True)
    return found


def _by_parameter(trees: list[Any]) -> dict[str, jax.Array]:
    """Return the numbers of each parameter by its path: a scalar, or an array with one number a layer."""
    numbers: dict[str, jax.Array] = {}
    for tree in trees:
        nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_one_parameter)
        for path, node in nodes:
            for leaf in jax.tree.leaves(node):  # none of a hole, one of a box
                if join_path(path) in numbers:
                    raise ValueError(
                        "opt_state must hold one TrustRatioState, or several that record different parameters, got "
                        f"several that record {join_path(path)!r}: give the part of the state with the one to read"
                    )
                numbers[join_path(path)] = jnp.asarray(leaf, jnp.float32)
    return numbers


def _summarize(numbers: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Return the smallest, the middle and the largest number; the mean of the two in the middle of an even number."""
    in_order = jnp.sort(jnp.concatenate([jnp.ravel(entries) for entries in numbers.values()]))
    low, high = in_order[(in_order.size - 1) // 2], in_order[in_order.size // 2]
    return dict(zip(_SUMMARIES, (in_order[0], low / 2 + high / 2, in_order[-1]), strict=True))
