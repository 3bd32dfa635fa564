"""The parameters of a tree, each with its path, its array, and the axes that count layers."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from optax_ext._core.layers import Layers, StackedAxes, layers_of
from optax_ext._core.trees import PyTree, is_one_parameter, join_path


@dataclasses.dataclass(frozen=True, eq=False)
class Parameter:
    """One parameter of a tree.

    Attributes:
      path: Its path.
      node: What stands there: an array, a box with an array, or a hole.
      leaf: The array; None for a hole, and for a function in an Equinox module.
      layers: The axes that count layers.
    """

    path: str
    node: Any
    leaf: Any
    layers: Layers

    @property
    def rank(self) -> int | None:
        """How many axes a layer has; None for a hole, which any pattern of ranks may match."""
        return None if self.leaf is None else jnp.ndim(self.leaf) - len(self.layers.axes)


def parameters_of(params: PyTree, stacked_axes: StackedAxes = None) -> tuple[list[Parameter], Any]:
    """Return the parameters of a tree, holes and boxes each as one, and the structure that has them for leaves."""
    nodes, structure = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_one_parameter)

    def note(leaf: Any, layers: Layers) -> Parameter:
        return Parameter("", leaf, None if callable(leaf) else leaf, layers)

    noted = jax.tree.map(note, params, layers_of(stacked_axes, params))
    leaves = [next(iter(jax.tree.leaves(node)), None) for node in jax.tree.leaves(noted, is_leaf=is_one_parameter)]
    found = [
        Parameter(join_path(path), node, None if leaf is None else leaf.leaf, Layers() if leaf is None else leaf.layers)
        for (path, node), leaf in zip(nodes, leaves, strict=True)
    ]
    return found, structure
