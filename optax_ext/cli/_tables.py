"""Tables that break lines between words alone, and are lists where a word is too long for a column."""

import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from optax_ext.cli._errors import need

if TYPE_CHECKING:
    from rich.table import Table

_AROUND = 3  # columns of the screen that a column takes beside its text


class Rows(NamedTuple):
    """What a table shows.

    Attributes:
      heading: What stands above it.
      columns: The name of each column.
      rows: The cells of each row.
      right: The columns that are aligned to the right.
    """

    heading: str
    columns: tuple[str, ...]
    rows: Iterable[tuple[str, ...]]
    right: tuple[str, ...] = ()


def rendered(shown: Rows, width: int) -> "Table | str":
    """Return a table no wider than the screen, or a list if words of its columns do not fit beside each other.

    It is empty if there are no rows.
    """
    rows = [*shown.rows]
    if not rows:
        return ""
    columns = [*zip(shown.columns, *rows, strict=True)]
    natural = [max(len(line) for cell in column for line in cell.split("\n")) for column in columns]
    needed = [max(map(_longest_word, column)) for column in columns]
    left = width - _AROUND * len(columns) - 1 - sum(needed)
    if left < 0:
        return "\n".join(["", *(line for row in rows for line in _listed(row, width)), ""])
    table = need("describe", "rich.table").Table(box=need("describe", "rich.box").SIMPLE_HEAD)
    for name, wanted, least in zip(shown.columns, natural, needed, strict=True):
        more = min(wanted - least, left)
        left -= more
        table.add_column(name, justify="right" if name in shown.right else "left", width=least + more)
    for row in rows:
        table.add_row(*row)
    return table


def _longest_word(cell: str) -> int:
    """Return the width of the longest word; the first one with the blanks before it."""
    indent = len(cell) - len(cell.lstrip())
    words = cell.split()
    return max((len(word) + (indent if place == 0 else 0) for place, word in enumerate(words)), default=0)


def _listed(row: tuple[str, ...], width: int) -> Iterator[str]:
    """Yield the lines of a row: its short cells, and the last one below them, with a word to a line if need be."""
    *heads, last = (cell.replace("\n", ", ") for cell in row)
    indent = " " * (2 + len(row[0]) - len(row[0].lstrip()))
    head = ", ".join(head.strip() for head in heads if head.strip())
    yield from _wrapped(f"{head}:" if last else head, indent, width)
    yield from _wrapped(last, f"{indent}    ", width)


def _wrapped(text: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        max(width, len(indent) + 1),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
