"""Fields of patterns: which parameters they take out of a stage, as a mask and in words."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from optax_ext import masks
from optax_ext._core.lazy import jax
from optax_ext._core.public import public
from optax_ext._core.regexes import compile_pattern


@public
class PatternField(NamedTuple):
    """A field of regular expressions, and what it means for a stage of its optimizer.

    Attributes:
      field: The name of the field.
      stage: The name of the stage, or of a part of one: with ``separate_norms``, LARS has weight decay and trust ratio
        in the stage ``"weight decay and trust ratio"``.
      includes: Whether the parameters in whose paths a pattern is found take part in the stage, whatever another field
        excludes; if not, they are excluded.
      patterns: The patterns, which are those of another field where this one is None and takes them.
      taken_from: The name of that other field; None where the patterns are the field's own.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.

    Examples:
      >>> from optax_ext import config
      >>> for field in config.LARS(0.1, exclude_from_weight_decay=["bias"]).pattern_fields():
      ...     print(field.field, field.stage, field.patterns, field.taken_from)
      exclude_from_weight_decay weight decay ('bias',) None
      exclude_from_layer_adaptation trust ratio ('bias',) exclude_from_weight_decay
    """

    field: str
    stage: str
    includes: bool
    patterns: Sequence[str]
    taken_from: str | None
    allow_unmatched: bool


def layerwise_fields(
    exclude_from_weight_decay: Sequence[str],
    exclude_from_layer_adaptation: Sequence[str] | None,
    allow_unmatched: bool,
) -> list[PatternField]:
    """Return the fields of a layer-wise optimizer; without a list of its own, adaptation takes that of weight decay."""
    taken_from, not_adapting = None, exclude_from_layer_adaptation
    if not_adapting is None:
        taken_from, not_adapting = "exclude_from_weight_decay", exclude_from_weight_decay
    decay = ("exclude_from_weight_decay", "weight decay", False, exclude_from_weight_decay, None)
    adaptation = ("exclude_from_layer_adaptation", "trust ratio", False, not_adapting, taken_from)
    return [PatternField(*decay, allow_unmatched), PatternField(*adaptation, allow_unmatched)]


def make_mask(fields: Sequence[PatternField], allow_unmatched: bool, axes: Any) -> Callable[[Any], Any]:
    """Return the mask of what no field excludes, and of what one includes even so; `axes` count layers."""
    excluded, included = _collect(fields, includes=False), _collect(fields, includes=True)
    not_excluded = masks.path_mask(exclude=excluded, allow_unmatched=allow_unmatched, stacked_axes=axes)
    if not included:
        return not_excluded
    is_included = masks.path_mask(include=included, allow_unmatched=allow_unmatched, stacked_axes=axes)

    def mask(params: Any) -> Any:
        return jax.tree.map(lambda left, named: left or named, not_excluded(params), is_included(params))

    return mask


def exceptions_in_words(fields: Sequence[PatternField], *, is_stacked: bool) -> str:
    """Say which parameters are taken out, as the end of a sentence; nothing where none are."""
    excluded, included = _collect(fields, includes=False), _collect(fields, includes=True)
    if not excluded:
        return ", included or not: none is excluded" if included else ""
    unless = f", unless {_any('it also', included, is_stacked)}" if included else ""
    return f", except where {_any('a path', excluded, is_stacked)}{unless}"


def matches_in_words(patterns: Sequence[str], *, is_stacked: bool) -> str:
    """Say where any of the patterns matches."""
    return f"where {_any('a path', patterns, is_stacked)}"


def mask_in_words(include: Sequence[str] | None, exclude: Sequence[str], *, is_stacked: bool) -> str:
    """Say which parameters a mask chooses, as the end of a sentence."""
    only = [] if include is None else [f"only where {_any('a path', include, is_stacked)}" if include else "nowhere"]
    but = [f"except where {_any('a path', exclude, is_stacked)}"] if exclude else []
    return ", and there ".join([*only, *but]) or "everywhere"


def _collect(fields: Sequence[PatternField], *, includes: bool) -> tuple[str, ...]:
    return tuple(pattern for field in fields if field.includes == includes for pattern in field.patterns)


def _any(what: str, patterns: Sequence[str], is_stacked: bool) -> str:
    """Say that any of the patterns matches: that what it is has one of the texts, or its rank is small enough."""
    ranks = [rank for pattern in patterns if (rank := compile_pattern(pattern).max_rank) is not None]
    texts = [repr(pattern) for pattern in patterns if compile_pattern(pattern).max_rank is None]
    conditions = [f"{what} has {' or '.join(texts)}"] if texts else []
    if ranks:
        conditions.append(f"the rank{' of a layer' if is_stacked else ''} is at most {max(ranks)}")
    return ", or ".join(conditions)
