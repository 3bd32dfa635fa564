"""Layers within leaves: which axes of a leaf count layers, where a model keeps several layers in one array."""

import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from optax_ext._core.errors import join_words, shorten
from optax_ext._core.trees import children_of, join_path

# An axis, a tuple of axes, or None for no stacked layers; a tree of these, a prefix of one, or a function from
# parameters to one.
StackedAxes = Any


_HINT = ': inside optax.inject_hyperparams, name the argument in static_args=("stacked_axes",)'


class Layers(NamedTuple):
    """The layers of a leaf: the axes that count them, in order, and none for a leaf that is one layer."""

    axes: tuple[int, ...] = ()

    def reduced(self, ndim: int) -> tuple[int, ...]:
        """Return the axes within a layer, over which its norms are taken."""
        return tuple(axis for axis in range(ndim) if axis not in self.axes)

    def shape(self, leaf: Any) -> tuple[int, ...]:
        """Return how many layers there are along each stacked axis."""
        return tuple(leaf.shape[axis] for axis in self.axes)


def check_stacked_axes(name: str, stacked_axes: StackedAxes) -> None:
    """Raise ValueError unless the argument is what `layers_of` takes, as far as it can be told without parameters."""
    if callable(stacked_axes):
        return
    for leaf in jax.tree.leaves(stacked_axes, is_leaf=is_axes):
        if not is_axes(leaf):
            hint = _HINT if isinstance(leaf, jax.Array) else ""
            raise ValueError(
                f"{name} must be an axis, a tuple of axes, None, a tree of these, or a function from parameters to one "
                f"such as path_axes({{'^blocks/': 0}}), got {shorten(leaf)}{hint}"
            )


def layers_of(stacked_axes: StackedAxes, tree: Any) -> Any:
    """Return the `Layers` of each leaf of a tree of parameters, or of their updates, in its structure.

    Raises:
      ValueError: If the axes are not a prefix of the tree, or a leaf has no such axis.
    """
    by_function = callable(stacked_axes)
    if by_function:
        stacked_axes = stacked_axes(tree)
    found: list[Layers] = []
    _walk(stacked_axes, tree, (), found, by_function)
    return jax.tree.unflatten(jax.tree.structure(tree), found)


def check_axes(axes: Any, leaf: Any, path: str) -> Layers:
    """Return the layers of one leaf; raise ValueError, which names the leaf, if it has no such axis, or one twice."""
    numbers = () if axes is None else axes if isinstance(axes, tuple) else (axes,)
    shape = np.shape(leaf) if not hasattr(leaf, "shape") else tuple(leaf.shape)
    rank = len(shape)
    wrong = next((axis for axis in numbers if not -rank <= axis < rank), None)
    if wrong is not None:
        accepted = f"-{rank} to {rank - 1}" if rank else "none"
        raise ValueError(
            f"stacked_axes: the parameter {path!r} must have axis {wrong}, got the shape {shape}, with axes {accepted}"
        )
    positive = sorted(operator.index(axis) % rank for axis in numbers)
    if len(set(positive)) < len(positive):
        raise ValueError(f"stacked_axes: of the parameter {path!r} of shape {shape} each axis counts once, got {axes}")
    return Layers(tuple(positive))


def _walk(axes: Any, node: Any, path: tuple[Any, ...], found: list[Layers], by_function: bool) -> None:
    """Append the layers of each leaf below a node; whole branches of either tree may be one hole or one value.

    A function that follows the structure of the parameters returns a tuple of axes where they are in a tuple.
    """
    if node is None or isinstance(node, optax.MaskedNode):
        return
    if axes is None:
        found.extend([Layers()] * len(jax.tree.leaves(node)))
        return
    if is_axes(axes) and not (by_function and isinstance(axes, tuple) and isinstance(node, tuple)):
        for below, leaf in jax.tree_util.tree_leaves_with_path(node):
            found.append(Layers() if callable(leaf) else check_axes(axes, leaf, join_path((*path, *below))))
        return
    expected, expected_structure = children_of(axes)
    children, structure = children_of(node)
    if structure != expected_structure or jax.tree_util.all_leaves([axes]):
        at = f" at {join_path(path)!r}" if path else ""
        raise ValueError(
            f"stacked_axes must be axes, or a tree of them that the parameters extend: they have "
            f"{_outline(node, children)}{at}, got {shorten(axes)} there{_hint(axes)}"
        )
    for (_, child_axes), (key, child) in zip(expected, children, strict=True):
        _walk(child_axes, child, (*path, *key), found, by_function)


def _outline(node: Any, children: list[tuple[tuple[Any, ...], Any]]) -> str:
    if jax.tree_util.all_leaves([node]):
        return f"an array of shape {np.shape(node)}"
    return f"{type(node).__name__} of {join_words(join_path(key) for key, _ in children)}"


def _hint(axes: Any) -> str:
    """Say how to write what was probably meant."""
    if isinstance(axes, list) and all(map(_is_axis, axes)):
        return ": several axes of a parameter are a tuple"
    if isinstance(axes, Mapping):
        return ": for regular expressions on paths write path_axes({...})"
    return ""


def is_axes(node: object) -> bool:
    """Whether a node says which axes are stacked; a tuple of integers does, rather than being a tuple of leaves."""
    return (
        node is None
        or _is_axis(node)
        or (isinstance(node, tuple) and not hasattr(node, "_fields") and all(map(_is_axis, node)))
    )


def _is_axis(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
