"""What a translation collects on its way: problems, which refuse a recipe, and notes on what it changed."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from optax_ext._core.errors import ConfigError, Problem, join_keys
from optax_ext._core.schema import Schema
from optax_ext.interop._translation import Note

# Stands for a learning rate that has a problem, so that the rest is still read; not 0, which would cause a warning.
PLACEHOLDER_RATE = 1.0

_S = TypeVar("_S", bound=Schema)


@dataclasses.dataclass
class Report:
    """Collects problems and notes, so that all of them are told at once, each of them once."""

    problems: list[Problem] = dataclasses.field(default_factory=list[Problem])
    notes: list[Note] = dataclasses.field(default_factory=list[Note])
    _said: set[Problem | Note] = dataclasses.field(default_factory=set[Problem | Note], init=False)

    def problem(self, path: str, text: str) -> None:
        """Add a reason to refuse the recipe."""
        problem = Problem(join_keys([path]), text)
        if problem not in self._said:
            self._said.add(problem)
            self.problems.append(problem)

    def note(self, path: str, text: str, *, surprising: bool = False) -> None:
        """Add something that was changed."""
        note = Note(join_keys([path]), text, surprising)
        if note not in self._said:
            self._said.add(note)
            self.notes.append(note)

    def build(self, schema: type[_S], fields: Mapping[str, Any], path: str, names: Mapping[str, str]) -> _S | None:
        """Construct a schema; report its problems at `path`, under the ``names`` that the recipe has for its fields."""
        try:
            return schema(**fields)
        except ConfigError as error:
            for place, message in error.problems:
                field, dot, rest = place.partition(".")
                self.problem(join(path, names.get(field, field) + dot + rest), message)
            return None

    def finish(self, subject: str) -> None:
        """Raise the problems if there are any."""
        if self.problems:
            raise ConfigError(subject, self.problems)


def join(path: str, name: str) -> str:
    """Return the path of `name` below `path`."""
    return f"{path}.{name}" if path and name else path or name


def is_number(value: object) -> bool:
    """Return whether this is a Python number; a bool is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
