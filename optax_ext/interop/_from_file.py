"""One way in for files: whatever holds an optimizer, of ours or of others."""

import os
from collections.abc import Mapping
from typing import Any

from optax_ext import config
from optax_ext._core.public import public
from optax_ext.config import OptimizationConfig, Optimizer
from optax_ext.interop._source import read_contents, writer_of
from optax_ext.interop._translate import check_writer, translate_contents
from optax_ext.interop._translation import Writer, warn_about
from optax_ext.schedules import Schedule


@public
def from_file(
    path: str | os.PathLike[str],
    *,
    base: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    written_by: Writer | None = None,
    translate_patterns: bool = True,
    num_training_steps: int | None = None,
    steps_per_epoch: int | None = None,
    global_batch_size: int | None = None,
) -> Schedule | Optimizer | OptimizationConfig:
    """Read the recipe of an optimizer from whatever it was saved in.

    - ``model.keras``, of Keras 3 and of TensorFlow since 2.12
    - ``.h5`` and ``.hdf5`` of whole models
    - a SavedModel: its directory, its ``keras_metadata.pb``, or a ``saved_model.pb`` before TensorFlow 2.5
    - the ``model.json`` of TensorFlow.js, and other JSON or YAML that holds a ``training_config``, a
      ``compile_config``, or an ``optimizer`` of Keras
    - a model card (``README.md``) that the Keras callbacks of transformers or huggingface_hub wrote
    - a config of Keras alone, a recipe of Model Garden, and a recipe of ours
    - ``TrainingArguments`` of transformers, and the arguments of timm's ``train.py``

    Nothing in a file is executed or unpickled, and no link in one is followed.

    Args:
      path: A file, or the directory of a SavedModel.
      base: For a recipe of Model Garden, the experiment that it overrides, as a mapping or as the path of its file.
      written_by: Who wrote it, as [`translate`][optax_ext.interop.translate] takes it; None for what the file tells.
      translate_patterns: Whether patterns that were written for TensorFlow's variable names are translated to match
        JAX parameter paths.
      num_training_steps: For arguments of the Trainer, what
        [`from_training_arguments`][optax_ext.interop.from_training_arguments] takes.
      steps_per_epoch: For arguments of timm, what [`from_timm`][optax_ext.interop.from_timm] takes.
      global_batch_size: Likewise.

    Returns:
      A schedule, an optimizer or a whole [`OptimizationConfig`][optax_ext.config.OptimizationConfig], which is returned
      where there is a loss scale: also for a model of the policy ``mixed_float16``, around whose optimizer Keras puts
      one.

    Raises:
      ConfigError: If the file is damaged, holds no optimizer or several, or one that cannot be carried over; the
        problem's path leads to the place in the file.

    Warns:
      TranslationWarning: If the config means something else than it says, or may have lost an argument.
        [`translate`][optax_ext.interop.translate] returns these and all other notes.

    Examples:
      >>> import json, tempfile, zipfile
      >>> from optax_ext import interop
      >>> sgd = {"class_name": "SGD", "config": {"learning_rate": 0.1, "momentum": 0.9}}
      >>> model = {"class_name": "Sequential", "config": {"layers": []}, "compile_config": {"optimizer": sgd}}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     with zipfile.ZipFile(f"{folder}/model.keras", "w") as archive:  # as model.save writes it
      ...         archive.writestr("config.json", json.dumps(model))
      ...     interop.from_file(f"{folder}/model.keras").momentum
      0.9
    """
    check_writer(written_by)
    contents = read_contents(path, "path")
    if written_by is None and base is None and writer_of(contents) is None:
        return config.load(path)
    numbers = {
        "num_training_steps": num_training_steps,
        "steps_per_epoch": steps_per_epoch,
        "global_batch_size": global_batch_size,
    }
    translation = translate_contents(contents, path, base, written_by, numbers, translate_patterns)
    warn_about(translation.notes, stacklevel=2)
    return translation.config
