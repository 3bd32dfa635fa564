"""Model Garden's recipes as ours."""

import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping
from typing import Any, cast

from optax_ext._core.errors import join_words, shorten
from optax_ext._core.public import public
from optax_ext._core.schema import Schema, init_fields
from optax_ext.config import DynamicLossScale, FixedLossScale, LossScale, OptimizationConfig, Optimizer, ParamsEma
from optax_ext.interop._keras_classes import BACKEND_EPSILON, CLIPS, PATTERN_FIELDS, clip_as_newer, note_clipping
from optax_ext.interop._model_garden_schema import EMA, NO_NUMBERS, RENAMED, SCHEMAS, SECTIONS, Block
from optax_ext.interop._overrides import Recipe, Section, read_recipe
from optax_ext.interop._patterns import read_patterns
from optax_ext.interop._report import Note, Report, is_number, join
from optax_ext.interop._yaml import read_mapping
from optax_ext.schedules import LinearWarmup, PolynomialWarmup, Schedule

Source = Mapping[str, Any] | str | os.PathLike[str]

_DTYPES = ("float32", "float16", "bfloat16")
_MISSING = "is missing"


@public
def from_model_garden(
    config: Source, base: Source | None = None, *, translate_patterns: bool = True
) -> OptimizationConfig:
    """Read a recipe of TensorFlow Model Garden.

    A Model Garden file is not a whole recipe: it overrides, leaf by leaf, the config of a Python experiment. Files
    that leave out what the experiment has need that config as ``base``. In each section ``type`` selects a member;
    other members are ignored but must be valid. ``ema: null`` and ``warmup: {type: null}`` turn these off.

    Args:
      config: An ``optimizer_config``, or a whole experiment with ``task``, ``trainer`` or ``runtime``, as a mapping
        or as the path of a YAML or JSON file.
      base: The experiment that it overrides, likewise; None for none.
      translate_patterns: Whether patterns that were written for TensorFlow's variable names are translated to fit
        JAX parameter paths: ``batch_normalization`` finds ``BatchNorm_0`` too, ``:0`` at the end of a name is dropped.

    Returns:
      The recipe, with dynamic loss scaling where the ``runtime`` says float16.

    Raises:
      ConfigError: If something is missing, unknown or out of range, or of a type that is not Model Garden's own or
        has nothing that corresponds, such as ``sgd_torch``, ``cosine_epoch`` and ``adafactor``; with everything that
        is wrong at once.

    Warns:
      TranslationWarning: Where TensorFlow silently does what nobody meant, and what was meant is done instead: a
        field beside the ``type`` is read, a text in place of a list of patterns is one pattern, not its letters.

    Examples:
      >>> from optax_ext import interop
      >>> recipe = interop.from_model_garden({
      ...     "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}},
      ...     "learning_rate": {"type": "cosine", "cosine": {"initial_learning_rate": 0.1, "decay_steps": 100}},
      ...     "warmup": {"type": "linear", "linear": {"warmup_steps": 10}},
      ... })
      >>> print(recipe.optimizer.learning_rate(5))
      0.048776414
    """
    recipe, notes = translate_model_garden(config, base, translate_patterns=translate_patterns)
    Report(notes=notes).warn(stacklevel=2)
    return recipe


def translate_model_garden(
    config: Source, base: Source | None = None, *, translate_patterns: bool = True
) -> tuple[OptimizationConfig, list[Note]]:
    """Return the recipe, and a note for everything that reads otherwise than it was written."""
    report = Report()
    own = read_mapping(config, "config")
    over = None if base is None else read_mapping(base, "base")
    recipe = read_recipe(own, over, report)
    rate = learning_rate(recipe, report)
    optimizer = _optimizer(recipe, rate, translate_patterns, report)
    ema = _ema(recipe.ema, report)
    loss_scale = _loss_scale(recipe.runtime, report)
    if base is None and any(problem.message.startswith(_MISSING) for problem in report.problems):
        report.problem("base", "is not given: a file overrides an experiment, and takes what it lacks from its config")
    subject = "Model Garden config" if isinstance(config, Mapping) else str(config)
    report.finish(subject)
    translated = OptimizationConfig(cast(Optimizer, optimizer), loss_scale=loss_scale, ema=ema)
    note_clipping(translated, "optimizer.adamw", report)
    return translated, report.notes


def learning_rate(recipe: Recipe, report: Report) -> float | Schedule:
    """Return the schedule with its warm-up; whatever it is where there was a problem."""
    schedule = 0.0
    selected = _selected("learning_rate", recipe, report)
    if selected:
        member, block = selected
        schedule = _build("learning_rate", member, block, {}, report) or 0.0
        if member == "constant" and schedule:
            schedule = cast(Any, schedule).learning_rate
    selected = _selected("warmup", recipe, report)
    if not selected:
        return schedule
    member, block = selected
    warmup = _build("warmup", member, block, {"after": schedule}, report)
    if isinstance(warmup, LinearWarmup | PolynomialWarmup) and warmup.warmup_steps == 0:
        report.note("warmup", "has no steps, and is left out")
        return schedule
    return cast(Any, warmup) or schedule


def _selected(name: str, recipe: Recipe, report: Report) -> tuple[str, Block] | None:
    """Return the selected member of a section and its fields; None if there is none, or not a valid one."""
    section = recipe.sections[name]
    if section.type is None:
        _without_type(name, section, recipe.has_base, report)
        return None
    known, place = SECTIONS[name], f"{name}.type"
    if not isinstance(section.type, str) or section.type not in known:
        near = difflib.get_close_matches(str(section.type), known, n=1, cutoff=0.85)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        text = f"{shorten(section.type)} is not a type of Model Garden's own{hint}, but of some project of its or yours"
        report.problem(place, f"{text}: cannot be carried, accepted: {join_words(SCHEMAS[name])}")
        return None
    if section.type not in SCHEMAS[name]:  # Optax's Adafactor has other arithmetic, and nothing here is like SLIDE
        text = f"{section.type!r} has no counterpart with TensorFlow's numbers, accepted: {join_words(SCHEMAS[name])}"
        report.problem(place, text)
        return None
    block = section.members[section.type]
    if not isinstance(block, dict):
        if block is None:
            report.problem(join(name, section.type), "is null, as which TensorFlow takes it for no type at all")
        return None
    return section.type, cast(Block, block)


def _without_type(name: str, section: Section, has_base: bool, report: Report) -> None:
    """Say that a type is missing; a warm-up may do without."""
    blocks = [member for member in section.members_given if section.members.get(member) is not None]
    if name == "warmup" and (section.type_given or not blocks):
        return
    if name == "warmup" and has_base:
        text = f"{join_words(blocks)} is ignored, as in TensorFlow, since no type selects it: there is no warm-up"
        report.note(name, text, surprising=True)
        return
    beside = f" (a block {blocks[0]!r} alone does not select it)" if blocks else ""
    report.problem(f"{name}.type", _MISSING + beside)
    if len(blocks) == 1 and blocks[0] in SCHEMAS[name]:  # which it will most likely select
        for key in _missing(SCHEMAS[name][blocks[0]], section.members[blocks[0]], ("learning_rate", "after")):
            report.problem(f"{name}.{blocks[0]}.{key}", _MISSING)


def _build(name: str, member: str, block: Block, given: Mapping[str, Any], report: Report) -> Any:
    """Build the schema of a member of its fields; what is missing is a problem, what is null the schema's default."""
    schema, path = SCHEMAS[name][member], f"{name}.{member}"
    ours = {RENAMED.get(key, key): value for key, value in block.items() if key not in NO_NUMBERS}
    defaults = SECTIONS[name][member]
    missing = _missing(schema, ours, given)
    for key in missing:
        report.problem(join(path, key), _MISSING)
    names = {ours: theirs for theirs, ours in RENAMED.items() if theirs in block}
    unknown = ours.keys() - {field.name for field in init_fields(schema)}
    for key in sorted(unknown):  # which a base brought, that is not strict
        report.problem(join(path, names.get(key, key)), f"unknown field, accepted: {', '.join(defaults)}")
    fields = {
        key: value if key in PATTERN_FIELDS else _number(value)
        for key, value in ours.items()
        if key not in unknown and (value is not None or defaults.get(names.get(key, key), 0) is not None)
    }
    if missing or unknown:
        return None
    return report.build(schema, {**fields, **given}, path, names)


def _missing(schema: type[Schema], block: Block, given: Iterable[str]) -> list[str]:
    """Return the fields of a block that have no value, which the schema requires and does not get otherwise."""
    required = {field.name for field in init_fields(schema) if field.default is dataclasses.MISSING} - set(given)
    return [key for key in block if key in required and block[key] is None]


def _number(value: Any) -> Any:
    """Read text such as `1e-4`, which YAML 1.1 does not take for a number and Model Garden does."""
    if isinstance(value, list | tuple):
        return [_number(item) for item in value]
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            pass
    return value


def _optimizer(recipe: Recipe, rate: Any, translate: bool, report: Report) -> Optimizer | None:
    selected = _selected("optimizer", recipe, report)
    if not selected:
        return None
    member, block = selected
    path = f"optimizer.{member}"
    block = {key: value for key, value in block.items() if not (key in CLIPS and value is None)}
    newer = member.endswith("_experimental")
    for key in ("clipnorm", "clipvalue", "global_clipnorm", "gradient_clip_norm"):
        norm = _number(block.get(key))
        if is_number(norm) and norm < 0 and key != "clipvalue" and not newer:
            report.note(join(path, key), f"{shorten(norm)} means no clipping")
            if key == "gradient_clip_norm":
                block[key] = 0.0
            else:
                del block[key]
    if newer:
        block |= {key: _number(block.get(key)) for key in CLIPS}
        clip_as_newer(block, path, report)
        block = {key: value for key, value in block.items() if not (key in CLIPS and value is None)}
    elif "epsilon" in block:
        epsilon = _number(block["epsilon"])
        if epsilon is None or (is_number(epsilon) and epsilon == 0):
            report.note(join(path, "epsilon"), f"{shorten(epsilon)} means {BACKEND_EPSILON}, as in TensorFlow")
            block["epsilon"] = BACKEND_EPSILON
    given: dict[str, Any] = {"learning_rate": rate}
    if member == "adamw_experimental":
        given["gradient_clip_norm"] = 0.0  # which is not that class's
    if member == "adamw" and "gradient_clip_norm" in block and block["gradient_clip_norm"] == 1:
        report.note(join(path, "gradient_clip_norm"), "is 1.0, by which adamw clips unless told otherwise")
    for key in PATTERN_FIELDS & block.keys():
        if isinstance(block[key], list | tuple) and not block[key]:
            block[key] = None  # an empty list falls back like None
    include = block.get("include_in_weight_decay")
    for key in sorted(PATTERN_FIELDS & block.keys()):
        if block[key] is not None:
            block[key] = read_patterns(block[key], join(path, key), report, translate=translate)
    if include is not None and not block["exclude_from_weight_decay"]:
        block["exclude_from_weight_decay"] = _exclude_the_rest(include, join(path, "include_in_weight_decay"), report)
    optimizer = _build("optimizer", member, block, given, report)
    return optimizer if isinstance(optimizer, Optimizer) else None


def _exclude_the_rest(include: Any, path: str, report: Report) -> list[str] | None:
    """Return what a list of what decays excludes that stands alone: nothing, unless it could not have been meant so."""
    if isinstance(include, str):
        text = "nothing else decays: '.*' is added to exclude_from_weight_decay; in TensorFlow everything decays"
        report.note(path, text, surprising=True)
        return [".*"]
    text = "has no effect, as in TensorFlow: while exclude_from_weight_decay excludes nothing, everything decays"
    report.note(path, text, surprising=True)
    return None


def _ema(block: Any, report: Report) -> ParamsEma | None:
    if block is None:
        return None
    for key in CLIPS:
        if block.get(key) is not None:
            text = f"cannot be carried, got {shorten(block[key])}: clipping is the optimizer's"
            report.problem(f"ema.{key}", text)
    fields = {key: _number(value) for key, value in block.items() if key not in (*CLIPS, "name") and key in EMA}
    return report.build(ParamsEma, fields, "ema", {})


def _loss_scale(runtime: Block, report: Report) -> LossScale | None:
    dtype, value = runtime["mixed_precision_dtype"], _number(runtime["loss_scale"])
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
