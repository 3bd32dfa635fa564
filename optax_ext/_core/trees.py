"""How trees are walked: holes in them, paths through them, and states inside them."""

import sys
from typing import Any, TypeVar

import jax
import optax

PyTree = Any  # any nesting of containers that JAX knows
_Node = TypeVar("_Node")


def is_none(node: object) -> bool:
    """Whether a node is None, which as a leaf stands for a parameter without a gradient."""
    return node is None


def is_one_parameter(node: object) -> bool:
    """Whether a node counts as one parameter: a hole that Optax or JAX left, or a box that Flax put around one.

    Optax calls a mask on updates too, where a parameter may be None or masked out. Its path still tells that a
    pattern has something to match. An NNX variable, and Linen's box of axis names, has an inside without a name.
    """
    nnx, meta = sys.modules.get("flax.nnx"), sys.modules.get("flax.core.meta")  # no boxes without Flax in the process
    boxes = (*((nnx.Variable,) if nnx else ()), *((meta.AxisMetadata,) if meta else ()))
    return node is None or isinstance(node, (optax.MaskedNode, *boxes))


def join_path(path: tuple[Any, ...]) -> str:
    """Return the keys from the root of a tree to a leaf, such as ``"conv1/kernel"``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def find_nodes(tree: Any, kind: type[_Node]) -> list[_Node]:
    """Return the nodes of a type, such as a state in the state of a chain, however deep they are."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]
