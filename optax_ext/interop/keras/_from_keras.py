"""Keras's configs of schedules, optimizers and loss-scale optimizers as ours."""

from collections.abc import Mapping
from typing import Any, TypeAlias, cast

from optax_ext._core.plain_data import plain_data
from optax_ext.config import OptimizationConfig, Optimizer
from optax_ext.interop._report import Report
from optax_ext.interop._translation import Translation, warn_about
from optax_ext.interop.keras._reader import KerasReader
from optax_ext.schedules import Schedule

Config: TypeAlias = Schedule | Optimizer | OptimizationConfig


def from_keras(
    data: Mapping[str, Any], *, class_name: str | None = None, translate_patterns: bool = True
) -> Schedule | Optimizer | OptimizationConfig:
    """Read a schedule, an optimizer or a loss-scale optimizer that Keras or Model Garden serialized.

    ``data`` is what ``serialize`` returns, ``{"class_name": …, "config": …}`` with or without ``module`` and
    ``registered_name``, in the spellings of tf_keras and of Keras 3; or what ``get_config`` returns, if its class can
    be inferred. The ``config`` may hold any argument of the class, including those that ``get_config`` loses.

    Args:
      data: The mapping.
      class_name: The class of a bare ``get_config``, if its keys do not tell.
      translate_patterns: Whether patterns that were written for TensorFlow's variable names are translated to match
        JAX parameter paths: ``batch_normalization`` then also finds ``BatchNorm_0``, and ``:0`` at the end of a name
        is dropped.

    Returns:
      A schedule, an optimizer, or, for a loss-scale optimizer or a moving average around one, an
      [`OptimizationConfig`][optax_ext.config.OptimizationConfig].

    Raises:
      ConfigError: If anything cannot be carried over: an unknown class or field, a callable, a value out of range.
        Only ``name``, ``module``, ``registered_name`` and ``jit_compile`` are dropped, which hold no hyperparameters.

    Warns:
      TranslationWarning: If the config means something else than it says, or may have lost an argument.
        [`translate`][optax_ext.interop.translate] returns these and all other notes.

    Examples:
      >>> from optax_ext import interop
      >>> interop.from_keras({"class_name": "CosineDecay", "config": {"initial_learning_rate": 0.1, "decay_steps": 9}})
      CosineDecay(initial_learning_rate=0.1, decay_steps=9, alpha=0.0, warmup_target=None, warmup_steps=0, offset=0, \
before_offset='extrapolate')

    Differs from TensorFlow:
      Offsets and patterns are read if they are given; TensorFlow's ``get_config`` leaves them out, which is warned
      about. An empty ``exclude_from_layer_adaptation`` is read as None, which it means in TensorFlow. A non-finite
      gradient is skipped under a fixed loss scale too.
    """
    translation = translate_keras(data, class_name=class_name, translate_patterns=translate_patterns)
    warn_about(translation.notes, stacklevel=2)
    return translation.config


def translate_keras(
    data: Mapping[str, Any],
    *,
    class_name: str | None = None,
    translate_patterns: bool = True,
    source: str = "Keras config",
) -> Translation[Config]:
    """Read what Keras serialized, as [`from_keras`][optax_ext.interop.from_keras] does, with all notes.

    Args:
      data: The mapping.
      class_name: The class of a bare ``get_config``, if its keys do not tell.
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
    report = Report()
    config = KerasReader(report, translate_patterns).read(plain_data(data, source), class_name, "")
    report.finish(source)
    return Translation(cast(Config, config), tuple(report.notes), "keras")  # None only where there was a problem
