"""Errors of configs: problems as data, the text made from them, and wording that errors share."""

import difflib
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

# ---------------------------------------------------------------------------------------------------------
# Errors: problems as data, and the text made from them.


class Problem(NamedTuple):
    """One thing wrong with a config: the dotted ``path`` to it, and a ``message`` that says what is accepted."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(ValueError):
    """All problems of one config in one error.

    Args:
      subject: What was read, such as a class name or a file name.
      problems: At least one [`Problem`][optax_ext.config.Problem].

    Examples:
      >>> import optax_ext
      >>> try:
      ...     optax_ext.CosineDecay(initial_learning_rate=-1.0, decay_steps=0)
      ... except optax_ext.config.ConfigError as error:
      ...     for problem in error.problems:
      ...         print(problem)
      initial_learning_rate: must be greater than or equal to 0, got -1.0
      decay_steps: must be greater than 0, got 0
    """

    subject: str
    problems: tuple[Problem, ...]

    def __init__(self, subject: str, problems: Iterable[Problem]) -> None:
        self.subject = subject
        self.problems = tuple(problems)
        super().__init__(_text(subject, self.problems))  # where loggers and error trackers look for it

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild a copy from the data, since ``args`` has the text alone; the rest is notes."""
        return type(self), (self.subject, self.problems), vars(self)


def _text(subject: str, problems: Sequence[Problem]) -> str:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"{subject}: {count}", *map(str, problems[:_MAX_LINES])]
    if len(problems) > _MAX_LINES:
        lines.append(f"and {len(problems) - _MAX_LINES} more")
    return "\n  ".join(lines)


_MAX_LINES = 100
_MAX_WORDS = 40
for _public in (Problem, ConfigError):
    _public.__module__ = "optax_ext.config"  # a traceback shows the public name


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest known word, or nothing when none is close."""
    by_lower_case = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(word).lower(), by_lower_case, n=1)
    return f" (did you mean {by_lower_case[close[0]]!r}?)" if close else ""


def join_words(words: Iterable[str]) -> str:
    """Return words as a quoted, comma-separated list; of very many, only the first."""
    quoted = [repr(word) for word in words]
    more = f" and {len(quoted) - _MAX_WORDS} more" if len(quoted) > _MAX_WORDS else ""
    return ", ".join(quoted[:_MAX_WORDS]) + more


def join_keys(keys: Iterable[str]) -> str:
    """Join the keys that lead to a place in a config into its path."""
    # A key with control characters is a wrong key, and must not break the lines of an error's text.
    return ".".join(key if key.isprintable() else repr(key) for key in keys)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def shorten(value: object) -> str:
    """Return the `repr` of a value as an error shows it: on one line, and not too long."""
    try:
        return _short.repr(value)
    except ValueError:  # Python refuses to write out an integer of thousands of digits
        return f"{type(value).__name__} too long to show"
