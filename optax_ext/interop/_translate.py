"""Whatever Keras or Model Garden wrote, translated with notes."""

import os
from collections.abc import Mapping
from typing import Any, get_args

from optax_ext._core.errors import ConfigError, Problem, join_words, shorten
from optax_ext._core.public import public
from optax_ext._core.writers import foreign_writer
from optax_ext.config import OptimizationConfig, Optimizer
from optax_ext.interop._files import read_mapping
from optax_ext.interop._translation import Translation, Writer
from optax_ext.interop.keras import translate_keras
from optax_ext.interop.model_garden import translate_model_garden
from optax_ext.schedules import Schedule

_WRITERS = get_args(Writer)


@public
def identify_writer(source: Mapping[str, Any] | str | os.PathLike[str]) -> Writer | None:
    """Say who wrote a mapping or a file, by its keys.

    Args:
      source: The mapping, or the path of a YAML or JSON file.

    Returns:
      ``"keras"`` if there is a ``class_name``, ``"model_garden"`` for a part of an experiment, and None otherwise, as
      for a config of ours, for a bare ``get_config`` of Keras, or for something that only contains a config of Keras.

    Raises:
      ConfigError: If the file cannot be read.

    Examples:
      >>> from optax_ext import interop
      >>> interop.identify_writer({"class_name": "SGD", "config": {}})
      'keras'
      >>> interop.identify_writer({"type": "sgd", "learning_rate": 0.1}) is None  # ours
      True
    """
    writer = foreign_writer(read_mapping(source, "source"))
    return None if writer == "get_config" else writer


@public
def translate(
    source: Mapping[str, Any] | str | os.PathLike[str],
    base: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    written_by: Writer | None = None,
    class_name: str | None = None,
    translate_patterns: bool = True,
) -> Translation[Schedule | Optimizer | OptimizationConfig]:
    """Read a mapping or a file that other software wrote, and return with the config all that was changed.

    [`from_keras`][optax_ext.interop.from_keras] and [`from_model_garden`][optax_ext.interop.from_model_garden] return
    the config alone, and warn about the notes that are surprising.

    Args:
      source: The mapping, or the path of a YAML or JSON file.
      base: For a recipe of Model Garden, the experiment that it overrides, likewise.
      written_by: Who wrote it: ``"keras"``, ``"transformers"``, ``"tensorflow_addons"`` or ``"model_garden"``, which
        also say whose classes a config of Keras names where it does not. None asks
        [`identify_writer`][optax_ext.interop.identify_writer].
      class_name: For a bare ``get_config`` of Keras, its class, if its keys do not tell.
      translate_patterns: Whether patterns that were written for TensorFlow's variable names are translated to match
        JAX parameter paths.

    Returns:
      The config, the notes, and who wrote the source.

    Raises:
      ConfigError: If anything is missing or cannot be carried over, or the writer cannot be identified.
      ValueError: If ``written_by`` is something else, ``base`` is given with a config of Keras, or ``class_name``
        with a recipe of Model Garden.

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
    if written_by not in (None, *_WRITERS):
        raise ValueError(f"written_by must be one of {join_words(_WRITERS)} or None, got {shorten(written_by)}")
    data = read_mapping(source, "source")
    name = str(source) if isinstance(source, str | os.PathLike) else "config"
    known = foreign_writer(data)
    if known is None and written_by is None:
        text = "must have the keys of Keras ('class_name') or of Model Garden ('optimizer_config' or 'learning_rate')"
        text = f"{text}, got {shorten(list(data))}: give written_by, or read a config of optax_ext with config.load"
        raise ConfigError(name, [Problem("", text)])
    is_recipe = known == "model_garden" or (known is None and written_by == "model_garden" and class_name is None)
    if not is_recipe:
        if base is not None:
            raise ValueError("base is for recipes of Model Garden, and the source is written by 'keras'")
        return translate_keras(
            data, class_name=class_name, written_by=written_by, translate_patterns=translate_patterns, source=name
        )
    if class_name is not None:
        raise ValueError("class_name is for configs of Keras, and the source is written by 'model_garden'")
    return translate_model_garden(data, base, translate_patterns=translate_patterns, source=name)
