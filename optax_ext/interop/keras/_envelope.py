"""Which class a config of Keras is of, and its fields."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from optax_ext._core.errors import did_you_mean, join_words, shorten
from optax_ext.interop._keras_classes import (
    EMA_OPTIMIZER,
    LEFT_OUT,
    LOSS_SCALE_OPTIMIZERS,
    NEUTRAL,
    NO_COUNTERPART,
    OPTIMIZERS,
    SCHEDULES,
    WRAPPERS,
)
from optax_ext.interop._report import Report, is_number, join

_KEYS = {"class_name", "config", "module", "registered_name"}
_PACKAGES = frozenset({"Addons", "Custom", "Keras", "Text", "keras", "builtins"})  # whose names stand before a ">"
_OTHER_SPELLINGS = {"Sgd": "SGD", "Rmsprop": "RMSprop", "RMSProp": "RMSprop", "AdaGrad": "Adagrad"}
_OF_EVERY_OPTIMIZER = {"learning_rate", "lr", "decay", "clipnorm", "clipvalue", "global_clipnorm"}


class Opened(NamedTuple):
    """What was in an envelope: the name of a known class, its fields, and the path to them."""

    class_name: str
    fields: dict[str, Any]
    path: str


def open_envelope(data: Any, class_name: str | None, path: str, report: Report) -> Opened | None:
    """Open ``{"class_name": …, "config": …}``, or a bare ``get_config``; return None if there is a problem."""
    if not isinstance(data, Mapping):
        report.problem(path, f"must be a mapping with a 'class_name' and a 'config', got {shorten(data)}")
        return None
    if "class_name" not in data:
        name = class_name or _infer_class(data, path, report)
        config, place_of_fields, place_of_name = data, path, join(path, "class_name")
        if name is None:
            return None
    else:
        name, config = data["class_name"], data.get("config")
        place_of_fields, place_of_name = join(path, "config"), join(path, "class_name")
        for key in data:
            if key not in _KEYS:
                report.problem(join(path, str(key)), f"unknown field{did_you_mean(key, _KEYS)}")
        if config is not None and not isinstance(config, Mapping):
            report.problem(place_of_fields, f"must be a mapping, got {shorten(config)}")
            return None
    name = _known_class(name, data.get("registered_name"), place_of_name, report)
    if name is None:
        return None
    return Opened(name, {key: _unwrap(value) for key, value in (config or {}).items()}, place_of_fields)


def _known_class(name: Any, registered_name: Any, place: str, report: Report) -> str | None:
    """Return the name of a class as the tables have it; None if it is in none of them."""
    for written in (name, registered_name):
        package = written.rpartition(">")[0] if isinstance(written, str) else ""
        if package and package not in _PACKAGES:
            text = f"{written!r} is a class of another package: what it computes is not known here"
            report.problem(place, text)
            return None
    if isinstance(name, str):
        name = name.rpartition(">")[2]  # "Addons>LAMB"
        name = _OTHER_SPELLINGS.get(name, name)
    known = [*SCHEDULES, *OPTIMIZERS, *WRAPPERS]
    if isinstance(name, str) and name in known:
        return name
    if isinstance(name, str) and name in NO_COUNTERPART:
        report.problem(place, f"{name} has no counterpart here, accepted: {join_words(OPTIMIZERS)}")
    else:
        hint = did_you_mean(name, known)
        report.problem(place, f"unknown class {shorten(name)}{hint}, accepted: {join_words(known)}")
    return None


def _infer_class(data: Mapping[str, Any], path: str, report: Report) -> str | None:
    """Return the one class that has all these fields and no others in its `get_config`, or the one in the `name`."""
    if "inner_optimizer" in data or "loss_scale" in data:
        return LOSS_SCALE_OPTIMIZERS[0]
    if "optimizer" in data and "average_decay" in data:
        return EMA_OPTIMIZER
    common = _OF_EVERY_OPTIMIZER | NEUTRAL.keys()
    keys = data.keys() - common
    fits: list[str] = []
    named: list[str] = []
    for name, known in {**SCHEDULES, **OPTIMIZERS}.items():
        names = set(known.names().values()) - common
        if names - {"warmup_target", *LEFT_OUT.get(name, ())} <= keys <= names:
            fits.append(name)
        if name.lower() == str(data.get("name")).lower() and keys <= names:
            named.append(name)
    fits = fits or named  # a part of a `get_config`, written by hand; the name is by default that of the class
    if "AdamW" in fits:  # what tells it from Adam of the newer generation is that there is a weight decay
        fits = ["AdamW" if is_number(data.get("weight_decay")) else "Adam"]
    if not path and len(fits) == 2 and fits[1] == f"{fits[0]}WithOffset" and "offset" not in data:
        fits = fits[1:]  # the same but for the offset, about which there will be a warning
    if data.get("name") in fits:
        fits = [data["name"]]
    if len(fits) == 1:
        return fits[0]
    which = f"its keys fit {join_words(fits)}" if fits else f"its keys fit no class, got {shorten(sorted(keys))}"
    text = f"the class cannot be inferred from a bare get_config: {which}; give it as"
    report.problem(path, f"{text} {{'class_name': …, 'config': …}}")
    return None


def _unwrap(value: Any) -> Any:
    """Open what Keras 3 puts around a number that is a tensor or of NumPy, and around a tuple."""
    kind = value.get("class_name") if isinstance(value, Mapping) else None
    if kind in ("__tensor__", "__numpy__") and isinstance(value.get("config"), Mapping):
        return value["config"].get("value")
    if kind == "__tuple__" and isinstance(value.get("items"), list | tuple):
        return [_unwrap(item) for item in value["items"]]
    return value
