"""Who wrote a mapping: Keras, Model Garden, PyTorch's or we; told by its keys alone, the same for every reader."""

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from optax_ext._core.pytorch_writers import pytorch_writer

# A "get_config" is a config of Keras without its class, which nothing in it tells.
Foreign: TypeAlias = Literal["keras", "get_config", "model_garden", "training_arguments", "timm"]

_RATES = {"learning_rate", "lr", "initial_learning_rate", "boundaries"}  # of Keras's optimizers and schedules
# The classes of Keras, transformers and tensorflow_addons: a `get_config` has its class as its name. Keras 3 writes it
# in lower case, with underscores, and counts equal names, as in `adam_1`.
_CLASS = re.compile(
    "(?:ada(?:delta|factor|grad|max)|adam(?:w|weightdecay)?|cocob|conditionalgradient|ftrl|lamb|lars|lazyadam|lion"
    "|lookahead|lossscaleoptimizer|movingaverage|multioptimizer|muon|nadam|novograd|proximaladagrad|rectifiedadam"
    "|rmsprop|schedulefreeadamw|sgdw?|stochasticweightaveraging|swa|yogi"
    "|(?:cosinedecay|cosinedecayrestarts|directpowerdecay|exponentialdecay|inversetimedecay|piecewiseconstantdecay"
    "|polynomialdecay|powerandlineardecay|powerdecay|stepcosinedecay)(?:withoffset)?|(?:linear|polynomial)?warmup)[0-9]*"
)
# What optimizers of Keras have and those of ours do not, which have many of its other fields.
_ONLY_KERAS = {"lr", "ema_overwrite_frequency", "is_legacy_optimizer", "jit_compile", "loss_scale_factor", "use_ema"}
# What stands beside the `optimizer` in a `get_config` of an optimizer around an optimizer.
_WRAPPER = {"average_decay", "average_period", "loss_scale", "slow_step_size", "start_averaging", "sync_period"}
_EXPERIMENT = ("task", "trainer", "runtime", "optimizer_config")  # the parts of Model Garden's experiments
_SECTIONS = ("optimizer", "learning_rate", "warmup")  # the parts of Model Garden's recipes
# Model Garden's types of rates and warm-ups. Of these, only "constant" is also a type of ours.
_MEMBERS = ("constant", "cosine", "exponential", "linear", "polynomial", "power", "power_linear", "stepwise")


def foreign_writer(data: Any) -> Foreign | None:
    """Return who wrote data as a whole; None if it is ours, or nobody's that is known."""
    if isinstance(data, str):
        return "keras" if _is_class(data) else None
    if not isinstance(data, Mapping):
        return None
    if "class_name" in data or _is_wrapper(data):
        return "keras"
    if "type" in data:
        return None
    if (pytorch := pytorch_writer(data)) is not None:
        return pytorch
    if any(_has_block(data.get(name)) for name in _SECTIONS):
        return "model_garden"
    if "optimizer" in data:
        return "model_garden" if _is_split(data) or _has_block(_optimizer_inside(data)) else None
    # Keras also has an `optimizer_config`: in what it saves about the training of a model.
    if any(isinstance(data.get(name), Mapping) and "class_name" not in data[name] for name in _EXPERIMENT):
        return "model_garden"
    if any(_type_of(data.get(name)) in _MEMBERS[1:] for name in ("learning_rate", "warmup")):
        return "model_garden"
    return _writer_of_fields(data)


def is_serialized(data: Mapping[str, Any]) -> bool:
    """Whether this is what `serialize` of Keras returns."""
    return "class_name" in data and "config" in data


def _is_class(name: Any) -> bool:
    """Whether this is a class of Keras, in any spelling."""
    return isinstance(name, str) and _CLASS.fullmatch(name.replace("_", "").lower()) is not None


def _is_wrapper(data: Mapping[str, Any]) -> bool:
    """Whether this is the `get_config` of an optimizer around another one, whose class its keys tell."""
    if _is_of_class(data.get("inner_optimizer")):
        return True
    return _is_of_class(data.get("optimizer")) and (_is_class(data.get("name")) or bool(_WRAPPER & data.keys()))


def _writer_of_fields(data: Mapping[str, Any]) -> Foreign | None:
    """Return the writer of the fields of an optimizer or a schedule without its class."""
    if not _RATES & data.keys():
        return None
    if _is_class(data.get("name")):
        return "keras"
    rates = (data.get(name) for name in ("learning_rate", "lr"))
    return "get_config" if _ONLY_KERAS & data.keys() or any(map(_is_of_class, rates)) else None


def _is_of_class(section: Any) -> bool:
    return isinstance(section, Mapping) and "class_name" in section


def _optimizer_inside(data: Mapping[str, Any]) -> Any:
    """Return the section `optimizer` in the section `optimizer`, where a project of Model Garden has it."""
    return data["optimizer"].get("optimizer") if isinstance(data["optimizer"], Mapping) else None


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
