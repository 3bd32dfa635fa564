"""Patterns that were written for the names of TensorFlow variables, as patterns for JAX parameter paths.

TensorFlow searches a regular expression in names such as ``batch_normalization_3/gamma:0``; here it is searched in
paths such as ``BatchNorm_3/scale``. The table says what each word finds here; the rest of a pattern stays as it is.
``bias`` and ``kernel`` stay too: Flax has the same names. Where a recipe lists two spellings that become the same
pattern, one of them is kept.

| in TensorFlow | finds here |
|---|---|
| ``batch_normalization``, ``BatchNorm``, … | ``BatchNorm_0``, ``batch_norm``, ``batch_normalization_1``, ``bn1`` |
| ``LayerNorm``, ``layer_norm``, ``layer_normalization``, … | ``LayerNorm_0``, ``layer_norm``, ``layernorm``, ``ln_1`` |
| ``group_normalization``, ``GroupNorm``, … | ``GroupNorm_0``, ``group_norm``, ``gn1`` |
| ``norm``, alone | any name with ``norm`` in it, upper or lower case, and ``bn1``, ``ln_1``, ``gn1`` |
| ``gamma`` | ``gamma``, ``scale`` |
| ``beta`` | ``beta``, and the ``bias`` of a normalization |
| ``embeddings`` | ``embeddings``, ``embedding`` |
| ``:0`` at the end of a name | the end of the path |
"""

import re
from typing import Any

from optax_ext._core.regexes import is_of_ranks
from optax_ext.interop._report import Report

PATTERN_FIELDS = frozenset({"include_in_weight_decay", "exclude_from_weight_decay", "exclude_from_layer_adaptation"})


def _alone(name: str) -> str:
    """Return a pattern for a name that stands alone or among digits and underscores: found in `bn1`, not in `bnd`."""
    return rf"(\b|[\d_]){name}(\b|[\d_])"


def _inside(kind: str, short: str) -> str:
    """Return a pattern for a kind of normalization inside of another, which takes no character that belongs to that."""
    return rf"(?i:{kind}_?norm(?:alization)?|(?<![a-z]){short}(?![a-z]))"


_KINDS = {"batch": "bn", "layer": "ln", "group": "gn"}
_ANY_NORM = f"norm|{_alone('[blg]n')}"
_WHOLE = {"norm": f"(?i){_ANY_NORM}", "gamma": "gamma|scale", "beta": rf"beta|(?i:{_ANY_NORM})[^/]*/bias"}
_PARTS = {
    **{rf"{kind}_?norm(?:alization)?": _inside(kind, short) for kind, short in _KINDS.items()},
    r"(?<![a-z])gamma(?![a-z])": "(?:gamma|scale)",
    r"(?<![a-z])beta(?![a-z])": "(?:beta|bias)",
    r"(?<![a-z])embeddings(?![a-z])": "embeddings?",
    r":0\$?(?=$|[|)])": "$",
}
_FIND = re.compile("|".join(f"(?P<p{index}>{part})" for index, part in enumerate(_PARTS)), re.IGNORECASE)
_NORM_ALONE = re.compile("(batch|layer|group)_?norm(alization)?", re.IGNORECASE)


def translate_pattern(pattern: str) -> str:
    """Return a pattern for TensorFlow names as one for JAX paths, by the table above."""
    if "(?i:" in pattern:  # it is translated already
        return pattern
    if pattern in _WHOLE:
        return _WHOLE[pattern]
    if alone := _NORM_ALONE.fullmatch(pattern):
        kind = alone[1].lower()
        # This finds batch_normalization too, as what follows does not matter.
        return f"(?i){kind}_?norm|{_alone(_KINDS[kind])}"
    replacements = list(_PARTS.values())
    return _FIND.sub(lambda match: replacements[int((match.lastgroup or "p0")[1:])], pattern)


def read_patterns(value: Any, path: str, report: Report, *, translate: bool) -> Any:
    """Return a recipe's list of patterns, translated; anything that is not a list of text comes back as it is."""
    if isinstance(value, str):
        report.note(
            path,
            f"the text {value!r} is read as a list of one pattern; TensorFlow would treat each letter as a pattern",
            surprising=True,
        )
        value = [value]
    if not isinstance(value, list | tuple):
        return value
    for pattern in value:
        if isinstance(pattern, str) and is_of_ranks(pattern):
            text = (
                "chooses by rank here, and is a regular expression in TensorFlow, found in no name: drop it, or add it"
            )
            report.problem(path, f"{pattern!r} {text} to the recipe once it is translated")
    if not translate:
        return value
    sources: dict[Any, Any] = {}  # by what they became
    for pattern in value:
        if not isinstance(pattern, str):
            return value  # which the schema refuses
        translated = translate_pattern(pattern)
        if translated in sources:
            report.note(
                path,
                f"{pattern!r} and {sources[translated]!r} are the same pattern for JAX parameter paths,"
                f" {_quote(translated)}",
                surprising=pattern != sources[translated],
            )
            continue
        sources[translated] = pattern
        if translated != pattern:
            report.note(path, f"{pattern!r} became {_quote(translated)}, which matches JAX parameter paths")
    return list(sources)


def _quote(pattern: str) -> str:
    """Return a pattern in quotes as files have it, with single backslashes."""
    return repr(pattern).replace("\\\\", "\\")
