"""Labels of parameters for `optax.partition`, from regular expressions on parameter paths."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from optax_ext._core.arguments import check_flag
from optax_ext._core.errors import join_words, shorten
from optax_ext._core.field_types import as_tuple
from optax_ext._core.frozen_mapping import FrozenMapping
from optax_ext._core.layers import StackedAxes, check_stacked_axes
from optax_ext._core.public import public
from optax_ext._core.regexes import PathPattern
from optax_ext._core.synonyms import suggest_arguments
from optax_ext._core.trees import PyTree
from optax_ext.masks._parameters import Parameter, parameters_of
from optax_ext.masks._path_mask import branches_of, check_no_step, compile_patterns, require_matches

_MAX_NAMED = 10


@public
@dataclasses.dataclass(frozen=True, repr=False)
class PathLabels:
    """The labels of parameters by their paths, as [`path_labels`][optax_ext.path_labels] makes them.

    A frozen value: picklable, equal to any other of the same patterns, and hashable unless its stacked axes are not.

    Attributes:
      labels: The patterns of each label.
      rest: The label of parameters that no pattern matches; None if there must be none.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.
      stacked_axes: The axes of leaves that only count layers, which ranks do not include.

    Examples:
      >>> import optax_ext
      >>> labels = optax_ext.path_labels({"head": ["^head/"]}, rest="body")
      >>> labels
      path_labels({'head': ['^head/']}, rest='body')
      >>> labels == optax_ext.path_labels({"head": ("^head/",)}, "body")
      True
    """

    labels: Mapping[str, Sequence[str]]
    rest: str | None = None
    allow_unmatched: bool = dataclasses.field(default=False, kw_only=True)
    stacked_axes: StackedAxes = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        given: Any = self.labels
        example = "as in {'head': ['^head/']}"
        if not isinstance(given, Mapping) or not (given or self.rest is not None):
            raise ValueError(f"labels must map labels to lists of regular expressions, {example}, got {shorten(given)}")
        kept: dict[str, tuple[str, ...]] = {}
        for label, patterns in given.items():
            items: Any = as_tuple(patterns)
            if not isinstance(label, str):
                raise ValueError(f"labels must be text, got {shorten(label)}")
            if not isinstance(items, tuple) or not items or not all(isinstance(pattern, str) for pattern in items):
                text = f"labels[{label!r}] must be a list of at least one regular expression"
                raise ValueError(f"{text}, {example}, got {shorten(patterns)}")
            kept[label] = items
        rest: Any = self.rest
        if rest is not None and not isinstance(rest, str):
            raise ValueError(f"rest must be a label, which is text, or None, got {shorten(rest)}")
        object.__setattr__(self, "labels", FrozenMapping(kept))
        check_flag("allow_unmatched", self.allow_unmatched)
        check_stacked_axes("stacked_axes", self.stacked_axes)
        self._compile()

    def __call__(self, params: PyTree) -> PyTree:
        """Return a tree of labels in the structure of ``params``."""
        check_no_step("path_labels", ("param_labels",), params)
        patterns = self._compile()
        parameters, structure = parameters_of(params, self.stacked_axes)
        if not self.allow_unmatched:
            found = [(parameter.path, parameter.rank) for parameter in parameters]
            branches = branches_of([(parameter.path, parameter.node) for parameter in parameters])
            require_matches([pattern for _, pattern in patterns], found, branches)
        problems: list[str] = []
        labels = [self._label(parameter, patterns, problems) for parameter in parameters]
        missing = [parameter.path for parameter, label in zip(parameters, labels, strict=True) if label is None]
        if missing:
            more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
            listed = f"{join_words(missing[:_MAX_NAMED])}{more}"
            problems.append(f"no pattern matches {listed}: add patterns for them, or give `rest`")
        if problems:
            raise ValueError("; ".join(problems[:_MAX_NAMED]))
        return structure.unflatten(labels)

    def _label(
        self, parameter: Parameter, patterns: Sequence[tuple[str, PathPattern]], problems: list[str]
    ) -> str | None:
        by_label: dict[str, str] = {}
        for label, pattern in patterns:
            if pattern.matches(parameter.path, parameter.rank):
                by_label.setdefault(label, pattern.text)
        if parameter.leaf is None:  # a hole takes part in nothing: any label will do
            return next(iter(by_label), self.rest) or next(iter(self.labels))
        if len(by_label) > 1:
            both = " and ".join(f"{label!r} by the pattern {pattern!r}" for label, pattern in by_label.items())
            problems.append(f"the parameter {parameter.path!r} must have one label, got {both}")
        return next(iter(by_label), self.rest)

    def _compile(self) -> list[tuple[str, PathPattern]]:
        """Return each pattern with its label."""
        texts = tuple(pattern for patterns in self.labels.values() for pattern in patterns)
        compiled = compile_patterns(texts, "labels must map to regular expressions", "labels has too many patterns")
        by_text = {pattern.text: pattern for pattern in compiled}
        return [(label, by_text[text]) for label, patterns in self.labels.items() for text in patterns]

    def __repr__(self) -> str:
        """Show the call that makes equal labels."""
        shown = [repr({label: list(patterns) for label, patterns in self.labels.items()})]
        shown += [] if self.rest is None else [f"rest={self.rest!r}"]
        shown += ["allow_unmatched=True"] if self.allow_unmatched else []
        shown += [] if self.stacked_axes is None else [f"stacked_axes={self.stacked_axes!r}"]
        return f"path_labels({', '.join(shown)})"


@public
@suggest_arguments
def path_labels(
    labels: Mapping[str, Sequence[str]],
    rest: str | None = None,
    *,
    allow_unmatched: bool = False,
    stacked_axes: StackedAxes = None,
) -> PathLabels:
    """Label parameters by their paths, or by their ranks, for ``optax.partition``.

    Every parameter has exactly one label. Paths and patterns are those of [`path_mask`][optax_ext.path_mask].

    Args:
      labels: The regular expressions of each label, searched for anywhere in a path. ``"rank <= 1"`` in place of one
        matches parameters with at most one axis.
      rest: The label of the parameters that no pattern matches; None if each must be matched.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.
      stacked_axes: The axes of leaves that count layers, as [`path_axes`][optax_ext.path_axes] makes them: ranks are of
        one layer.

    Returns:
      A [`PathLabels`][optax_ext.masks.PathLabels]: a function from a tree of parameters (or of their updates) to a tree
      of labels of the same structure. It raises ValueError for a parameter with two labels, for parameters with none,
      and for a pattern that matches nothing. What Optax has masked out, and a parameter without a gradient, keep a
      label that has no effect.

    Raises:
      ValueError: If a pattern is not a regular expression, or if patterns are not in lists.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> params = {"backbone": {"kernel": jnp.ones(2)}, "head": {"kernel": jnp.ones(2)}}
      >>> labels = optax_ext.path_labels({"train": ["^head/"]}, rest="freeze")
      >>> labels(params)
      {'backbone': {'kernel': 'freeze'}, 'head': {'kernel': 'train'}}
      >>> tx = optax.partition({"train": optax_ext.lars(0.1), "freeze": optax.set_to_zero()}, labels)
      >>> state = tx.init(params)
    """
    return PathLabels(labels, rest, allow_unmatched=allow_unmatched, stacked_axes=stacked_axes)
