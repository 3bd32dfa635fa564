"""Refuses what Keras or Model Garden wrote, with the name of what translates it."""

from collections.abc import Iterator, Mapping
from typing import Any

from optax_ext._core.errors import ConfigError, Problem, join_keys
from optax_ext._core.saved_models import find_optimizers, is_model
from optax_ext._core.writers import Foreign, foreign_writer, is_serialized

_TRANSLATE = "translate it with `optax-ext convert FILE`, or in Python with interop"
_IMPORTERS: dict[Foreign, str] = {
    "keras": f"is a config of Keras: {_TRANSLATE}.from_keras",
    "get_config": (
        "is a get_config of Keras without its class: write {'class_name': …, 'config': …} around it, and"
        f" {_TRANSLATE}.from_keras"
    ),
    "model_garden": (
        f"is a recipe of Model Garden: {_TRANSLATE}.from_model_garden; if it overrides another experiment, give that"
        " one as --base or base"
    ),
    "training_arguments": f"is TrainingArguments of transformers: {_TRANSLATE}.from_training_arguments",
    "timm": f"is the arguments of timm: {_TRANSLATE}.from_timm",
}
_INSIDE = f"is a config of Keras: {_TRANSLATE}.translate"
_ALONE = "is a config of Keras: translate it alone, with interop.from_keras"
_WITHOUT = "is a model of Keras without the config of an optimizer: it was saved without being compiled"


def refuse_foreign(data: Any, source: str) -> None:
    """Raise an error that names the importer of what Keras or Model Garden wrote."""
    if isinstance(data, Mapping) and (problems := [*_problems(data)]):
        raise ConfigError(source, problems)


def _problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    writer = foreign_writer(data)
    found = find_optimizers(data) if writer is None or is_model(data) else []
    if len(found) == 1 and not found[0].beside:
        yield Problem(found[0].place, _INSIDE)
    elif found:
        yield from (Problem(one.place, _ALONE) for one in found)
    elif is_model(data):
        yield Problem("", _WITHOUT)
    elif writer is not None:
        yield Problem("", _IMPORTERS[writer])
    else:
        yield from _serialized_inside(data, ())


def _serialized_inside(data: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Problem]:
    """Yield a problem for each config of Keras inside of something else, such as a recipe of ours."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            if is_serialized(value):
                yield Problem(join_keys((*path, key)), _ALONE)
            else:
                yield from _serialized_inside(value, (*path, key))
