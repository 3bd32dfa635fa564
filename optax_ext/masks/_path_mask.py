"""Masks from regular expressions on parameter paths."""

import difflib
import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from optax_ext._core.arguments import check_flag
from optax_ext._core.errors import join_words, shorten
from optax_ext._core.public import public
from optax_ext._core.regexes import PathPattern, check_together, compile_pattern
from optax_ext._core.trees import is_one_parameter, join_path

PyTree = Any
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
@_by_keywords_alone
def path_mask(
    *, include: Sequence[str] | None = None, exclude: Sequence[str] | None = None, allow_unmatched: bool = False
) -> Callable[[PyTree], PyTree]:
    """Make a mask that chooses parameters by their paths.

    A path is the keys from the root of the tree to the parameter joined with ``/``, such as ``"conv1/kernel"``,
    and reads alike for dicts, Flax NNX states, Equinox modules, dataclasses and sequences (``"layers/0/weight"``).
    A parameter is chosen if any ``include`` pattern is found in its path and no ``exclude`` pattern is.

    Args:
      include: Regular expressions, searched for anywhere in a path; None chooses every parameter.
      exclude: Regular expressions of parameters that are not chosen; None or empty for none.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.

    Returns:
      A function from a tree of parameters (or of their updates) to a tree of bool of the same structure, to be
      given wherever Optax takes a mask. It raises ValueError for a pattern that matches nothing, which is most
      often a misspelling: a mask that silently masks nothing is the mistake this prevents.

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
    including = None if include is None else _compile("include", include)
    excluding = _compile("exclude", () if exclude is None else exclude)
    check_flag("allow_unmatched", allow_unmatched)

    def mask(params: PyTree) -> PyTree:
        _check_no_step(params)
        leaves, structure = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_one_parameter)
        paths = [join_path(path) for path, _ in leaves]
        if not allow_unmatched:
            _require_matches([*(including or ()), *excluding], paths)
        return structure.unflatten(
            (including is None or _found(including, path)) and not _found(excluding, path) for path in paths
        )

    return mask


def _check_no_step(params: PyTree) -> None:
    """Raise ValueError for a step count, with which `optax.inject_hyperparams` calls what it takes for a schedule."""
    is_number = isinstance(params, int | np.generic | np.ndarray | jax.Array) and not isinstance(params, bool)
    if is_number and jnp.ndim(params) == 0 and jnp.issubdtype(jnp.result_type(params), jnp.integer):
        raise ValueError(
            "a path_mask takes parameters, got a step count: optax.inject_hyperparams takes each function for a "
            'schedule, unless told by static_args=("weight_decay_mask", "trust_ratio_mask"), the names of the arguments'
        )


def _compile(argument: str, patterns: Sequence[str]) -> list[PathPattern]:
    if not isinstance(patterns, list | tuple) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(f"{argument} must be a list of regular expressions, got {patterns!r}")
    compiled: list[PathPattern] = []
    for pattern in dict.fromkeys(patterns):
        try:
            compiled.append(compile_pattern(pattern))
        except ValueError as error:
            raise ValueError(f"{argument} must hold regular expressions, got {shorten(pattern)}: {error}") from None
    try:
        check_together(compiled)
    except ValueError as error:
        raise ValueError(f"{argument} is too long a list: {error}") from None
    return compiled


def _found(patterns: Sequence[PathPattern], path: str) -> bool:
    return any(pattern.is_in(path) for pattern in patterns)


def _require_matches(patterns: Sequence[PathPattern], paths: Sequence[str]) -> None:
    unmatched = [pattern.text for pattern in patterns if not any(map(pattern.is_in, paths))]
    if paths and unmatched:
        problems = [
            f"the pattern {pattern!r} matches none of the {len(paths)} parameters, of which the nearest are "
            + join_words(_nearest(pattern, paths))
            for pattern in unmatched[:_MAX_NAMED]
        ]
        if len(unmatched) > _MAX_NAMED:
            problems.append(f"{len(unmatched) - _MAX_NAMED} more match none")
        raise ValueError("; ".join(problems) + ": correct it, drop it, or allow unmatched patterns")


_MAX_NAMED = 10


def _nearest(pattern: str, paths: Sequence[str]) -> list[str]:
    # How alike two texts are takes the product of their lengths to tell, so long ones and large trees are not whole.
    ends = {path[-100:]: path for path in paths[:1000]}
    return [ends[end] for end in difflib.get_close_matches(pattern[:50], ends, n=3, cutoff=0.0)]
