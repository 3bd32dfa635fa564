"""The command convert: a recipe in the other format, or one of Keras or Model Garden as one of ours."""

import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from optax_ext import config, interop
from optax_ext._core.files import file_suffix, json_text, write_text
from optax_ext._core.yaml_files import yaml_text
from optax_ext.cli._errors import CommandError
from optax_ext.cli._params import pattern_lists, read_shapes, size, unmatched
from optax_ext.cli._warnings import warnings_of
from optax_ext.config import ConfigError, OptimizationConfig, Optimizer, Problem

_Writer = Literal["keras", "model_garden"]
_Format = Literal["json", "yaml"]
_WRITERS: dict[str, _Writer | None] = {"optax-ext": None, "keras": "keras", "model-garden": "model_garden"}


def convert(
    file: str,
    output: str | None,
    to: _Format | None,
    exclude_defaults: bool,
    *,
    written_by: str | None,
    base: str | None,
    shapes_file: str | None,
) -> int:
    """Write a config in the other format, or a translated one with a comment for everything that was changed."""
    writer = interop.identify_writer(file) if written_by is None else _WRITERS[written_by]
    if base is not None and writer != "model_garden":
        raise CommandError("--base is for files of Model Garden", status=2)
    if shapes_file is not None and writer is None:
        raise CommandError("--params is for files of Model Garden and Keras: use describe --params", status=2)
    to = _target_format(file, output, to, translated=writer is not None)
    if writer is None:
        with warnings_of(file):
            loaded = config.load(file)
        _write(loaded, [], output, to, exclude_defaults)
        return 0
    shapes = None if shapes_file is None else read_shapes(shapes_file)
    with warnings_of(file):
        translation = interop.translate(file, base, written_by=writer)
    comments = [f"Converted from {Path(file).name}.", *map(str, translation.notes)]
    if shapes is None:
        _write(translation.config, comments, output, to, exclude_defaults)
        return 0
    loaded = translation.config
    optimizer = loaded.optimizer if isinstance(loaded, OptimizationConfig) else loaded
    if not isinstance(optimizer, Optimizer):
        raise CommandError(f"{file}: --params is for optimizers, and this is a schedule", status=2)
    _write(loaded, [*comments, *_matches(optimizer, shapes)], output, to, exclude_defaults)
    if problems := unmatched(optimizer, shapes):
        sys.stdout.flush()  # before what goes to standard error
        raise ConfigError(file, [Problem(f"optimizer.{path}", message) for path, message in problems])
    return 0


def _target_format(file: str, output: str | None, to: _Format | None, *, translated: bool) -> _Format:
    """Return the format to write: that of the output, or the one asked for, or the one that the file is not in."""
    if output is not None:
        of_output: _Format = "json" if file_suffix(output) == ".json" else "yaml"
        if to not in (None, of_output):
            raise CommandError(f"--to {to} and -o {output} are two formats: give one of them", status=2)
        return of_output
    if to is not None:
        return to
    if translated:
        return "yaml"  # which has comments
    return "yaml" if Path(file).suffix.lower() == ".json" else "json"


def _matches(optimizer: Optimizer, shapes: Any) -> list[str]:
    """Say for each pattern which parameters it matches, and for each list how many."""
    lines: list[str] = []
    total = size(shapes).parameters
    for field, matches, left in pattern_lists(optimizer, shapes):
        for pattern, paths in matches or ():
            lines.append(f"{field}: {pattern!r} matches {', '.join(paths) or 'NOTHING'}")
        if matches:
            lines.append(f"{field}: {total - left.parameters} of {total} parameters in all")
    return lines


def _write(loaded: Any, comments: Iterable[str], output: str | None, to: _Format, exclude_defaults: bool) -> None:
    data = config.to_dict(loaded, exclude_defaults=exclude_defaults)
    wrapped = [line for comment in comments for line in textwrap.wrap(comment, 98, subsequent_indent="  ")]
    if to == "json":  # JSON has no comments
        sys.stderr.writelines(f"{line}\n" for line in wrapped)
        text = json_text(data)
    else:
        text = "".join(f"# {line}\n" for line in wrapped) + yaml_text(data)
    if output is None:
        sys.stdout.write(text)
    else:
        write_text(output, text)
