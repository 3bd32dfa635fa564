"""Keras's configs of schedules, optimizers and loss-scale optimizers as ours."""

from collections.abc import Mapping
from typing import Any, TypeAlias, cast, get_args

from optax_ext._core.errors import join_words, shorten
from optax_ext._core.plain_data import plain_data
from optax_ext._core.public import public
from optax_ext.config import OptimizationConfig, Optimizer
from optax_ext.interop._keras_classes import Package
from optax_ext.interop._report import Report, is_number
from optax_ext.interop._source import Source, locate, translate_there
from optax_ext.interop._translation import Translation, warn_about
from optax_ext.interop.containers import Contents
from optax_ext.interop.keras._reader import KerasReader
from optax_ext.schedules import Constant, Schedule

_NAME = "Keras config"
_TOLD: tuple[Package, ...] = ("transformers", "tensorflow_addons")  # whose optimizers say whose file it is
Config: TypeAlias = Schedule | Optimizer | OptimizationConfig


@public
def from_keras(
    data: Mapping[str, Any] | str,
    *,
    class_name: str | None = None,
    written_by: Package | None = None,
    translate_patterns: bool = True,
) -> Schedule | Optimizer | OptimizationConfig:
    """Read a schedule, an optimizer or what wraps one, as Keras serializes its own classes and those of others.

    ``data`` is what ``serialize`` returns, ``{"class_name": …, "config": …}`` with or without ``module`` and
    ``registered_name``, in the spellings of tf_keras and of Keras 3; or what ``get_config`` returns, if its class can
    be inferred, a name such as ``"adam"``, or a ``training_config`` or ``compile_config`` with one of these in it. The
    ``config`` may hold any argument of the class, including those that ``get_config`` loses.

    Classes of transformers, Model Garden and tensorflow_addons are told apart by ``module`` and ``registered_name``.
    A config without these is read as ``written_by`` says, or else as what has all its fields, which is warned about
    where two packages do: an ``AdamWeightDecay`` or a ``WarmUp`` is that of transformers.

    Args:
      data: The mapping, or the name of an optimizer of Keras.
      class_name: The class of a bare ``get_config``, if its keys do not tell.
      written_by: Whose classes are meant where the config does not say: ``"keras"``, ``"transformers"``,
        ``"model_garden"`` or ``"tensorflow_addons"``.
      translate_patterns: Whether patterns that were written for TensorFlow's variable names are translated to match
        JAX parameter paths: ``batch_normalization`` then also finds ``BatchNorm_0``, and ``:0`` at the end of a name
        is dropped.

    Returns:
      A schedule, an optimizer, or an [`OptimizationConfig`][optax_ext.config.OptimizationConfig] where a loss scale, a
      moving average or an accumulation of gradients is around one.

    Raises:
      ConfigError: If anything cannot be carried over: an unknown class or field, a callable, a value out of range.
        Only ``name``, ``module``, ``registered_name`` and ``jit_compile`` are dropped, which hold no hyperparameters.

    Warns:
      TranslationWarning: If the config means something else than it says, or may have lost an argument.
        [`translate`][optax_ext.interop.translate] returns these and all other notes.

    Examples:
      >>> from optax_ext import interop
      >>> interop.from_keras({"class_name": "CosineDecay", "config": {"initial_learning_rate": 0.1, "decay_steps": 9}})
      CosineDecay(initial_learning_rate=0.1, decay_steps=9)
      >>> interop.from_keras({"class_name": "Lion", "config": {"gradient_accumulation_steps": 4}})
      OptimizationConfig(optimizer=Lion(learning_rate=0.001), accumulate_steps=4)

    Differs from TensorFlow:
      Offsets and patterns are read if they are given; TensorFlow's ``get_config`` leaves them out, which is warned
      about. An empty ``exclude_from_layer_adaptation`` is read as None, which it means in TensorFlow. A non-finite
      gradient is skipped under a fixed loss scale too.
    """
    plain = plain_data(data, _NAME)
    found = locate(Contents(plain, _NAME)) if isinstance(plain, Mapping) else Source(plain, _NAME)

    def read(inside: Any) -> Translation[Config]:
        return translate_keras(
            inside, class_name=class_name, written_by=written_by, translate_patterns=translate_patterns
        )

    translation = translate_there(found, read)
    warn_about(translation.notes, stacklevel=2)
    return translation.config


@public
def translate_keras(
    data: Mapping[str, Any] | str,
    *,
    class_name: str | None = None,
    written_by: Package | None = None,
    translate_patterns: bool = True,
    source: str = _NAME,
) -> Translation[Config]:
    """Read what Keras serialized, as [`from_keras`][optax_ext.interop.from_keras] does, with all notes.

    Args:
      data: The mapping, or the name of an optimizer.
      class_name: The class of a bare ``get_config``, if its keys do not tell.
      written_by: Whose classes are meant where the config does not say.
      translate_patterns: Whether patterns are translated to match JAX parameter paths.
      source: What an error says the data is, such as a file name.

    Returns:
      The translation.

    Raises:
      ConfigError: If anything cannot be carried over.

    Examples:
      >>> from optax_ext.interop import keras
      >>> keras.translate_keras({"class_name": "LAMB", "config": {"learning_rate": 0.1, "epsilon": None}}).notes
      (Note(path='config.epsilon', text='None means 1e-07, as in TensorFlow', surprising=False),)
    """
    if written_by not in (None, *get_args(Package)):
        accepted = join_words(get_args(Package))
        raise ValueError(f"written_by must be one of {accepted} or None, got {shorten(written_by)}")
    report = Report()
    reader = KerasReader(report, translate_patterns, written_by)
    read = reader.read(data if isinstance(data, str) else plain_data(data, source), class_name, "")
    config = Constant(read) if is_number(read) else read
    report.finish(source)
    told: list[Package] = [package for package in reader.packages if package in _TOLD]
    writer: Package = written_by or (told[0] if told else "keras")
    return Translation(cast(Config, config), tuple(report.notes), writer)  # None only where there was a problem
