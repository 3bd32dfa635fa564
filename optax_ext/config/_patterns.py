"""Fields of patterns: which parameters they take out of a stage, as a mask and in words."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from optax_ext import masks
from optax_ext._core.lazy import jax
from optax_ext._core.public import public


@public
class PatternField(NamedTuple):
    """A field of regular expressions, and what it means for a stage of its optimizer.

    Attributes:
      field: The name of the field.
      stage: The name of the stage.
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


def make_mask(fields: Sequence[PatternField], allow_unmatched: bool) -> Callable[[Any], Any]:
    """Return the mask of what no field excludes, and of what one includes even so."""
    excluded, included = _collect(fields, includes=False), _collect(fields, includes=True)
    not_excluded = masks.path_mask(exclude=excluded, allow_unmatched=allow_unmatched)
    if not included:
        return not_excluded
    is_included = masks.path_mask(include=included, allow_unmatched=allow_unmatched)

    def mask(params: Any) -> Any:
        return jax.tree.map(lambda left, named: left or named, not_excluded(params), is_included(params))

    return mask


def exceptions_in_words(fields: Sequence[PatternField]) -> str:
    """Say which parameters are taken out, as the end of a sentence; nothing where none are."""
    excluded, included = _collect(fields, includes=False), _collect(fields, includes=True)
    if not excluded:
        return ", included or not: none is excluded" if included else ""
    unless = f", unless it also has {_either(included)}" if included else ""
    return f", except where a path has {_either(excluded)}{unless}"


def _collect(fields: Sequence[PatternField], *, includes: bool) -> tuple[str, ...]:
    return tuple(pattern for field in fields if field.includes == includes for pattern in field.patterns)


def _either(patterns: Sequence[str]) -> str:
    return " or ".join(map(repr, patterns))
