"""What a translation has to say: problems, which refuse a recipe, and notes on what it changed."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from optax_ext._core.errors import ConfigError, Problem, join_keys
from optax_ext._core.public import public
from optax_ext._core.schema import Schema

_S = TypeVar("_S", bound=Schema)


@public
class TranslationWarning(UserWarning):
    """A recipe was read as what it means, which is not what TensorFlow makes of it, or not all it may have meant.

    Examples:
      >>> import warnings
      >>> from optax_ext import interop
      >>> warnings.simplefilter("ignore", interop.TranslationWarning)
    """


class Note(NamedTuple):
    """One thing that reads otherwise than it was written; a ``surprising`` one is a warning too."""

    path: str
    text: str
    surprising: bool

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


@dataclasses.dataclass
class Report:
    """Collects problems and notes, so that all of them are told at once."""

    problems: list[Problem] = dataclasses.field(default_factory=list[Problem])
    notes: list[Note] = dataclasses.field(default_factory=list[Note])
    _said: set[Problem | Note] = dataclasses.field(default_factory=set[Problem | Note], init=False)  # the same

    def problem(self, path: str, text: str) -> None:
        """Add a reason to refuse the recipe."""
        problem = Problem(join_keys([path]), text)
        if problem not in self._said:
            self._said.add(problem)
            self.problems.append(problem)

    def note(self, path: str, text: str, *, surprising: bool = False) -> None:
        """Add something that was changed; once, however often it occurs."""
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

    def warn(self, stacklevel: int) -> None:
        """Warn of every surprising note."""
        for note in self.notes:
            if note.surprising:
                warnings.warn(str(note), TranslationWarning, stacklevel=stacklevel + 1)


def join(path: str, name: str) -> str:
    """Return the path of `name` below `path`."""
    return f"{path}.{name}" if path and name else path or name


def is_number(value: object) -> bool:
    """Return whether this is a Python number, bool not counted."""
    return isinstance(value, int | float) and not isinstance(value, bool)
