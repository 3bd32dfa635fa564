"""Who wrote a mapping: Keras, Model Garden or we; told by its keys alone, the same for every reader."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

# A "get_config" is a config of Keras without its class.
Foreign: TypeAlias = Literal["keras", "get_config", "model_garden"]

_RATES = {"learning_rate", "lr", "initial_learning_rate", "boundaries"}  # of Keras's optimizers and schedules
_EXPERIMENT = ("task", "trainer", "runtime", "optimizer_config")  # the parts of Model Garden's experiments
_SECTIONS = ("optimizer", "learning_rate", "warmup")  # the parts of Model Garden's recipes
# Model Garden's types of rates and warm-ups. Of these, only "constant" is also a type of ours.
_MEMBERS = ("constant", "cosine", "exponential", "linear", "polynomial", "power", "power_linear", "stepwise")


def foreign_writer(data: Mapping[str, Any]) -> Foreign | None:
    """Return who wrote a mapping as a whole; None if it is ours, or nobody's that is known."""
    if "class_name" in data:
        return "keras"
    if "type" in data:
        return None
    if any(_has_block(data.get(name)) for name in _SECTIONS):
        return "model_garden"
    if "optimizer" in data:
        return "model_garden" if _is_split(data) else None
    # Keras also has an `optimizer_config`: in what it saves about the training of a model.
    if any(isinstance(data.get(name), Mapping) and "class_name" not in data[name] for name in _EXPERIMENT):
        return "model_garden"
    if any(_type_of(data.get(name)) in _MEMBERS[1:] for name in ("learning_rate", "warmup")):
        return "model_garden"
    return "get_config" if isinstance(data.get("name"), str) and _RATES & data.keys() else None


def is_serialized(data: Mapping[str, Any]) -> bool:
    """Whether this is what `serialize` of Keras returns."""
    return "class_name" in data and "config" in data


def _has_block(section: Any) -> bool:
    """Whether a section of a recipe has a block of fields for the type that it names, or, without a type, for one."""
    if not isinstance(section, Mapping):
        return False
    names = [section["type"]] if isinstance(section.get("type"), str) else _MEMBERS
    return any(isinstance(section.get(name), Mapping) for name in names)


def _is_split(data: Mapping[str, Any]) -> bool:
    """Whether the learning rate or its warm-up stands beside the optimizer, as in Model Garden, rather than in it."""
    optimizer = data["optimizer"]
    if not isinstance(optimizer, Mapping) or {"learning_rate", "class_name"} & optimizer.keys():
        return False
    beside = [data[name] for name in ("learning_rate", "warmup") if isinstance(data.get(name), Mapping)]
    return any("class_name" not in section and _type_of(section) in (None, *_MEMBERS) for section in beside)


def _type_of(section: Any) -> Any:
    return section.get("type") if isinstance(section, Mapping) else None
