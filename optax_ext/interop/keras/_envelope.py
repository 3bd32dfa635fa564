"""What is in a config of Keras: which class it is of, and its fields."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from optax_ext._core.errors import did_you_mean, join_words, shorten
from optax_ext._core.schema import plain_numbers
from optax_ext.interop._keras_classes import (
    EMA_OPTIMIZER,
    LEFT_OUT,
    LOSS_SCALE_OPTIMIZERS,
    MOVING_AVERAGE,
    NEUTRAL,
    NEWER,
    NO_COUNTERPART,
    OF_NEWER_OPTIMIZERS,
    OF_OPTIMIZERS,
    OPTIMIZERS,
    SCHEDULES,
    WARM_UP,
    WARM_UP_FIELDS,
    KerasClass,
    Package,
)
from optax_ext.interop._report import Report, is_number, join
from optax_ext.interop.keras._packages import Origin, find_origin

_KEYS = {"class_name", "config", "module", "registered_name"}
# Keys beside these that say nothing about the class: of an older spelling, or of how Keras restores objects.
_NO_NUMBERS = {"module_name", "shared_object_id", "__passive_serialization__", "build_config"}
# Fields that a `get_config` has beside those of its class.
_COMMON = OF_OPTIMIZERS | OF_NEWER_OPTIMIZERS | NEUTRAL.keys()

_ONLY_NEWER = NEWER - {"weight_decay"}  # which tensorflow_addons has too
_BY_NAME_ALONE = ("LazyAdam", "SGDW")  # which have the fields of classes that are far more common
_OFTEN_MISSING = {"warmup_target", "schedule_decay"}


class Opened(NamedTuple):
    """What was in an envelope: a class, its fields, and the path to them."""

    origin: Origin
    fields: dict[str, Any]
    path: str


def open_envelope(
    data: Any, class_name: str | None, written_by: Package | None, path: str, report: Report
) -> Opened | None:
    """Open ``{"class_name": …, "config": …}``, a bare ``get_config`` or a name; return None if there is a problem."""
    if isinstance(data, str):  # as in compile(optimizer="adam"), which is one of the newer generation
        data = {"class_name": data, "config": {"jit_compile": True}}
    if not isinstance(data, Mapping):
        report.problem(path, f"must be a mapping with a 'class_name' and a 'config', got {shorten(data)}")
        return None
    if "class_name" not in data:
        name = class_name or _infer_class(data, path, report)
        if name is None:
            return None
        named, config, place_of_fields = {"class_name": name}, data, path
    else:
        named, config, place_of_fields = data, data.get("config"), join(path, "config")
        for key in data.keys() - _NO_NUMBERS:
            if key not in _KEYS:
                report.problem(join(path, str(key)), f"unknown field{did_you_mean(key, _KEYS)}")
        if config is not None and not isinstance(config, Mapping):
            report.problem(place_of_fields, f"must be a mapping, got {shorten(config)}")
            return None
    fields = {key: _unwrap(value) for key, value in (config or {}).items()}
    origin = find_origin(named, fields, written_by, join(path, "class_name"), report)
    return None if origin is None else Opened(origin, fields, place_of_fields)


def _infer_class(data: Mapping[str, Any], path: str, report: Report) -> str | None:
    """Return the one class that has all these fields and no others in its `get_config`, or the one in the `name`."""
    if wrapper := _infer_wrapper(data):
        return wrapper
    if WARM_UP_FIELDS[1] in data:
        return WARM_UP
    name = re.sub(r"_\d+$", "", str(data.get("name")).lower())  # Keras 3 counts: "adam_1"
    keys = data.keys() - _COMMON
    fits: list[str] = []
    named: list[str] = []
    for known, names, left_out in _candidates(data):
        if names - left_out <= keys <= names and known not in _BY_NAME_ALONE:
            fits.append(known)
        if known.lower() == name and keys <= names:
            named.append(known)
    fits = list(dict.fromkeys(named or fits))  # the name is by default that of the class
    if set(fits) == {"Adam", "AdamW"}:  # what tells them apart is that there is a weight decay
        fits = ["AdamW" if is_number(data.get("weight_decay")) else "Adam"]
    if not path and len(fits) == 2 and fits[1] == f"{fits[0]}WithOffset" and "offset" not in data:
        fits = fits[1:]  # the same but for the offset, about which there will be a warning
    if len(fits) == 1:
        return fits[0]
    which = f"its keys fit {join_words(fits)}" if fits else f"its keys fit no class, got {shorten(sorted(keys))}"
    text = f"the class cannot be inferred from a bare get_config: {which}; give it as"
    report.problem(path, f"{text} {{'class_name': …, 'config': …}}")
    return None


def _infer_wrapper(data: Mapping[str, Any]) -> str | None:
    if "inner_optimizer" in data or "loss_scale" in data:
        return LOSS_SCALE_OPTIMIZERS[0]
    if "optimizer" not in data:
        return None
    if "average_decay" in data:
        return MOVING_AVERAGE if "num_updates" in data or data.get("name") == MOVING_AVERAGE else EMA_OPTIMIZER
    return next((name for name in NO_COUNTERPART if name == data.get("name")), None)


def _candidates(data: Mapping[str, Any]) -> list[tuple[str, set[str], set[str]]]:
    """Return each class by its name, the fields that tell it, and those of them that its `get_config` may lack."""
    tables: dict[Package, dict[str, KerasClass]] = {package: dict(known) for package, known in OPTIMIZERS.items()}
    if _ONLY_NEWER & data.keys():
        tables = {"keras": tables["keras"]}
    tables["keras"] |= SCHEDULES
    return [
        (name, set(row.names().values()) - _COMMON, {*_OFTEN_MISSING, *LEFT_OUT.get((package, name), ())})
        for package, known in tables.items()
        for name, row in known.items()
    ]


def _unwrap(value: Any) -> Any:
    """Open what Keras 3 puts around a number that is a tensor or of NumPy, and around a tuple."""
    value = plain_numbers(value)
    kind = value.get("class_name") if isinstance(value, Mapping) else None
    if kind in ("__tensor__", "__numpy__") and isinstance(value.get("config"), Mapping):
        return value["config"].get("value")
    if kind == "__tuple__" and isinstance(value.get("items"), list | tuple):
        return [_unwrap(item) for item in value["items"]]
    return value
