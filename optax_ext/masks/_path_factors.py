"""Factors of parameters, from regular expressions on parameter paths."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from optax_ext._core.arguments import check_flag, check_number
from optax_ext._core.errors import shorten
from optax_ext._core.field_types import NonNegativeNumber
from optax_ext._core.frozen_mapping import FrozenMapping
from optax_ext._core.public import public
from optax_ext._core.regexes import PathPattern
from optax_ext._core.schema import plain_numbers
from optax_ext._core.trees import PyTree
from optax_ext.masks._parameters import Parameter, parameters_of
from optax_ext.masks._path_mask import branches_of, check_no_step, compile_patterns, require_matches


@public
@dataclasses.dataclass(frozen=True)
class PathFactors:
    """A factor of each parameter by its path: that of the pattern that is found in the path, and else 1.

    A frozen value: hashable, picklable, and equal to any other of the same patterns and factors.

    Args:
      factors: From regular expressions, searched for anywhere in a path, to numbers of at least 0. Patterns that match
        one parameter must have the same factor.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.

    Raises:
      ValueError: If a pattern is not a regular expression on paths, or a factor is negative; when it is called, if a
        pattern matches nothing, or two patterns of one parameter have different factors.

    Examples:
      >>> from optax_ext import masks
      >>> factors = masks.PathFactors({"^head/": 10.0})
      >>> factors({"body": {"kernel": 1.0}, "head": {"kernel": 1.0}})
      {'body': {'kernel': 1.0}, 'head': {'kernel': 10.0}}
    """

    factors: Mapping[str, float]
    allow_unmatched: bool = False

    def __post_init__(self) -> None:
        given: Any = self.factors
        if not isinstance(given, Mapping) or not given:
            raise ValueError(
                f"factors must map regular expressions to numbers, as in {{'^head/': 10.0}}, got {given!r}"
            )
        kept: dict[str, float] = {}
        for pattern, factor in given.items():
            factor: Any = plain_numbers(factor)
            check_number(f"the factor of {shorten(pattern)}", factor, NonNegativeNumber)
            kept[pattern] = float(factor)
        _compile(tuple(kept))
        object.__setattr__(self, "factors", FrozenMapping(kept))
        check_flag("allow_unmatched", self.allow_unmatched)

    def __call__(self, params: PyTree) -> PyTree:
        """Return a tree of numbers in the structure of ``params``."""
        check_no_step("scale_by_path", ("factors",), params)
        patterns = _compile(tuple(self.factors))
        parameters, structure = parameters_of(params)
        if not self.allow_unmatched:
            require_all(patterns, parameters)
        return structure.unflatten([self._factor(parameter.path, patterns) for parameter in parameters])

    def _factor(self, path: str, patterns: Sequence[PathPattern]) -> float:
        matching = {pattern.text: self.factors[pattern.text] for pattern in patterns if pattern.matches(path, None)}
        if len({*matching.values()}) > 1:
            both = ", ".join(f"{pattern!r}: {factor:.10g}" for pattern, factor in matching.items())
            raise ValueError(f"the patterns of {path!r} must have the same factor, got {both}")
        return next(iter(matching.values()), 1.0)


def require_all(patterns: Sequence[PathPattern], parameters: Sequence[Parameter]) -> None:
    """Raise ValueError for patterns that match none of the parameters."""
    found = [(parameter.path, parameter.rank) for parameter in parameters]
    require_matches(patterns, found, branches_of([(parameter.path, parameter.node) for parameter in parameters]))


def _compile(patterns: tuple[Any, ...]) -> tuple[PathPattern, ...]:
    wanted = "factors must map regular expressions on paths to numbers"
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise ValueError(f"{wanted}, got {shorten(pattern)} for one")
    compiled = compile_patterns(patterns, wanted, "factors has too many patterns")
    for pattern in compiled:
        if pattern.max_rank is not None:
            raise ValueError(f"{wanted}, got {shorten(pattern.text)}, which is of ranks")
    return compiled
