"""Whatever other software wrote, translated with notes."""

import os
from collections.abc import Mapping
from typing import Any, get_args

from optax_ext._core.errors import ConfigError, Problem, join_words, shorten
from optax_ext._core.public import public
from optax_ext._core.writers import Foreign, foreign_writer
from optax_ext.config import OptimizationConfig, Optimizer
from optax_ext.interop._source import locate, read_contents, translate_there, writer_of
from optax_ext.interop._translation import Translation, Writer
from optax_ext.interop.containers import Contents
from optax_ext.interop.keras import translate_keras
from optax_ext.interop.model_garden import translate_model_garden
from optax_ext.interop.pytorch import translate_timm, translate_training_arguments
from optax_ext.schedules import Schedule

_OF_KERAS = ("transformers", "tensorflow_addons", "model_garden")  # whose classes a config of Keras may name
_SOFTWARE: dict[Writer, str] = {
    "model_garden": "recipes of Model Garden",
    "keras": "configs of Keras",
    "training_arguments": "arguments of transformers' Trainer",
    "timm": "arguments of timm",
}
# Arguments that are for what one writer wrote.
_OF_WRITER: dict[str, Writer] = {
    "base": "model_garden",
    "class_name": "keras",
    "num_training_steps": "training_arguments",
    "steps_per_epoch": "timm",
    "global_batch_size": "timm",
}


@public
def identify_writer(source: Mapping[str, Any] | str | os.PathLike[str]) -> Writer | None:
    """Say who wrote a mapping or a file, by its keys.

    Args:
      source: The mapping, or the path of anything that [`from_file`][optax_ext.interop.from_file] reads.

    Returns:
      ``"keras"`` if there is a ``class_name``, for a ``get_config`` that can be of no one else, and for what holds an
      optimizer of Keras; ``"model_garden"`` for a part of an experiment; ``"training_arguments"`` for arguments of
      transformers' Trainer, and ``"timm"`` for those of timm; and None otherwise, as for a config of ours.

    Raises:
      ConfigError: If the file cannot be read.

    Examples:
      >>> from optax_ext import interop
      >>> interop.identify_writer({"class_name": "SGD", "config": {}})
      'keras'
      >>> interop.identify_writer({"type": "sgd", "learning_rate": 0.1}) is None  # ours
      True
    """
    return _known(writer_of(read_contents(source, "source")))


@public
def translate(
    source: Mapping[str, Any] | str | os.PathLike[str],
    base: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    written_by: Writer | None = None,
    class_name: str | None = None,
    translate_patterns: bool = True,
    num_training_steps: int | None = None,
    steps_per_epoch: int | None = None,
    global_batch_size: int | None = None,
) -> Translation[Schedule | Optimizer | OptimizationConfig]:
    """Read a mapping or a file that other software wrote, and return with the config all that was changed.

    [`from_keras`][optax_ext.interop.from_keras], [`from_model_garden`][optax_ext.interop.from_model_garden],
    [`from_training_arguments`][optax_ext.interop.from_training_arguments] and
    [`from_timm`][optax_ext.interop.from_timm] return the config alone, and warn about the notes that are surprising.

    Args:
      source: The mapping, or the path of anything that [`from_file`][optax_ext.interop.from_file] reads. Notes and
        problems have the path to the place of the optimizer in it.
      base: For a recipe of Model Garden, the experiment that it overrides, likewise.
      written_by: Who wrote it: ``"keras"``, ``"transformers"``, ``"tensorflow_addons"`` or ``"model_garden"``, which
        also say whose classes a config of Keras names where it does not; ``"training_arguments"`` or ``"timm"``. None
        asks [`identify_writer`][optax_ext.interop.identify_writer].
      class_name: For a bare ``get_config`` of Keras, its class, if its keys do not tell.
      translate_patterns: Whether patterns that were written for TensorFlow's variable names are translated to match
        JAX parameter paths.
      num_training_steps: For arguments of the Trainer, what
        [`from_training_arguments`][optax_ext.interop.from_training_arguments] takes.
      steps_per_epoch: For arguments of timm, what [`from_timm`][optax_ext.interop.from_timm] takes.
      global_batch_size: Likewise.

    Returns:
      The config, the notes, and who wrote the source.

    Raises:
      ConfigError: If anything is missing or cannot be carried over, or the writer cannot be identified or is not
        ``written_by``.
      ValueError: If ``written_by`` is something else, or an argument is given that is for another writer.

    Examples:
      >>> from optax_ext import interop
      >>> sgd = {"class_name": "SGD", "config": {"use_ema": False, "clipnorm": 1.0, "clipvalue": 0.5}}
      >>> translation = interop.translate(sgd)
      >>> translation.config.clipnorm, translation.config.clipvalue
      (1.0, None)
      >>> for note in translation.notes:
      ...     print(note)
      config.clipvalue: is ignored because clipnorm is set, as in TensorFlow's newer optimizers
    """
    check_writer(written_by)
    numbers = {
        "num_training_steps": num_training_steps,
        "steps_per_epoch": steps_per_epoch,
        "global_batch_size": global_batch_size,
    }
    return translate_contents(
        read_contents(source, "source"), source, base, written_by, numbers, translate_patterns, class_name
    )


def translate_contents(
    contents: Contents,
    source: Mapping[str, Any] | str | os.PathLike[str],
    base: Mapping[str, Any] | str | os.PathLike[str] | None,
    written_by: Writer | None,
    numbers: Mapping[str, int | None],
    translate_patterns: bool,
    class_name: str | None = None,
) -> Translation[Schedule | Optimizer | OptimizationConfig]:
    """Translate what was read of a source, as `translate` does, with the numbers that only some writers need."""
    found = locate(contents)
    data, name = found.data, found.name
    known = _known(foreign_writer(data)) or ("keras" if found.place else None)
    if known is None and written_by is None:
        text = "must have the keys of Keras ('class_name') or of Model Garden ('optimizer_config' or 'learning_rate')"
        text = f"{text}, got {shorten(list(data))}: give written_by, or read a config of optax_ext with config.load"
        raise ConfigError(name, [Problem("", text)])
    if known is not None and written_by not in (None, known, *(_OF_KERAS if known == "keras" else ())):
        text = f"has the keys of {_SOFTWARE[known]}, and written_by says {written_by!r}: leave written_by out"
        raise ConfigError(name, [Problem("", text)])
    format_of = known or ("keras" if class_name is not None else written_by)
    if format_of in (None, "transformers", "tensorflow_addons"):  # whose classes are in the format of Keras
        format_of = "keras"
    for argument, value in {"base": base, "class_name": class_name, **numbers}.items():
        writer = _OF_WRITER[argument]
        if value is not None and writer != format_of:
            raise ValueError(f"{argument} is for {_SOFTWARE[writer]}, and the source is written by {format_of!r}")
    if format_of == "training_arguments":
        return translate_training_arguments(source, num_training_steps=numbers["num_training_steps"])
    if format_of == "timm":
        of_run = {argument: numbers[argument] for argument in ("steps_per_epoch", "global_batch_size")}
        return translate_timm(source, **of_run)
    if format_of == "model_garden":
        return translate_model_garden(data, base, translate_patterns=translate_patterns, source=name)
    package = None if written_by in ("training_arguments", "timm") else written_by

    def read(data: Any) -> Translation[Schedule | Optimizer | OptimizationConfig]:
        return translate_keras(
            data, class_name=class_name, written_by=package, translate_patterns=translate_patterns, source=name
        )

    return translate_there(found, read)


def check_writer(written_by: object) -> None:
    """Raise ValueError if this is no writer that is known."""
    if written_by not in (None, *get_args(Writer)):
        accepted = join_words(get_args(Writer))
        raise ValueError(f"written_by must be one of {accepted} or None, got {shorten(written_by)}")


def _known(writer: Foreign | None) -> Writer | None:
    return "keras" if writer == "get_config" else writer
