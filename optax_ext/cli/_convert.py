"""The command convert: a recipe in the other format, or one of Keras or Model Garden as one of ours."""

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from optax_ext import config, interop
from optax_ext._core.files import file_suffix, json_text, write_text
from optax_ext._core.schema import Schema
from optax_ext._core.yaml_files import yaml_text
from optax_ext.cli._comments import Comment, comment_of, insert_comments, without_defaults, wrap_comment
from optax_ext.cli._errors import CommandError
from optax_ext.cli._numbers import short_numbers
from optax_ext.cli._params import pattern_lists, read_shapes, size, unmatched
from optax_ext.cli._warnings import warnings_of
from optax_ext.config import ConfigError, OptimizationConfig, Problem, UpdateRule

_Writer = Literal["keras", "transformers", "tensorflow_addons", "model_garden", "training_arguments", "timm"]
_Format = Literal["json", "yaml"]
_OURS = "optax-ext"
# What a file does not say, and of which writer.
_NUMBERS: dict[str, _Writer] = {
    "num_training_steps": "training_arguments",
    "steps_per_epoch": "timm",
    "global_batch_size": "timm",
}
_SAID = {"training_arguments": "TrainingArguments of transformers", "timm": "arguments of timm"}


def convert(
    file: str,
    output: str | None,
    to: _Format | None,
    *,
    overrides: Sequence[str],
    all_fields: bool,
    overwrite: bool,
    written_by: str | None,
    base: str | None,
    numbers: Mapping[str, Any],
    shapes_file: str | None,
) -> int:
    """Write a config in the other format, or a translated one with a comment for everything that was changed.

    Args:
      file: What is read.
      output: The file to write; None for standard output.
      to: The format; None for that of the output, or the other one.
      overrides: What is changed in a recipe of ours.
      all_fields: Whether fields are written that have their default.
      overwrite: Whether a file is replaced.
      written_by: What --from says; None for what the file tells.
      base: The experiment that a file of Model Garden overrides.
      numbers: What a file does not say, as `interop.translate` takes it.
      shapes_file: The shapes of parameters, which patterns are compared with.
    """
    if output is not None and not overwrite:
        _refuse_to_overwrite(output, [file, base, shapes_file])
    writer = _writer(file, written_by)
    if base is not None and writer != "model_garden":
        raise CommandError("--base is for files of Model Garden", status=2)
    if shapes_file is not None and writer is None:
        raise CommandError("--params is for files of other software: use describe --params", status=2)
    if overrides and writer is not None:
        raise CommandError("--set is for recipes of ours: convert this file first, and change what it became", status=2)
    for name, value in numbers.items():
        if value is not None and writer != _NUMBERS[name]:
            raise CommandError(f"--{name.replace('_', '-')} is for {_SAID[_NUMBERS[name]]}", status=2)
    to = _target_format(file, output, to, translated=writer is not None)
    if writer is None:
        with warnings_of(file):
            loaded = config.load(file, overrides=overrides)
        _write(config.to_dict(loaded, exclude_defaults=not all_fields), [], output, to)
        return 0
    shapes = None if shapes_file is None else read_shapes(shapes_file)
    with warnings_of(file):
        translation = interop.translate(file, base, written_by=writer, **numbers)
    loaded = translation.config
    optimizer = loaded.optimizer if isinstance(loaded, OptimizationConfig) else loaded
    if shapes is not None and not isinstance(optimizer, UpdateRule):
        raise CommandError(f"{file}: --params is for optimizers, and this is a schedule", status=2)
    notes = list(translation.notes)
    if shapes is not None and isinstance(optimizer, UpdateRule):
        notes += _matches(optimizer, shapes)
    over = "" if base is None else f", over {Path(base).name}"
    data, comments = _as_written(loaded, notes, all_fields)
    if to == "yaml":  # of which nobody sees the comments, if it goes into a file
        _warn_about(file, notes)
    _write(data, [Comment((), f"Converted from {Path(file).name}{over}."), *comments], output, to)
    if shapes is not None and isinstance(optimizer, UpdateRule) and (problems := unmatched(optimizer, shapes)):
        sys.stdout.flush()  # before what goes to standard error
        raise ConfigError(file, [Problem(f"optimizer.{path}", message) for path, message in problems])
    return 0


def _writer(file: str, written_by: str | None) -> _Writer | None:
    """Return who wrote a file, as it says or as the option does; None for a recipe of ours."""
    if written_by is None:
        return interop.identify_writer(file)
    return None if written_by == _OURS else cast(_Writer, written_by.replace("-", "_"))


def _refuse_to_overwrite(output: str, inputs: Sequence[str | None]) -> None:
    """Raise an error if the output is there: recipes are edited by hand, and comments would be lost."""
    file_suffix(output)  # so that a name that is refused anyway is not said to exist
    if not os.path.exists(output) or os.path.isdir(output):  # into which nothing can be written
        return
    is_input = any(one is not None and os.path.exists(one) and os.path.samefile(one, output) for one in inputs)
    what = "is a file that this command reads" if is_input else "exists"
    raise CommandError(f"{output}: {what}: give -o another name, or --overwrite to replace it", status=2)


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


def _as_written(
    loaded: Schema, notes: Sequence[interop.Note], all_fields: bool
) -> tuple[dict[str, Any], list[Comment]]:
    """Return a translated recipe as a person would write it, and what is to be said about it."""
    changed: dict[float, float] = {}
    data = short_numbers(config.to_dict(loaded), changed)
    comments = [comment_of(note, data) for note in notes]
    if not all_fields:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # which were told when the recipe was translated
            shortened = config.from_dict(data)  # some numbers may have become defaults
        data = without_defaults(data, config.to_dict(shortened, exclude_defaults=True), comments)
    if changed:
        written = [*_numbers_in(data)]  # of which one is shown, unless all of them have become defaults
        number, short = next((pair for pair in changed.items() if pair[1] in written), next(iter(changed.items())))
        text = "Numbers that are float32 roundings of short decimals are written as these"
        comments.insert(0, Comment((), f"{text}, which are the same in float32: {short} for {number}."))
    return data, comments


def _numbers_in(data: Any) -> Iterator[Any]:
    if isinstance(data, dict | list):
        for value in cast(dict[str, Any], data).values() if isinstance(data, dict) else cast(list[Any], data):
            yield from _numbers_in(value)
    elif isinstance(data, float):
        yield data


def _warn_about(file: str, notes: Iterable[interop.Note]) -> None:
    """Tell on standard error what the importers warn about."""
    for note in notes:
        if note.surprising:
            print(f"{file}: warning: {note}", file=sys.stderr)


def _matches(optimizer: UpdateRule, shapes: Any) -> list[interop.Note]:
    """Say for each pattern which parameters it matches, and for each list how many."""
    notes: list[interop.Note] = []
    total = size(shapes).parameters
    for field, matches, left in pattern_lists(optimizer, shapes):
        if not matches:
            continue
        lines = [f"{pattern!r} matches {', '.join(paths) or 'NOTHING'}" for pattern, paths in matches]
        lines.append(f"{total - left.parameters} of {total} parameters in all")
        notes += [interop.Note(f"optimizer.{field}", line, surprising=False) for line in lines]
    return notes


def _write(data: dict[str, Any], comments: Sequence[Comment], output: str | None, to: _Format) -> None:
    if to == "json":  # JSON has no comments
        for comment in comments:
            sys.stderr.writelines(wrap_comment(comment.text))
        text = json_text(data)
    else:
        text = insert_comments(yaml_text(data), comments)
    if output is None:
        sys.stdout.write(text)
    else:
        write_text(output, text)
