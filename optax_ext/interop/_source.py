"""Where in a file or in data an importer begins: at the one config of an optimizer, of a schedule or of a recipe."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from optax_ext._core.errors import ConfigError, Problem, join_keys, shorten
from optax_ext._core.files import decode_text, file_error, read_bytes, read_text
from optax_ext._core.plain_data import plain_data
from optax_ext._core.saved_models import compile_adds_loss_scale, find_optimizers, is_model, is_optimizer
from optax_ext._core.writers import Foreign, foreign_writer
from optax_ext.config import DynamicLossScale, OptimizationConfig, Optimizer
from optax_ext.interop._files import read_data, read_mapping
from optax_ext.interop._translation import Note, Translation
from optax_ext.interop.containers import MAX_BYTES, Contents, read_container
from optax_ext.schedules import Schedule

Config: TypeAlias = Schedule | Optimizer | OptimizationConfig
_ACCEPTED = (
    "accepted: a compiled model (model.keras, .h5, a SavedModel, model.json), its compile_config or training_config, a"
    " model card, or the config alone"
)
_ALONE = "translate what is meant alone, with interop.from_keras"


class Source(NamedTuple):
    """What an importer reads.

    Args:
      data: The config, or the name of a class of Keras.
      name: What an error says it is, such as the path of its file.
      place: The path to it in the file; empty if it is all that is there.
      mixed_float16: Whether it is of a model around whose optimizer Keras puts a loss scale, as nothing else says.
    """

    data: Any
    name: str
    place: str = ""
    mixed_float16: bool = False


def read_contents(source: Any, argument: str) -> Contents:
    """Return what a file, a saved model, a model card or data holds, as a whole.

    Raises:
      ConfigError: If it cannot be read.
    """
    if not isinstance(source, str | os.PathLike):
        return Contents(read_mapping(source, argument), "config")
    path: Any = source
    contents = read_container(path)
    if contents is not None:
        if writer_of(contents) is None:
            raise file_error(contents.path, f"holds no optimizer of Keras; {_ACCEPTED}")
        return contents
    name = str(path)
    is_json = Path(path).suffix.lower() == ".json"
    text = decode_text(read_bytes(path, MAX_BYTES), path) if is_json else read_text(path)
    return Contents(read_data(path, text), name)


def writer_of(contents: Contents) -> Foreign | None:
    """Return who wrote something as a whole, or the optimizers in it."""
    data = contents.data
    return foreign_writer(data) or ("keras" if is_model(data) or find_optimizers(data) else None)


def locate(contents: Contents) -> Source:
    """Return the config itself, or the one that stands in what Keras saved about a model.

    Raises:
      ConfigError: If there are several, none in a model, or one beside which stands what may change it.
    """
    data, name, place = contents
    if is_optimizer(data) or foreign_writer(data) == "model_garden" or (isinstance(data, Mapping) and "type" in data):
        return Source(_plain(data, name), name, join_keys(place))
    found = find_optimizers(data)
    if not found:
        if is_model(data):
            text = f"is a model of Keras without an optimizer: it was saved without being compiled; {_ACCEPTED}"
            raise file_error(name, text)
        if not isinstance(data, Mapping):
            raise ConfigError(name, [Problem("", f"must hold a mapping, got {shorten(data)}")])
        return Source(_plain(data, name), name, join_keys(place))
    if len(found) > 1:
        text = f"is one of {len(found)} optimizers, each for its own variables: {_ALONE}"
        raise ConfigError(name, [Problem(join_keys((*place, *one.keys)), text) for one in found])
    (optimizer,) = found
    where = join_keys((*place, *optimizer.keys))
    if optimizer.beside:
        text = f"may change what the optimizer at {where} does: {_ALONE}"
        raise ConfigError(name, [Problem(join_keys((*place, path)), text) for path in optimizer.beside])
    return Source(_plain(optimizer.data, name), name, where, compile_adds_loss_scale(data, optimizer))


def translate_there(source: Source, read: Callable[[Any], Translation[Config]]) -> Translation[Config]:
    """Translate what stands at a place of a file, with that place in all notes and problems."""

    def inside(path: str) -> str:
        return join_keys(filter(None, (source.place, path)))

    try:
        translation = read(source.data)
    except ConfigError as error:
        if not source.place:
            raise
        problems = [Problem(inside(problem.path), problem.message) for problem in error.problems]
        raise ConfigError(error.subject, problems) from None
    notes = tuple(note._replace(path=inside(note.path)) for note in translation.notes)
    config: Config = translation.config
    if isinstance(config, Optimizer):
        recipe = OptimizationConfig(config)
    else:
        recipe = config if isinstance(config, OptimizationConfig) else None
    if source.mixed_float16 and recipe is not None and recipe.loss_scale is None:
        text = "the model's policy is mixed_float16, for which Keras puts a dynamic loss scale around the optimizer"
        notes = (*notes, Note(source.place, text, surprising=False))
        config = dataclasses.replace(recipe, loss_scale=DynamicLossScale())
    return dataclasses.replace(translation, config=config, notes=notes)


def _plain(data: Any, name: str) -> Any:
    return data if isinstance(data, str) else plain_data(data, name)
