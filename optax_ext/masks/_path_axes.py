"""The axes that count layers, from regular expressions on parameter paths."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from optax_ext._core.arguments import check_flag
from optax_ext._core.errors import shorten
from optax_ext._core.frozen_mapping import FrozenMapping
from optax_ext._core.layers import check_axes, is_axes
from optax_ext._core.public import public
from optax_ext._core.regexes import PathPattern
from optax_ext._core.schema import plain_value
from optax_ext._core.synonyms import suggest_arguments
from optax_ext._core.trees import PyTree, is_one_parameter, join_path
from optax_ext.masks._path_mask import branches_of, check_no_step, compile_patterns, require_matches

Axes = int | tuple[int, ...] | None


@public
@dataclasses.dataclass(frozen=True, repr=False)
class PathAxes:
    """The stacked axes of parameters by their paths, as [`path_axes`][optax_ext.path_axes] makes them.

    A frozen value: hashable, picklable, and equal to any other of the same patterns and axes.

    Attributes:
      axes: The axis, or axes, of parameters in whose paths a pattern is found, by the pattern.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.

    Examples:
      >>> import optax_ext
      >>> axes = optax_ext.path_axes({"^blocks/": 0})
      >>> axes
      path_axes({'^blocks/': 0})
      >>> axes == optax_ext.path_axes({"^blocks/": 0})
      True
    """

    axes: Mapping[str, Axes]
    allow_unmatched: bool = False

    def __post_init__(self) -> None:
        given: Any = self.axes
        if not isinstance(given, Mapping) or not given:
            raise ValueError(
                f"axes must map regular expressions to axes, as in {{'^blocks/': 0}}, got {shorten(given)}"
            )
        kept: dict[str, Axes] = {}
        for pattern, axes in given.items():
            axes: Any = plain_value(axes)  # YAML and JSON have lists
            if not is_axes(axes):
                raise ValueError(f"axes must map {pattern!r} to an axis, a tuple of axes or None, got {shorten(axes)}")
            kept[pattern] = axes
        _compile(tuple(kept))
        object.__setattr__(self, "axes", FrozenMapping(kept))
        check_flag("allow_unmatched", self.allow_unmatched)

    def __call__(self, params: PyTree) -> PyTree:
        """Return a tree in the structure of ``params``: the stacked axis, or axes, of each parameter, and else None."""
        check_no_step("path_axes", ("stacked_axes",), params)
        patterns = _compile(tuple(self.axes))
        nodes, structure = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_one_parameter)
        parameters = [(join_path(path), node) for path, node in nodes]
        if not self.allow_unmatched:
            require_matches(patterns, [(path, None) for path, _ in parameters], branches_of(parameters))
        return structure.unflatten(self._axes_of(path, node, patterns) for path, node in parameters)

    def _axes_of(self, path: str, node: Any, patterns: Sequence[PathPattern]) -> Axes:
        matching = {pattern.text: self.axes[pattern.text] for pattern in patterns if pattern.matches(path, None)}
        leaves = jax.tree.leaves(node)  # one, also of a box; none of a hole
        if not matching or any(map(callable, leaves)):  # an activation function in an Equinox module
            return None
        layers = {check_axes(axes, leaf, path) for axes in matching.values() for leaf in leaves}
        if len(layers or {*matching.values()}) > 1:
            both = ", ".join(f"{pattern!r}: {axes}" for pattern, axes in matching.items())
            raise ValueError(f"axes: the patterns of {path!r} must agree, got {both}")
        return next(iter(matching.values()))

    def __repr__(self) -> str:
        """Show the call that makes equal axes."""
        return f"path_axes({dict(self.axes)!r}{', allow_unmatched=True' if self.allow_unmatched else ''})"


@public
@suggest_arguments
def path_axes(axes: Mapping[str, Axes], *, allow_unmatched: bool = False) -> PathAxes:
    """Say by paths which axes of parameters count layers, for models that keep several layers in one array.

    Flax's ``nn.scan`` and ``nnx.scan``, MaxText, and ensembles under ``vmap`` stack the parameters of all layers along
    an axis. An optimizer with a norm a layer, such as LARS, needs to know which: it takes the result as
    ``stacked_axes``. Paths are those of [`path_mask`][optax_ext.path_mask].

    Args:
      axes: From regular expressions, searched for anywhere in a path, to an axis, a tuple of axes (layers and experts,
        say), or None for none. Axes are counted as NumPy does, from the end if negative. Parameters that no pattern
        matches are one layer each; patterns that match one parameter must agree.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.

    Returns:
      A [`PathAxes`][optax_ext.masks.PathAxes]: a function from a tree of parameters (or of their updates) to a tree of
      axes of the same structure. It raises ValueError for a pattern that matches nothing, and for a parameter that has
      no such axis, which it names.

    Raises:
      ValueError: If a pattern is not a regular expression, or an axis not an integer.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax_ext
      >>> params = {"blocks": {"kernel": jnp.ones((12, 8, 8))}, "head": {"kernel": jnp.ones((8, 2))}}
      >>> optax_ext.path_axes({"^blocks/": 0})(params)
      {'blocks': {'kernel': 0}, 'head': {'kernel': None}}
      >>> tx = optax_ext.lars(0.1, stacked_axes=optax_ext.path_axes({"^blocks/": 0}))
    """
    return PathAxes(axes, allow_unmatched)


def _compile(patterns: tuple[str, ...]) -> tuple[PathPattern, ...]:
    wanted = "axes must map regular expressions on paths to axes"
    for pattern in patterns:
        if not isinstance(pattern, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user's mapping
            raise ValueError(f"{wanted}, got {shorten(pattern)} for one")
    compiled = compile_patterns(patterns, wanted, "axes has too many patterns")
    for pattern in compiled:
        if pattern.max_rank is not None:
            raise ValueError(f"{wanted}, got {shorten(pattern.text)}, which is of ranks")
    return compiled
