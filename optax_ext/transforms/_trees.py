"""How trees are walked: holes in them, paths through them, and states inside them."""

from typing import Any, TypeVar

import jax

_Node = TypeVar("_Node")


def is_none(node: object) -> bool:
    """Whether a node is None, which as a leaf stands for a parameter without a gradient."""
    return node is None


def join_path(path: tuple[Any, ...]) -> str:
    """Return the keys from the root of a tree to a leaf, such as ``"conv1/kernel"``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def find_nodes(tree: Any, kind: type[_Node]) -> list[_Node]:
    """Return the nodes of a type, such as a state in the state of a chain, however deep they are."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]
