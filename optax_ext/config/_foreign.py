"""What Keras and Model Garden write, told from our configs by its keys. What it holds is for the importers to read."""

from collections.abc import Iterator, Mapping
from typing import Any

from optax_ext._core.errors import ConfigError, Problem, join_keys

_EXPERIMENT = {"task", "trainer", "runtime", "optimizer_config"}  # Model Garden's
_RATES = {"learning_rate", "initial_learning_rate", "boundaries"}  # of Keras's optimizers and schedules
_TRANSLATE = "translate it with `optax-ext convert {options}FILE`, or in Python with interop.{function}"


def refuse_foreign(data: Any, source: str) -> None:
    """Raise an error that names the importer of what Keras or Model Garden wrote."""
    if not isinstance(data, Mapping):
        return
    problems = [Problem("", text)] if (text := _translator(data)) else [*_serialized_inside(data, ())]
    if problems:
        raise ConfigError(source, problems)


def _translator(data: Mapping[str, Any]) -> str | None:
    """Say how to translate what another library wrote as a whole."""
    if "class_name" in data and "config" in data:
        return "is a config of Keras: " + _TRANSLATE.format(options="", function="from_keras")
    if "type" in data:
        return None
    is_ours = "optimizer" in data and not _selects_member(data["optimizer"])
    if (_EXPERIMENT & data.keys() and not is_ours) or any(_selects_member(data.get(name)) for name in _SECTIONS):
        return "is a recipe of Model Garden: " + _TRANSLATE.format(options="", function="from_model_garden")
    if "optimizer" not in data and isinstance(data.get("name"), str) and _RATES & data.keys():
        return "is a get_config of Keras: " + _TRANSLATE.format(options="--from keras ", function="from_keras")
    return None


_SECTIONS = ("optimizer", "learning_rate", "warmup")
# Model Garden's types of rates and warm-ups, which a file that overrides an experiment need not name.
_MEMBERS = ("constant", "cosine", "exponential", "linear", "polynomial", "power", "power_linear", "stepwise")


def _selects_member(section: Any) -> bool:
    """Whether a section of a recipe has a block of fields for the type that it names, or for one of another name."""
    if not isinstance(section, Mapping):
        return False
    names = [section["type"]] if isinstance(section.get("type"), str) else _MEMBERS
    return any(isinstance(section.get(name), Mapping) for name in names)


def _serialized_inside(data: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Problem]:
    """Yield a problem for each config of Keras inside of something else, such as a model or a recipe of ours."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            if "class_name" in value and "config" in value:
                yield Problem(join_keys((*path, key)), "is a config of Keras: translate it with interop.from_keras")
            else:
                yield from _serialized_inside(value, (*path, key))
