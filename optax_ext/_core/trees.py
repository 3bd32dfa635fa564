"""Traversal of trees: their holes, the paths of leaves, and the states inside."""

import sys
from typing import Any, TypeVar

from optax_ext._core.lazy import jax, optax

PyTree = Any  # any nesting of containers that JAX knows
_Node = TypeVar("_Node")


def is_none(node: object) -> bool:
    """Whether a node is None, which counts as a leaf for a parameter without a gradient."""
    return node is None


def is_one_parameter(node: object) -> bool:
    """Whether a node counts as one parameter: a hole left by Optax or JAX, or a box that Flax put around a parameter.

    Optax also calls a mask on updates, where a parameter may be None or masked out. The path of such a hole still
    counts for patterns. The content of an NNX variable, or of Linen's box of axis names, has no name of its own.
    """
    nnx, meta = sys.modules.get("flax.nnx"), sys.modules.get("flax.core.meta")  # no boxes unless Flax is imported
    boxes = (*((nnx.Variable,) if nnx else ()), *((meta.AxisMetadata,) if meta else ()))
    return node is None or isinstance(node, (optax.MaskedNode, *boxes))


def join_path(path: tuple[Any, ...]) -> str:
    """Return the keys from the root of a tree to a leaf, such as ``"conv1/kernel"``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def find_nodes(tree: Any, kind: type[_Node]) -> list[_Node]:
    """Return the nodes of a type at any depth, such as one state in the state of a chain."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


def children_of(node: Any) -> tuple[list[tuple[tuple[Any, ...], Any]], Any]:
    """Return what is one level down, with its keys, and the structure of that level."""
    return jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda child: child is not node)
