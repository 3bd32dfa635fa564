"""Masks from regular expressions on parameter paths."""

import dataclasses
import difflib
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_ext._core.arguments import check_flag
from optax_ext._core.errors import join_words, shorten
from optax_ext._core.field_types import as_tuple
from optax_ext._core.layers import Layers, StackedAxes, check_stacked_axes, layers_of
from optax_ext._core.public import public
from optax_ext._core.regexes import PathPattern, check_together, compile_pattern
from optax_ext._core.synonyms import suggest_arguments
from optax_ext._core.trees import PyTree, is_one_parameter, join_path

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _by_keywords_alone(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Say which keyword to write where Python only counts the arguments: a bare list would include what it names."""

    @functools.wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if args:
            raise TypeError(
                f"{function.__name__} takes its patterns by keyword, got {shorten(args[0])}: write include=[...] for "
                "the parameters that are chosen, exclude=[...] for those that are not"
            )
        return function(*args, **kwargs)

    return checked


@public
@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class PathMask:
    """A mask that chooses parameters by their paths, as [`path_mask`][optax_ext.path_mask] makes it.

    A frozen value: picklable, equal to any other of the same patterns in the same order, and hashable unless its
    stacked axes are not, so that what takes it for a static argument is compiled once.

    Attributes:
      include: Regular expressions, one of which is found in each path that is chosen; None for every path.
      exclude: Regular expressions, none of which is.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.
      stacked_axes: The axes of leaves that only count layers, which ranks do not include.

    Examples:
      >>> import optax_ext
      >>> mask = optax_ext.path_mask(exclude=["bias"])
      >>> mask
      path_mask(exclude=['bias'])
      >>> mask == optax_ext.path_mask(exclude=("bias",))
      True
    """

    include: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    allow_unmatched: bool = False
    stacked_axes: StackedAxes = None

    def __post_init__(self) -> None:
        if self.include is not None:
            object.__setattr__(self, "include", _check("include", self.include))
        object.__setattr__(self, "exclude", _check("exclude", self.exclude))
        check_flag("allow_unmatched", self.allow_unmatched)
        check_stacked_axes("stacked_axes", self.stacked_axes)

    def __call__(self, params: PyTree) -> PyTree:
        """Return a tree of bool in the structure of ``params``: whether each of them is chosen."""
        check_no_step("a path_mask", ("weight_decay_mask", "trust_ratio_mask"), params)
        including = None if self.include is None else _compile("include", tuple(self.include))
        excluding = _compile("exclude", tuple(self.exclude))
        patterns = [*(including or ()), *excluding]
        nodes, structure = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_one_parameter)
        parameters = [(join_path(path), node) for path, node in nodes]
        ranks = self._ranks(params) if _has_ranks(patterns) else [None] * len(parameters)
        found = [(path, rank) for (path, _), rank in zip(parameters, ranks, strict=True)]
        if not self.allow_unmatched:
            require_matches(patterns, found, branches_of(parameters))
        return structure.unflatten(
            (including is None or _matches(including, path, rank)) and not _matches(excluding, path, rank)
            for path, rank in found
        )

    def with_stacked_axes(self, stacked_axes: StackedAxes) -> "PathMask":
        """Return this mask with these stacked axes, unless it has its own or chooses by paths alone."""
        patterns = [*_compile("include", tuple(self.include or ())), *_compile("exclude", tuple(self.exclude))]
        if self.stacked_axes is not None or not _has_ranks(patterns):
            return self
        return dataclasses.replace(self, stacked_axes=stacked_axes)

    def _ranks(self, params: PyTree) -> list[int | None]:
        """Return how many axes a layer of each parameter has; None for a hole."""

        def rank(leaf: Any, layers: Layers) -> int | None:
            return None if callable(leaf) else jnp.ndim(leaf) - len(layers.axes)

        ranks = jax.tree.map(rank, params, layers_of(self.stacked_axes, params))
        nodes = jax.tree.leaves(ranks, is_leaf=is_one_parameter)
        return [next(iter(jax.tree.leaves(node)), None) for node in nodes]

    def __repr__(self) -> str:
        """Show the call that makes an equal mask."""
        shown = [] if self.include is None else [f"include={list(self.include)!r}"]
        shown += [f"exclude={list(self.exclude)!r}"] if self.exclude else []
        shown += ["allow_unmatched=True"] if self.allow_unmatched else []
        shown += [] if self.stacked_axes is None else [f"stacked_axes={self.stacked_axes!r}"]
        return f"path_mask({', '.join(shown)})"


@public
@suggest_arguments
@_by_keywords_alone
def path_mask(
    *,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    allow_unmatched: bool = False,
    stacked_axes: StackedAxes = None,
) -> PathMask:
    """Make a mask that chooses parameters by their paths, or by their ranks.

    A path is the keys from the root of the tree to the parameter joined with ``/``, such as ``"conv1/kernel"``,
    and reads alike for dicts, Flax NNX states, Equinox modules, dataclasses and sequences (``"layers/0/weight"``).
    A parameter is chosen if any ``include`` pattern is found in its path and no ``exclude`` pattern is.

    In place of a regular expression, ``"rank <= 1"`` matches parameters with at most one axis, whatever their names:
    biases, and scales of normalization.

    Args:
      include: Regular expressions, searched for anywhere in a path; None chooses every parameter.
      exclude: Regular expressions of parameters that are not chosen; None or empty for none.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.
      stacked_axes: The axes of leaves that count layers, as [`path_axes`][optax_ext.path_axes] makes them: ranks are of
        one layer. ``lars`` and ``lamb`` give their own to a mask that has none.

    Returns:
      A [`PathMask`][optax_ext.masks.PathMask]: a function from a tree of parameters (or of their updates) to a tree of
      bool of the same structure, to be given wherever Optax takes a mask. It raises ValueError for a pattern that
      matches nothing, which is most often a misspelling: a mask that silently masks nothing is the mistake this
      prevents.

    Raises:
      TypeError: If patterns are not given by keyword.
      ValueError: If a pattern is not a regular expression, could take more than hundredths of a second on a path of 100
        characters, as those do that repeat what has a lookaround in it, or the patterns are not in a list.

    Examples:
      >>> import optax_ext
      >>> params = {"conv": {"kernel": 1.0, "bias": 0.0}, "BatchNorm_0": {"scale": 1.0, "bias": 0.0}}
      >>> optax_ext.path_mask(exclude=["bias", "BatchNorm"])(params)
      {'BatchNorm_0': {'bias': False, 'scale': False}, 'conv': {'bias': False, 'kernel': True}}
    """
    return PathMask(
        include=include,
        exclude=() if exclude is None else exclude,
        allow_unmatched=allow_unmatched,
        stacked_axes=stacked_axes,
    )


def check_no_step(name: str, arguments: tuple[str, ...], params: PyTree) -> None:
    """Raise ValueError for a step count, with which `optax.inject_hyperparams` calls what it takes for a schedule."""
    is_number = isinstance(params, int | np.generic | np.ndarray | jax.Array) and not isinstance(params, bool)
    if is_number and jnp.ndim(params) == 0 and jnp.issubdtype(jnp.result_type(params), jnp.integer):
        static_args = json.dumps(arguments).replace("[", "(").replace("]", ",)" if len(arguments) == 1 else ")")
        raise ValueError(
            f"{name} takes parameters, got a step count: optax.inject_hyperparams takes each function for a schedule, "
            f"unless told by static_args={static_args}, the names of the arguments"
        )


def _check(argument: str, patterns: Sequence[str]) -> tuple[str, ...]:
    items: Any = as_tuple(patterns)
    if not isinstance(items, tuple) or not all(isinstance(pattern, str) for pattern in items):
        raise ValueError(f"{argument} must be a list of regular expressions, got {patterns!r}")
    _compile(argument, items)
    return items


def _compile(argument: str, patterns: tuple[str, ...]) -> tuple[PathPattern, ...]:
    return compile_patterns(patterns, f"{argument} must hold regular expressions", f"{argument} is too long a list")


@functools.lru_cache(maxsize=64)  # of the masks and axes in use, which are called in every step that is not compiled
def compile_patterns(patterns: tuple[str, ...], wanted: str, too_many: str) -> tuple[PathPattern, ...]:
    """Compile patterns, each once; raise ValueError in these words for one that is wrong, or for all together."""
    compiled: list[PathPattern] = []
    for pattern in dict.fromkeys(patterns):
        try:
            compiled.append(compile_pattern(pattern))
        except ValueError as error:
            raise ValueError(f"{wanted}, got {shorten(pattern)}: {error}") from None
    try:
        check_together(compiled)
    except ValueError as error:
        raise ValueError(f"{too_many}: {error}") from None
    return tuple(compiled)


def _has_ranks(patterns: Sequence[PathPattern]) -> bool:
    return any(pattern.max_rank is not None for pattern in patterns)


def _matches(patterns: Sequence[PathPattern], path: str, rank: int | None) -> bool:
    return any(pattern.matches(path, rank) for pattern in patterns)


def branches_of(parameters: Sequence[tuple[str, Any]]) -> list[str]:
    """Return the paths of holes with the slash that comes next where a hole stands for a whole branch.

    Optax masks out a branch of parameters as one, as in `optax.partition` with a label for all of them.
    """
    return [f"{path}/" for path, node in parameters if isinstance(node, optax.MaskedNode)]


def require_matches(
    patterns: Sequence[PathPattern], found: Sequence[tuple[str, int | None]], branches: Sequence[str]
) -> None:
    """Raise ValueError for patterns that match none of the parameters, of which paths and ranks are given."""
    candidates = [*found, *((path, None) for path in branches)]
    unmatched = [pattern for pattern in patterns if not any(pattern.matches(*parameter) for parameter in candidates)]
    if found and unmatched:
        problems = [
            f"the pattern {pattern.text!r} matches none of the {len(found)} parameters, {_nearest(pattern, found)}"
            for pattern in unmatched[:_MAX_NAMED]
        ]
        if len(unmatched) > _MAX_NAMED:
            problems.append(f"{len(unmatched) - _MAX_NAMED} more match none")
        raise ValueError("; ".join(problems) + ": correct it, drop it, or allow unmatched patterns")


_MAX_NAMED = 10


def _nearest(pattern: PathPattern, found: Sequence[tuple[str, int | None]]) -> str:
    if pattern.max_rank is not None:
        return f"whose ranks are {join_words(map(str, sorted({rank for _, rank in found if rank is not None})))}"
    # How alike two texts are takes the product of their lengths to tell, so long ones and large trees are not whole.
    ends = {path[-100:]: path for path, _ in found[:1000]}
    close = difflib.get_close_matches(pattern.text[:50], ends, n=3, cutoff=0.0)
    return f"of which the nearest are {join_words([ends[end] for end in close])}"
