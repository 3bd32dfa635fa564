"""Which parameters the patterns of an optimizer exclude."""

import json
import math
import typing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optax_ext import path_mask
from optax_ext._core.errors import shorten
from optax_ext._core.field_types import Pattern
from optax_ext._core.trees import join_path
from optax_ext.cli._errors import CommandError
from optax_ext.config import ConfigError, Optimizer, Problem

Shapes = dict[str, Any]  # a nested dict of jax.ShapeDtypeStruct


class Size(NamedTuple):
    """The number of parameters, and of numbers in them."""

    parameters: int
    numbers: int


class Match(NamedTuple):
    """A pattern and the paths of the parameters that it matches."""

    pattern: str
    paths: list[str]


class PatternList(NamedTuple):
    """A field that holds patterns, and what they leave; ``matches`` is None if it uses another field's patterns."""

    field: str
    matches: list[Match] | None
    left: Size


def read_shapes(file: str) -> Shapes:
    """Read a JSON file of nested parameter names and shapes as a tree of `jax.ShapeDtypeStruct`."""
    problems: list[Problem] = []

    def read(value: object, path: str) -> Any:
        if isinstance(value, dict):
            return {key: read(item, f"{path}/{key}" if path else key) for key, item in value.items()}
        if isinstance(value, list) and all(type(size) is int and size >= 0 for size in value):
            return jax.ShapeDtypeStruct(tuple(value), jnp.float32)
        problems.append(Problem(path, f"must be a shape, a list of sizes, or a mapping; got {shorten(value)}"))
        return None

    try:
        shapes = read(json.loads(Path(file).read_text(encoding="utf-8")), "")
    except OSError as error:
        raise CommandError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{file}: is not JSON that can be read: {error}") from None
    if problems:
        raise ConfigError(file, problems)
    if not isinstance(shapes, dict) or not jax.tree.leaves(shapes):
        raise CommandError(f"{file}: must map parameter names to shapes, and have at least one")
    return shapes


def size(shapes: Shapes) -> Size:
    """Count the parameters of a tree, and the numbers in them."""
    leaves = jax.tree.leaves(shapes)
    return Size(len(leaves), sum(math.prod(leaf.shape) for leaf in leaves))


def pattern_lists(optimizer: Optimizer, shapes: Shapes) -> list[PatternList]:
    """Find the fields of an optimizer that hold patterns, and what each pattern matches."""
    found: list[PatternList] = []
    for name, hint in typing.get_type_hints(type(optimizer), include_extras=True).items():
        if not _holds_patterns(hint):
            continue
        patterns = getattr(optimizer, name)
        matches = None if patterns is None else [Match(pattern, _matching(pattern, shapes)) for pattern in patterns]
        if patterns is None:  # it uses the other list
            patterns = getattr(optimizer, "exclude_from_weight_decay", ())
        mask = path_mask(exclude=patterns, allow_unmatched=True)(shapes)
        left = jax.tree.map(lambda shape, chosen: shape if chosen else None, shapes, mask)
        found.append(PatternList(name, matches, size(left)))
    return found


def unmatched(optimizer: Optimizer, shapes: Shapes) -> list[Problem]:
    """Return what `init` would say of the patterns that match nothing, all of them at once."""
    problems: list[Problem] = []
    if getattr(optimizer, "allow_unmatched", False):
        return problems
    for field, matches, _ in pattern_lists(optimizer, shapes):
        for pattern in [match.pattern for match in matches or () if not match.paths]:
            try:
                path_mask(exclude=[pattern])(shapes)
            except ValueError as error:
                problems.append(Problem(field, str(error)))
    return problems


def _matching(pattern: str, shapes: Shapes) -> list[str]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(path_mask(include=[pattern], allow_unmatched=True)(shapes))
    return [join_path(path) for path, matches in leaves if matches]


def _holds_patterns(hint: object) -> bool:
    return hint is Pattern or any(_holds_patterns(part) for part in typing.get_args(hint))
