"""How many layers each parameter holds, by the `stacked_axes` of an optimizer."""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from optax_ext import masks
from optax_ext._core.layers import Layers, layers_of
from optax_ext._core.lazy import jax
from optax_ext._core.trees import join_path
from optax_ext.cli._params import Shapes, matching
from optax_ext.config import Problem, UpdateRule


class Stack(NamedTuple):
    """A parameter that a pattern says to hold layers, by axes of its shape; None for axes that do not fit it."""

    pattern: str
    path: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None

    @property
    def layers(self) -> int:
        """The number of layers."""
        return math.prod(self.shape[axis] for axis in self.axes or ())


class Stacks(NamedTuple):
    """The parameters that hold layers, the patterns that match none, what is wrong, and the axes that fit."""

    found: list[Stack]
    unmatched: list[str]
    problems: list[Problem]
    axes: Any  # in the structure of the shapes; None for a parameter that is one layer, or whose axes do not fit

    @property
    def fit(self) -> bool:
        """Whether all axes fit their parameters."""
        return all(stack.axes is not None for stack in self.found)


def find_stacks(optimizer: UpdateRule, shapes: Shapes, whole: Shapes | None = None) -> Stacks:
    """Return the layers of each parameter, and all that `init` would object to rather than the first of it.

    For an optimizer of a group, a pattern is right if it matches anything in the whole.
    """
    given = optimizer.stacked_axes
    if given is None:
        return Stacks([], [], [], None)
    problems: list[Problem] = []
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    layers = {join_path(path): _layers_of(optimizer, path, leaf, problems) for path, leaf in leaves}
    shape_of = {join_path(path): leaf.shape for path, leaf in leaves}
    patterns = {pattern: matching(pattern, shapes, None) for pattern in given} if isinstance(given, Mapping) else {}
    unmatched = [pattern for pattern in patterns if not matching(pattern, shapes if whole is None else whole, None)]
    if not optimizer.allow_unmatched:
        problems += [
            Problem("stacked_axes", _without_match(pattern, shapes if whole is None else whole))
            for pattern in unmatched
        ]
    found = [
        Stack(pattern, path, shape_of[path], layers[path])
        for pattern, paths in (patterns if isinstance(given, Mapping) else {"every parameter": [*layers]}).items()
        for path in paths
    ]
    return Stacks(found, unmatched, problems, structure.unflatten([axes or None for axes in layers.values()]))


def _layers_of(optimizer: UpdateRule, path: tuple[Any, ...], leaf: Any, problems: list[Problem]) -> Any:
    """Return the axes of one parameter, as if it were the only one; None, with a problem, if they do not fit it."""
    alone = functools.reduce(lambda below, key: {key.key: below}, reversed(path), leaf)
    try:
        layers = layers_of(optimizer.layer_axes(allow_unmatched=True), alone)
    except ValueError as error:
        problems.append(Problem("stacked_axes", str(error).removeprefix("stacked_axes: ").removeprefix("axes: ")))
        return None
    (found,) = jax.tree.leaves(layers, is_leaf=lambda node: isinstance(node, Layers))
    return found.axes


def _without_match(pattern: str, shapes: Shapes) -> str:
    """Return what `init` says of a pattern that matches nothing."""
    try:
        masks.path_axes({pattern: None})(shapes)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{pattern!r} matches nothing")
