"""Whose class a config of Keras names, by what it says, else by who wrote it, else by what real files mostly are."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from optax_ext._core.errors import did_you_mean, join_words, shorten
from optax_ext.interop._keras_classes import (
    EMA_OPTIMIZER,
    LOSS_SCALE_OPTIMIZERS,
    MOVING_AVERAGE,
    NEWER,
    NEWER_KERAS,
    NO_COUNTERPART,
    OF_NEWER_OPTIMIZERS,
    OF_OPTIMIZERS,
    OPTIMIZERS,
    SCHEDULES,
    WARM_UP,
    WARM_UP_FIELDS,
    WRAPPERS,
    Package,
)
from optax_ext.interop._report import Report

# What stands before a ">" in the name of a registered class; None says nothing. Keras's own newer optimizers are
# "Custom" from TensorFlow 2.11 to 2.15.
_REGISTERED: dict[str, Package | None] = {
    "Addons": "tensorflow_addons",
    "Custom": None,
    "Keras": "keras",
    "Text": None,
    "builtins": None,
    "keras": "keras",
}
# The first part of the name of a module.
_MODULES: dict[str, Package | None] = {
    "builtins": None,
    "keras": "keras",
    "keras_core": "keras",
    "official": "model_garden",
    "tensorflow": "keras",
    "tensorflow_addons": "tensorflow_addons",
    "tensorflow_models": "model_garden",
    "tf_keras": "keras",
    "transformers": "transformers",
}
# What Keras ignores the case of, and one that it does not.
_SPELLINGS = {name.lower(): name for name in (*NEWER_KERAS, LOSS_SCALE_OPTIMIZERS[0])}

_READ_AS_TRANSFORMERS = {
    "AdamWeightDecay": "never clips gradients; Model Garden's clips them to a norm of 1.0",
    WARM_UP: "starts the schedule after the warm-up at its end; Model Garden's starts it at step 0",
}


def _homes() -> dict[str, list[Package]]:
    """Return the packages that have a class of a name, for each name, in the order in which they are tried."""
    found: dict[str, list[Package]] = {name: ["keras"] for name in (*SCHEDULES, *WRAPPERS)}
    found |= {WARM_UP: ["transformers", "model_garden"], MOVING_AVERAGE: ["tensorflow_addons"]}
    found[EMA_OPTIMIZER] = ["model_garden"]
    for package, names in OPTIMIZERS.items():
        for name in names:
            found.setdefault(name, []).append(package)
    return found


_HOMES = _homes()


class Origin(NamedTuple):
    """A class: its name, whose it is, and for Keras's whether it is of the newer generation."""

    class_name: str
    package: Package
    newer: bool


def find_origin(
    data: Mapping[str, Any], fields: Mapping[str, Any], written_by: Package | None, place: str, report: Report
) -> Origin | None:
    """Return the class that a config names; None, with a problem in the report, if it is not known here.

    Args:
      data: The ``class_name``, with a ``module`` and a ``registered_name`` or without.
      fields: The fields of the class.
      written_by: Who wrote the config, if somebody knows.
      place: Where the name of the class is written.
      report: What collects problems and notes.
    """
    name = data["class_name"]
    if name == "__lambda__":
        report.problem(place, "is Python code, which is not read: write down the schedule that it computes")
        return None
    if not isinstance(name, str):
        return _unknown(name, place, report)
    said = _who_says(data, place, report)
    if said is _FOREIGN:
        return None
    name = name.rpartition(">")[2]  # "Addons>LAMB"
    if name not in _HOMES:
        name = _SPELLINGS.get(name.lower(), name)
    if name in NO_COUNTERPART:
        report.problem(place, f"{name} {NO_COUNTERPART[name]}")
        return None
    if name not in _HOMES:
        return _unknown(name, place, report)
    package = _package(name, fields, said, written_by, place, report)
    return Origin(name, package, package == "keras" and _is_newer(data, fields))


_FOREIGN: Any = object()


def _who_says(data: Mapping[str, Any], place: str, report: Report) -> Package | None:
    """Return whose class a config says that it names; None if it does not say."""
    for written in (data["class_name"], data.get("registered_name")):
        registered = written.rpartition(">")[0] if isinstance(written, str) else ""
        if registered and registered not in _REGISTERED:
            report.problem(place, f"{written!r} is a class of another package: what it computes is not known here")
            return _FOREIGN
        if registered and _REGISTERED[registered] is not None:
            return _REGISTERED[registered]
    module = data.get("module") or data.get("module_name")
    if not isinstance(module, str):
        return None
    root = module.partition(".")[0]
    if root not in _MODULES:
        text = f"{data['class_name']!r} is a class of the module {module!r}: what it computes is not known here"
        report.problem(place, text)
        return _FOREIGN
    return _MODULES[root]


def _is_newer(data: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    """Return whether a class of Keras is of the newer generation; others' derive from the older one."""
    module = str(data.get("module") or data.get("module_name") or "")
    is_in_newer_module = module.startswith("keras.optimizers") and "legacy" not in module
    return bool(NEWER & fields.keys()) or str(data["class_name"]).startswith("Custom>") or is_in_newer_module


def _package(
    name: str, fields: Mapping[str, Any], said: Package | None, written_by: Package | None, place: str, report: Report
) -> Package:
    homes = _HOMES[name]
    if name == "LAMB" and said == "tensorflow_addons":
        said = None  # as Model Garden registers its own, which has one field by another name
    if said is not None and said in homes:
        return said
    fits: list[Package] = [home for home in homes if _has_fields(home, name, fields)] or homes
    for told in (written_by, _of_schedule(fields)):
        if told is not None and told in fits:
            return told
    package = fits[0]
    if package == "transformers" and len(fits) > 1:
        text = f"is read as transformers' {name}, which {_READ_AS_TRANSFORMERS[name]}"
        how = "written_by='model_garden', or convert --from model-garden, reads it so"
        report.note(place, f"{text}: {how}", surprising=True)
    return package


def _of_schedule(fields: Mapping[str, Any]) -> Package | None:
    """Return whose the schedule of an optimizer is: where packages share a name, it is most likely of the same one."""
    schedule = fields.get("learning_rate")
    while isinstance(schedule, Mapping):
        module = str(schedule.get("module") or schedule.get("module_name") or "")
        package = _MODULES.get(module.partition(".")[0])
        if package in ("transformers", "model_garden"):
            return package
        known = SCHEDULES.get(str(schedule.get("class_name")))
        if known is not None and "offset" not in known.lacks:  # as all of Keras's own do
            return "model_garden"
        inside = schedule.get("config")
        schedule = inside.get(WARM_UP_FIELDS[1]) if isinstance(inside, Mapping) else None
    return None


def _has_fields(package: Package, name: str, fields: Mapping[str, Any]) -> bool:
    if name not in OPTIMIZERS[package]:
        return True
    if package == "keras" and isinstance(fields.get("weight_decay"), Mapping):
        return False  # a schedule, which only tensorflow_addons takes
    of_base = OF_NEWER_OPTIMIZERS | {"is_legacy_optimizer"} if package == "keras" else {"decay"}
    return fields.keys() <= {*OPTIMIZERS[package][name].names().values(), "name", *OF_OPTIMIZERS, *of_base}


def _unknown(name: object, place: str, report: Report) -> None:
    report.problem(place, f"unknown class {shorten(name)}{did_you_mean(name, _HOMES)}, accepted: {join_words(_HOMES)}")
