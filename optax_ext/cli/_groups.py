"""The groups of a recipe, and the factors of learning rates: which parameters are in which, and what is wrong."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from optax_ext import masks
from optax_ext._core.lazy import jax
from optax_ext._core.trees import join_path
from optax_ext.cli._params import Shapes, numbers_by_path
from optax_ext.config import Frozen, Partition, Problem, UpdateRule

_MAX_PATHS = 4  # of the parameters that share a group or a factor; more are only counted


class Member(NamedTuple):
    """A group: its name, its place in the recipe, what moves it, and its parameters."""

    name: str
    place: str
    rule: UpdateRule
    shapes: Shapes


def members(partition: Partition, shapes: Shapes) -> list[Member] | None:
    """Return the groups of a partition; None if a parameter is in none of them, or in several."""
    try:
        labels = partition.labels(allow_unmatched=True)(shapes)
    except ValueError:
        return None
    places = {group.label: f"groups.{index}.optimizer." for index, group in enumerate(partition.groups)}
    return [
        Member(name, places.get(name, "rest."), rule, _only(shapes, labels, name))
        for name, rule in partition.rules().items()
    ]


def group_problems(partition: Partition, shapes: Shapes) -> list[Problem]:
    """Return what `init` would say of the groups, all of it at once."""
    problems: list[Problem] = []
    axes = partition.layer_axes(allow_unmatched=True)
    for index, group in enumerate(partition.groups):
        for pattern in () if partition.allow_unmatched else group.match:
            try:
                masks.path_mask(include=[pattern], stacked_axes=axes)(shapes)
            except ValueError as error:
                problems.append(Problem(f"groups.{index}.match", str(error)))
    try:
        partition.labels(allow_unmatched=True)(shapes)
    except ValueError as error:
        problems.append(Problem("groups", str(error)))
    return problems


def factor_problems(rule: UpdateRule, shapes: Shapes) -> list[Problem]:
    """Return what `init` would say of the factors of learning rates."""
    problems: list[Problem] = []
    fields: dict[str, Any] = {}
    if rule.learning_rate_multipliers is not None:
        fields["learning_rate_multipliers"] = masks.PathFactors(rule.learning_rate_multipliers, rule.allow_unmatched)
    if rule.layer_decay is not None:
        axes = rule.layer_axes(allow_unmatched=True)
        decay = rule.layer_decay.make(stacked_axes=axes, allow_unmatched=rule.allow_unmatched)
        fields["layer_decay"] = decay
    for field, factors in fields.items():
        try:
            factors(shapes)
        except ValueError as error:
            problems.append(Problem(field, str(error)))
    return problems


def group_rows(found: list[Member], partition: Partition) -> Iterator[tuple[str, str, str]]:
    """Yield a row for each group: its name, its patterns, and its parameters."""
    patterns = {group.label: "\n".join(group.match) for group in partition.groups}
    total = sum(sum(numbers_by_path(member.shapes).values()) for member in found)
    for name, _, _, shapes in found:
        yield name, patterns.get(name, "every other path"), _paths(numbers_by_path(shapes), total)


def has_factors(rule: UpdateRule) -> bool:
    """Return whether a rule, or that of a group of it, has factors of the learning rate."""
    inner = rule.rules().values() if isinstance(rule, Partition) else ()
    return rule.rate_factors() is not None or any(map(has_factors, inner))


def factor_rows(rule: UpdateRule, shapes: Shapes) -> list[tuple[str, str, str]]:
    """Return a row for each factor in each group, from the smallest to the largest; none if they are not known."""
    by_factor: dict[tuple[str, tuple[float, ...]], dict[str, int]] = {}
    numbers = numbers_by_path(shapes)
    try:
        for group, path, factor in _factors(rule, shapes):
            by_factor.setdefault((group, factor), {})[path] = numbers[path]
    except ValueError:
        return []
    total, rows = sum(numbers.values()), sorted(by_factor.items(), key=lambda row: (row[0][1], row[0][0]))
    return [(_factor_in_words(factor), group, _paths(paths, total)) for (group, factor), paths in rows]


def _factors(rule: UpdateRule, shapes: Shapes, group: str = "") -> Iterator[tuple[str, str, tuple[float, ...]]]:
    """Yield the group, the path and the factors of each parameter, one or one for each layer of a stack."""
    if isinstance(rule, Partition):
        for name, _, inner, own in members(rule, shapes) or ():
            label = f"{group}/{name}" if group else name
            if isinstance(inner, Frozen):
                yield from ((label, path, (0.0,)) for path in numbers_by_path(own))
                continue
            kept = set(numbers_by_path(own))
            yield from (row for row in _factors(inner, shapes, label) if row[1] in kept)
        return
    factors = rule.rate_factors(allow_unmatched=True)
    tree = jax.tree.map(lambda _: 1.0, shapes) if factors is None else factors(shapes)
    for path, factor in jax.tree_util.tree_leaves_with_path(tree):
        yield group, join_path(path), tuple(np.ravel(factor).tolist())


def _factor_in_words(factor: tuple[float, ...]) -> str:
    if len(factor) < 2:
        return f"{factor[0]:.4g}" if factor else ""
    return f"{factor[0]:.4g} to {factor[-1]:.4g}"


def _paths(numbers: dict[str, int], total: int) -> str:
    paths = [*numbers]
    if not paths:
        return "NOTHING"
    shown = ", ".join(paths[:_MAX_PATHS]) + (", ..." if len(paths) > _MAX_PATHS else "")
    return f"{len(paths)}: {shown} ({sum(numbers.values()):,} of {total:,} numbers)"


def _only(shapes: Any, labels: Any, name: str) -> Any:
    """Return the part of a nested dict of shapes that has a label."""
    kept = {
        key: _only(below, labels[key], name) if isinstance(below, dict) else below
        for key, below in shapes.items()
        if isinstance(below, dict) or labels[key] == name
    }
    return {key: below for key, below in kept.items() if not isinstance(below, dict) or below}
