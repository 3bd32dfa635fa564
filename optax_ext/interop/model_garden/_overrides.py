"""How a Model Garden file overrides its experiment: strictly, leaf by leaf, in sections with members."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

from optax_ext._core.errors import did_you_mean, join_words, shorten
from optax_ext.interop._report import Report, join
from optax_ext.interop.model_garden._beside import beside_the_optimizer
from optax_ext.interop.model_garden._experiment import as_mapping, read_experiment
from optax_ext.interop.model_garden._sections import EMA, RUNTIME, SECTIONS, Block


class Section(NamedTuple):
    """A section in effect: the selected type, all members, and which of these a recipe gave."""

    type: Any
    members: dict[str, Any]
    type_given: bool
    members_given: list[str]


class Recipe(NamedTuple):
    """What is in effect once each recipe has overridden the one below it."""

    sections: dict[str, Section]
    ema: Any  # None or a block
    runtime: Block
    beside: dict[str, Any]  # what is not the optimizer's, by its path
    has_base: bool


def read_recipe(config: Mapping[Any, Any], base: Mapping[Any, Any] | None, report: Report) -> Recipe:
    """Override the base by a recipe, strictly, and Model Garden's defaults by that, as a Python experiment does."""
    layers = [
        (read_experiment(layer, report), strict)
        for layer, strict in ((base, False), (config, True))
        if layer is not None
    ]
    sections = {
        name: _section(name, [(layer.optimization.get(name, {}), strict) for layer, strict in layers], report)
        for name in SECTIONS
    }
    ema: Any = None
    runtime = dict(RUNTIME)
    beside: dict[str, Any] = {}
    for layer, _ in layers:
        if "ema" in layer.optimization:
            ema = _ema(ema, layer.optimization["ema"], report)
        runtime |= {key: layer.runtime[key] for key in RUNTIME if key in layer.runtime}
        beside |= beside_the_optimizer(layer.whole)
    return Recipe(sections, ema, runtime, beside, base is not None)


def _section(name: str, layers: list[tuple[Any, bool]], report: Report) -> Section:
    """Merge one section; move fields that stand beside its type to where they were meant to be."""
    members: dict[str, Any] = copy.deepcopy(SECTIONS[name])
    selected: Any = None
    type_given, members_given = False, list[str]()
    beside: dict[str, Any] = {}
    unknown: dict[str, str] = {}
    for layer, strict in layers:
        if layer is None:
            if name == "warmup":
                report.note(name, "null is read as no warm-up; in TensorFlow it is an error", surprising=True)
            selected, type_given, layer = None, True, {}
        for key, value in as_mapping(layer, name, report).items():
            place = join(name, str(key))
            if key == "type":
                selected, type_given = value, True
            elif key in members or (isinstance(value, Mapping) and isinstance(key, str)):
                if key not in members_given:
                    members_given.append(key)
                if key not in members and strict:
                    unknown[str(key)] = _unknown_member(key, members)
                    continue
                defaults = SECTIONS[name].get(key, {})
                known = strict and key in SECTIONS[name]  # only its project knows which fields a foreign member has
                members[key] = _block(members.get(key), defaults, value, place, report, strict=known)
            else:
                beside[str(key)] = value
    if isinstance(selected, str):
        unknown.pop(selected, None)  # the type itself is the problem then
    for key, text in unknown.items():
        report.problem(join(name, key), text)
    block = members.get(selected) if isinstance(selected, str) else None
    for key, value in beside.items():
        _put_in_place(name, key, value, selected, block, report)
    return Section(selected, members, type_given, members_given)


def _block(old: Any, defaults: Block, value: Any, path: str, report: Report, *, strict: bool) -> Any:
    """Override the fields that a member has."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        report.problem(path, f"must be a mapping, got {shorten(value)}")
        return old
    fields = dict(defaults if old is None else old)
    for key, leaf in value.items():
        if strict and key not in fields:
            hint = did_you_mean(key, fields)
            report.problem(join(path, str(key)), f"unknown field{hint}, accepted: {', '.join(fields)}")
        else:
            fields[key] = copy.copy(leaf)
    return fields


def _put_in_place(section: str, key: str, value: Any, selected: Any, block: Any, report: Report) -> None:
    """Move a field that stands beside the type into the block of that type, where it was meant to be."""
    place, inside = join(section, key), f"{section}.{selected}.{key}"
    defaults = SECTIONS[section].get(selected, {}) if isinstance(selected, str) else {}
    if not isinstance(block, dict) or key not in defaults:
        report.problem(place, _unknown_member(key, SECTIONS[section]))
        return
    if block[key] not in (defaults[key], value):
        report.problem(place, f"is {shorten(value)}, and {inside} is {shorten(block[key])}: give only one of them")
        return
    block[key] = value
    text = f"is read as {inside}; TensorFlow silently ignores a field beside the type"
    report.note(place, text, surprising=True)


def _unknown_member(key: object, members: Mapping[str, Any]) -> str:
    return f"unknown member{did_you_mean(key, members)}, accepted: {join_words(members)}"


def _ema(old: Any, value: Any, report: Report) -> Any:
    if isinstance(value, Mapping):
        return _block(old, EMA, value, "ema", report, strict=True)
    if value is not None:
        report.problem("ema", f"must be a mapping, or null for none, got {shorten(value)}")
    return None
