"""Model Garden's recipes as ours."""

import os
from collections.abc import Mapping
from typing import Any, TypeAlias, cast

from optax_ext._core.errors import ConfigError, Problem
from optax_ext._core.public import public
from optax_ext.config import OptimizationConfig, Optimizer
from optax_ext.interop._files import read_mapping
from optax_ext.interop._keras_quirks import build_recipe
from optax_ext.interop._report import Report
from optax_ext.interop._translation import Translation, warn_about
from optax_ext.interop.model_garden._beside import note_what_is_beside
from optax_ext.interop.model_garden._overrides import read_recipe
from optax_ext.interop.model_garden._recipe import (
    MISSING,
    read_ema,
    read_learning_rate,
    read_loss_scale,
    read_optimizer,
)

Source: TypeAlias = Mapping[str, Any] | str | os.PathLike[str]

_OTHERS = {
    "keras": "is a config of Keras: read it with interop.from_keras",
    "optax_ext": "is a config of optax_ext: read it with config.from_dict, or a file with config.load",
}


@public
def from_model_garden(
    config: Source, base: Source | None = None, *, translate_patterns: bool = True
) -> OptimizationConfig:
    """Read a recipe of TensorFlow Model Garden.

    A Model Garden file is not a whole recipe: it overrides, leaf by leaf, the config of a Python experiment. A file
    that leaves out what the experiment has needs that config as ``base``. In each section ``type`` selects a member;
    other members are ignored but must be valid. ``ema: null`` and ``warmup: {type: null}`` turn these off.

    Args:
      config: An ``optimizer_config``, or a whole experiment with ``task``, ``trainer`` or ``runtime``, as a mapping
        or as the path of a YAML or JSON file.
      base: The experiment that it overrides, likewise; None for none.
      translate_patterns: Whether patterns that were written for TensorFlow's variable names are translated to match
        JAX parameter paths: ``batch_normalization`` then also finds ``BatchNorm_0``, and ``:0`` at the end of a name
        is dropped.

    Returns:
      The recipe, with dynamic loss scaling if the ``runtime`` says float16.

    Raises:
      ConfigError: If something is missing, unknown or out of range, or of a type that is not Model Garden's own or
        has no counterpart, such as ``sgd_torch``, ``cosine_epoch`` and ``adafactor``; if a part of the optimizer stands
        outside of ``trainer.optimizer_config``, or a name in an experiment is misspelled. All problems are reported at
        once.

    Warns:
      TranslationWarning: Where TensorFlow silently does something that is surely not meant, and what is meant is done
        instead: a field beside the ``type`` is read, a text in place of a list of patterns is one pattern, not its
        letters. Where the task adds weight decay to the loss, ``task.losses.l2_weight_decay``, which is not the
        optimizer's and would be lost. [`translate`][optax_ext.interop.translate] returns these and all other notes.

    Examples:
      >>> from optax_ext import interop
      >>> recipe = interop.from_model_garden({
      ...     "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}},
      ...     "learning_rate": {"type": "cosine", "cosine": {"initial_learning_rate": 0.1, "decay_steps": 100}},
      ...     "warmup": {"type": "linear", "linear": {"warmup_steps": 10}},
      ... })
      >>> print(recipe.optimizer.learning_rate(5))
      0.048776414
    """
    translation = translate_model_garden(config, base, translate_patterns=translate_patterns)
    warn_about(translation.notes, stacklevel=2)
    return translation.config


@public
def translate_model_garden(
    config: Source, base: Source | None = None, *, translate_patterns: bool = True, source: str | None = None
) -> Translation[OptimizationConfig]:
    """Read a recipe as [`from_model_garden`][optax_ext.interop.from_model_garden] does, with all notes.

    Args:
      config: The recipe, as a mapping or as the path of a YAML or JSON file.
      base: The experiment that it overrides, likewise; None for none.
      translate_patterns: Whether patterns are translated to match JAX parameter paths.
      source: What an error says the recipe is; None for the path of its file.

    Returns:
      The translation.

    Raises:
      ConfigError: If anything is missing or cannot be carried over.

    Examples:
      >>> from optax_ext.interop import model_garden
      >>> rate = {"type": "constant", "constant": {"learning_rate": 0.1}}
      >>> recipe = {"optimizer": {"type": "lamb", "lamb": {"epsilon": 0}}, "learning_rate": rate}
      >>> model_garden.translate_model_garden(recipe).notes
      (Note(path='optimizer.lamb.epsilon', text='0 means 1e-07, as in TensorFlow', surprising=False),)
    """
    report = Report()
    own = read_mapping(config, "config")
    name = source or (str(config) if isinstance(config, str | os.PathLike) else "Model Garden config")
    if text := _OTHERS.get(_writer(own)):
        raise ConfigError(name, [Problem("", text)])
    over = None if base is None else read_mapping(base, "base")
    recipe = read_recipe(own, over, report)
    rate = read_learning_rate(recipe, report)
    optimizer, path = read_optimizer(recipe, rate, translate_patterns, report)
    ema = read_ema(recipe.ema, report)
    loss_scale = read_loss_scale(recipe.runtime, report)
    note_what_is_beside(recipe.beside, report)
    if base is None and any(problem.message.startswith(MISSING) for problem in report.problems):
        text = (
            "is not given: if this is a file that overrides an experiment, pass the config of that one as base, or as"
            " --base to optax-ext convert; if not, add what is missing"
        )
        report.problem("base", text)
    report.finish(name)
    translated = build_recipe(cast(Optimizer, optimizer), loss_scale, ema, path, report)
    return Translation(translated, tuple(report.notes), "model_garden")


def _writer(config: Mapping[Any, Any]) -> str:
    """Return who wrote what is surely not Model Garden's."""
    if "class_name" in config:
        return "keras"
    optimizer = config.get("optimizer")
    has_its_rate = isinstance(optimizer, Mapping) and {"type", "learning_rate"} <= optimizer.keys()
    is_recipe = has_its_rate and not {"learning_rate", "warmup", "trainer"} & config.keys()
    return "optax_ext" if is_recipe or isinstance(config.get("type"), str) else "model_garden"
