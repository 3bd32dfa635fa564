"""What is in effect in Model Garden's recipe, under Keras's names, as ours."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from optax_ext._core.errors import join_words, shorten
from optax_ext._core.schema import init_fields
from optax_ext.config import DynamicLossScale, FixedLossScale, LossScale, Optimizer, ParamsEma
from optax_ext.interop._keras_classes import package_in_recipe
from optax_ext.interop._keras_quirks import Arguments, build_optimizer
from optax_ext.interop._patterns import PATTERN_FIELDS
from optax_ext.interop._report import PLACEHOLDER_RATE, Report, is_number, join
from optax_ext.interop.model_garden._numbers import read_number
from optax_ext.interop.model_garden._overrides import Recipe, Section
from optax_ext.interop.model_garden._sections import (
    AFTER,
    CLIPPING,
    EMA,
    MEMBERS,
    NO_NUMBERS,
    SECTIONS,
    Block,
    Member,
)
from optax_ext.schedules import Constant, LinearWarmup, PolynomialWarmup, Schedule

_DTYPES = ("float32", "float16", "bfloat16")
MISSING = "is missing"


class Selected(NamedTuple):
    """The selected member of a section, its fields, and the path to them."""

    member: Member
    block: Block
    defaults: Block
    path: str


def read_learning_rate(recipe: Recipe, report: Report) -> float | Schedule:
    """Return the schedule with its warm-up; whatever it is where there was a problem."""
    selected = _selected("learning_rate", recipe, report)
    read = selected and _schedule(selected, {}, report)
    rate: float | Schedule = PLACEHOLDER_RATE if read is None else read
    selected = _selected("warmup", recipe, report)
    warmed_up = selected and _schedule(selected, {AFTER: rate}, report)
    if isinstance(warmed_up, LinearWarmup | PolynomialWarmup) and warmed_up.warmup_steps == 0:
        report.note("warmup", "has no steps and is left out")
        return rate
    return rate if warmed_up is None else warmed_up


def read_optimizer(
    recipe: Recipe, rate: float | Schedule, translate_patterns: bool, report: Report
) -> tuple[Optimizer | None, str]:
    """Return the optimizer, None if there was a problem, and its path."""
    selected = _selected("optimizer", recipe, report)
    values = selected and _values(selected, {"learning_rate": rate}, report)
    if selected is None or values is None:
        return None, ""
    name, newer = selected.member
    arguments = Arguments(
        name,
        package_in_recipe(name),
        values,
        selected.path,
        report,
        newer=newer,
        in_recipe=True,
        translate_patterns=translate_patterns,
    )
    return build_optimizer(arguments), selected.path


def read_ema(block: Any, report: Report) -> ParamsEma | None:
    """Return the moving average, if there is one."""
    if block is None:
        return None
    for key in CLIPPING:
        if block.get(key) is not None:
            text = f"cannot be carried over, got {shorten(block[key])}: set it for the optimizer"
            report.problem(f"ema.{key}", text)
    fields = {key: read_number(value) for key, value in block.items() if key not in (*CLIPPING, "name") and key in EMA}
    return report.build(ParamsEma, fields, "ema", {})


def read_loss_scale(runtime: Block, report: Report) -> LossScale | None:
    """Return the loss scale of a runtime, which has one only with float16."""
    dtype, value = runtime["mixed_precision_dtype"], read_number(runtime["loss_scale"])
    if dtype is not None and dtype not in _DTYPES:
        text = f"must be one of {join_words(_DTYPES)} or null, got {shorten(dtype)}"
        report.problem("runtime.mixed_precision_dtype", text)
    if value is not None and value != "dynamic" and not is_number(value):
        report.problem("runtime.loss_scale", f"must be 'dynamic', a number or null, got {shorten(value)}")
        return None
    if dtype != "float16":
        if value is not None:
            text = f"{shorten(value)} is ignored, as in TensorFlow, since mixed_precision_dtype is {shorten(dtype)}"
            report.note("runtime.loss_scale", text)
        return None
    if value is None:
        report.note("runtime.loss_scale", "is dynamic, as in TensorFlow, since mixed_precision_dtype is 'float16'")
    if value in (None, "dynamic"):
        return DynamicLossScale()
    return report.build(FixedLossScale, {"scale": value}, "runtime", {"scale": "loss_scale"})


def _schedule(selected: Selected, given: Mapping[str, Any], report: Report) -> Any:
    values = _values(selected, given, report)
    if values is None:
        return None
    schedule = selected.member.keras_class.build(values, selected.path, report)
    return schedule.learning_rate if isinstance(schedule, Constant) else schedule


def _selected(name: str, recipe: Recipe, report: Report) -> Selected | None:
    """Return the selected member of a section; None if there is none, or not a valid one."""
    section = recipe.sections[name]
    if section.type is None:
        _report_no_type(name, section, recipe.has_base, report)
        return None
    known, carried, place = SECTIONS[name], join_words(MEMBERS[name]), f"{name}.type"
    if not isinstance(section.type, str) or section.type not in known:
        near = difflib.get_close_matches(str(section.type), known, n=1, cutoff=0.85)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        text = f"{shorten(section.type)} is not one of Model Garden's own types{hint}"
        text = f"{text}, and what a project's own computes is not known here: write the same as one of {carried}"
        report.problem(place, f"{text}, with a block of that name")
        return None
    if section.type not in MEMBERS[name]:  # Optax's Adafactor has other arithmetic, and nothing here is like SLIDE
        text = f"{section.type!r} has no counterpart that returns TensorFlow's numbers"
        text = f"{text}: choose one of {carried}, with a block of that name"
        report.problem(place, text)
        return None
    block, path = section.members[section.type], f"{name}.{section.type}"
    if block is None:
        report.problem(path, "is null, which TensorFlow treats as if no type were selected")
    if not isinstance(block, dict):
        return None
    return Selected(MEMBERS[name][section.type], block, known[section.type], path)


def _report_no_type(name: str, section: Section, has_base: bool, report: Report) -> None:
    """Say that a type is missing; a warm-up may do without."""
    blocks = [member for member in section.members_given if section.members.get(member) is not None]
    if name == "warmup" and (section.type_given or not blocks):
        return
    if name == "warmup" and has_base:
        are, them = ("is", "it") if len(blocks) == 1 else ("are", "them")
        text = f"{join_words(blocks)} {are} ignored, as in TensorFlow, since no type selects {them}"
        report.note(name, f"{text}: there is no warm-up", surprising=True)
        return
    beside = f" (the block {blocks[0]!r} alone does not select it)" if blocks else ""
    report.problem(f"{name}.type", MISSING + beside)
    if len(blocks) == 1 and blocks[0] in MEMBERS[name]:  # which it will most likely select
        member = MEMBERS[name][blocks[0]]
        for key in _missing(member, section.members[blocks[0]], ("learning_rate", AFTER)):
            report.problem(f"{name}.{blocks[0]}.{key}", MISSING)


def _values(selected: Selected, given: Mapping[str, Any], report: Report) -> dict[str, Any] | None:
    """Return the arguments of a member, `given` ones included, under Keras's names; None if there is a problem."""
    member, block, defaults, path = selected
    missing = _missing(member, block, given)
    for key in missing:
        report.problem(join(path, key), MISSING)
    names = member.keras_class.names().values()
    unknown = sorted(block.keys() - names - NO_NUMBERS)
    for key in unknown:  # which a base brought: that is not strict
        report.problem(join(path, key), f"unknown field, accepted: {', '.join(defaults)}")
    if missing or unknown:
        return None
    values = {
        key: value if key in PATTERN_FIELDS else read_number(value)
        for key, value in block.items()
        # Null is an argument that is not given where that is Model Garden's default, and an error elsewhere.
        if key not in NO_NUMBERS and (value is not None or defaults.get(key, 0) is not None)
    }
    return {**values, **given}


def _missing(member: Member, block: Block, given: Iterable[str]) -> list[str]:
    """Return the fields of a block that have no value, which the class requires and does not get otherwise."""
    known = member.keras_class
    names, fields = known.names(), init_fields(known.schema)
    required = {names[field.name] for field in fields if field.default is dataclasses.MISSING} - set(given)
    return [key for key in block if key in required and block[key] is None]
