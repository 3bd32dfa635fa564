"""Which parameters the patterns of an optimizer match."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from optax_ext import masks
from optax_ext._core.errors import shorten
from optax_ext._core.lazy import jax, jnp
from optax_ext._core.regexes import is_of_ranks
from optax_ext._core.trees import join_path
from optax_ext.cli._errors import CommandError
from optax_ext.config import ConfigError, Problem, UpdateRule

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
    """A field that holds patterns, and what none of them matches; None for matches where it takes another field's."""

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


def numbers_by_path(shapes: Shapes) -> dict[str, int]:
    """Return how many numbers are in each parameter, by its path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(shapes)
    return {join_path(path): math.prod(leaf.shape) for path, leaf in leaves}


def pattern_lists(optimizer: UpdateRule, shapes: Shapes, axes: Any = None) -> list[PatternList]:
    """Return the fields of an optimizer that hold patterns, and what each pattern matches; `axes` count layers."""
    found: list[PatternList] = []
    for field in optimizer.pattern_fields():
        own = field.patterns if field.taken_from is None else None
        matches = None if own is None else [Match(pattern, matching(pattern, shapes, axes)) for pattern in own]
        hit = masks.path_mask(include=field.patterns, allow_unmatched=True, stacked_axes=axes)(shapes)
        left = jax.tree.map(lambda shape, chosen: None if chosen else shape, shapes, hit)
        found.append(PatternList(field.field, matches, size(left)))
    return found


def masked_sizes(optimizer: UpdateRule, shapes: Shapes) -> dict[str, Size]:
    """Count what each stage that leaves out parameters applies to, by its mask."""
    return {
        stage: size(jax.tree.map(lambda shape, chosen: shape if chosen else None, shapes, mask(shapes)))
        for stage, mask in optimizer.masks(allow_unmatched=True).items()
    }


def unmatched(optimizer: UpdateRule, shapes: Shapes, axes: Any = None, whole: Shapes | None = None) -> list[Problem]:
    """Return what `init` would say of the patterns that match nothing, all of them at once; `axes` count layers.

    For an optimizer of a group, a pattern is right if it matches anything in the whole. A pattern of ranks is then
    never wrong: parameters of other groups are masked out, and have no rank.
    """
    problems: list[Problem] = []
    for field in optimizer.pattern_fields():
        if field.allow_unmatched or field.taken_from is not None:
            continue
        for pattern in field.patterns:
            if whole is not None and is_of_ranks(pattern):
                continue
            try:
                if whole is None:
                    masks.path_mask(include=[pattern], stacked_axes=axes)(shapes)
                else:
                    masks.path_mask(include=[pattern])(whole)
            except ValueError as error:
                problems.append(Problem(field.field, str(error)))
    return problems


def matching(pattern: str, shapes: Shapes, axes: Any) -> list[str]:
    """Return the paths of the parameters that a pattern matches; `axes` count layers."""
    mask = masks.path_mask(include=[pattern], allow_unmatched=True, stacked_axes=axes)
    leaves, _ = jax.tree_util.tree_flatten_with_path(mask(shapes))
    return [join_path(path) for path, matches in leaves if matches]
