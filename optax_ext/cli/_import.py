"""The command convert, for files that Model Garden or Keras wrote."""

import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from optax_ext import config
from optax_ext._core.files import json_text, write_text
from optax_ext._core.yaml_files import yaml_text
from optax_ext.cli._errors import CommandError
from optax_ext.cli._files import convert as convert_ours
from optax_ext.cli._params import pattern_lists, read_shapes, size, unmatched
from optax_ext.config import ConfigError, OptimizationConfig, Optimizer, Problem
from optax_ext.interop._from_keras import translate_keras
from optax_ext.interop._model_garden import translate_model_garden
from optax_ext.interop._yaml import read_mapping

_MODEL_GARDEN_KEYS = {"task", "trainer", "runtime", "optimizer_config", "learning_rate", "warmup"}


def convert(
    file: str,
    output: str | None,
    to: str | None,
    exclude_defaults: bool,
    *,
    written_by: str | None,
    base: str | None,
    shapes_file: str | None,
) -> int:
    """Write the translated config, with a comment for everything that was changed in translation."""
    written_by = written_by or _tell_writer(file)
    if base is not None and written_by != "model-garden":
        raise CommandError("--base is for files of Model Garden", status=2)
    if written_by == "optax-ext":
        if shapes_file is not None:
            raise CommandError("--check-against is for imported files: give this one to describe --params", status=2)
        return convert_ours(file, output, to, exclude_defaults)
    shapes = None if shapes_file is None else read_shapes(shapes_file)
    data = read_mapping(file, "FILE")
    loaded, notes = translate_keras(data, file) if written_by == "keras" else translate_model_garden(file, base)
    comments = [f"Converted from {Path(file).name}.", *map(str, notes)]
    optimizer = loaded.optimizer if isinstance(loaded, OptimizationConfig) else loaded
    if shapes is not None:
        if not isinstance(optimizer, Optimizer):
            raise CommandError(f"{file}: --check-against is for optimizers, this is a schedule", status=2)
        comments += _hits(optimizer, shapes)
    _write(loaded, comments, output, to, exclude_defaults)
    if shapes is not None and isinstance(optimizer, Optimizer) and (problems := unmatched(optimizer, shapes)):
        sys.stdout.flush()  # before what goes to standard error
        raise ConfigError(file, [Problem(f"optimizer.{path}", message) for path, message in problems])
    return 0


def _tell_writer(file: str) -> str:
    try:
        data: Mapping[Any, Any] = read_mapping(file, "FILE")
    except ConfigError:
        return "optax-ext"  # whose reader says what is wrong with the file
    if "class_name" in data:
        return "keras"
    return "model-garden" if "type" not in data and _MODEL_GARDEN_KEYS & data.keys() else "optax-ext"


def _hits(optimizer: Optimizer, shapes: Any) -> list[str]:
    """Say for each pattern which parameters it hits, and for each list how many."""
    lines: list[str] = []
    total = size(shapes).parameters
    for field, matches, left in pattern_lists(optimizer, shapes):
        for pattern, paths in matches or ():
            lines.append(f"{field}: {pattern!r} hits {', '.join(paths) or 'NOTHING'}")
        if matches:
            lines.append(f"{field}: {total - left.parameters} of {total} parameters in all")
    return lines


def _write(loaded: Any, comments: Iterable[str], output: str | None, to: str | None, exclude_defaults: bool) -> None:
    to_of_output = None if output is None else "json" if Path(output).suffix.lower() == ".json" else "yaml"
    if to is not None and to_of_output not in (None, to):
        raise CommandError(f"--to {to} and -o {output} are two formats: give one of them", status=2)
    data = config.to_dict(loaded, exclude_defaults=exclude_defaults)
    wrapped = [line for comment in comments for line in textwrap.wrap(comment, 98, subsequent_indent="  ")]
    if (to or to_of_output) == "json":  # JSON has no comments
        sys.stderr.writelines(f"{line}\n" for line in wrapped)
        text = json_text(data)
    else:
        text = "".join(f"# {line}\n" for line in wrapped) + yaml_text(data)
    if output is None:
        sys.stdout.write(text)
    else:
        write_text(output, text)
