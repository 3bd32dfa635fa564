"""The optimizer in a model card that Keras's callbacks of transformers and huggingface_hub wrote: Markdown."""

import re
from collections.abc import Iterator
from typing import Any

from optax_ext._core.errors import shorten
from optax_ext._core.files import file_error
from optax_ext.interop._python_literal import read_literal, read_value

# transformers writes a list with the dict of a `get_config`, huggingface_hub a table of one: a field a row, and before
# 0.5 a field a column.
_BULLET = re.compile(r"^[ \t]*[-*] optimizer:[ \t]*(.*)$", re.MULTILINE)
_ROW = re.compile(r"^[ \t]*\|(.*)\|[ \t]*$")
_HEADER = ["Hyperparameters", "Value"]
_OF_THE_MODEL = "training_precision"  # the dtype policy of the layers, not of the optimizer
_OF_OPTIMIZERS = ("learning_rate", "lr", "inner_optimizer", "optimizer")
_ACCEPTED = (
    "a line '- optimizer: {…}' or a table of hyperparameters, as transformers and huggingface_hub write them for Keras"
)
_MAX_DEPTH = 32


def is_card(text: str) -> bool:
    """Whether a text is part of a model card: it has the line of an optimizer that transformers writes."""
    found = _BULLET.search(text)
    return found is not None and found[1].startswith("{")


def read_card(text: str, path: str) -> tuple[Any, str, tuple[str, ...]]:
    """Return the one optimizer of a model card, the path of its file, and its place in the card."""
    found = [*_bullets(text, path), *_tables(text, path)]
    if not found:
        raise file_error(path, f"names no optimizer of Keras: a model card must have {_ACCEPTED}")
    places = {place: data for data, place in found}
    if len(places) > 1 and any(data != found[0][0] for data, _ in found):
        lines = ", ".join(places)
        raise file_error(
            path, f"names {len(places)} optimizers, in {lines}: write the one that is meant to a JSON file"
        )
    return found[0][0], path, ("optimizer",)


def _bullets(text: str, path: str) -> Iterator[tuple[Any, str]]:
    for match in _BULLET.finditer(text):
        line, value = _line(text, match.start()), match[1].strip()
        if value == "None":
            raise file_error(path, f"has no optimizer: {line} says None, since the model was not compiled")
        if not value.startswith("{"):
            wrote = "transformers' PyTorch Trainer writes such a line, which leaves most of the config out"
            raise file_error(path, f"{line}: optimizer: must be the config of Keras's, got {shorten(value)}: {wrote}")
        try:
            yield read_literal(value), line
        except ValueError as error:
            raise file_error(path, f"{line}: optimizer: is no dict that can be read: {error}") from None


def _tables(text: str, path: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield what stands in tables of hyperparameters."""
    rows = [_cells(line) for line in text.split("\n")]
    for index, row in enumerate(rows):
        line = f"line {index + 1}"
        pairs: list[list[str]] = []
        if row == _HEADER:
            for number, cells in enumerate(rows[index + 2 :], index + 3):
                if cells is None:
                    break
                if len(cells) != 2:
                    raise file_error(path, f"line {number}: must have two columns, got {len(cells)}")
                pairs.append(cells)
        elif row is not None and {"name", "learning_rate"} <= {cell.partition(".")[0] for cell in row}:
            values = rows[index + 2] if index + 2 < len(rows) else None
            if values is None or len(values) != len(row):
                raise file_error(path, f"{line}: must have a value for each of its {len(row)} columns, two lines below")
            pairs = [list(pair) for pair in zip(row, values, strict=True)]
        if any(key.partition(".")[0] in _OF_OPTIMIZERS for key, _ in pairs):
            yield _nested(pairs, f"{path}: {line}"), line


def _cells(line: str) -> list[str] | None:
    match = _ROW.match(line)
    return None if match is None else [cell.strip() for cell in match[1].split("|")]


def _nested(pairs: list[list[str]], place: str) -> dict[str, Any]:
    """Return a mapping of which the table has the leaves, with dots between their keys."""
    nested: dict[str, Any] = {}
    for key, value in pairs:
        if key == _OF_THE_MODEL:
            continue
        *parents, name = key.split(".", _MAX_DEPTH)
        holder: Any = nested
        for parent in parents:
            holder = holder.setdefault(parent, {}) if isinstance(holder, dict) else None
        if not isinstance(holder, dict) or name in holder:
            raise file_error(place, f"the table has a value for {shorten(key)} twice")
        holder[name] = read_value(value)
    return nested


def _line(text: str, position: int) -> str:
    return f"line {text.count(chr(10), 0, position) + 1}"
