"""The arguments of a run of PyTorch, as a file keeps them: read by name, with the type that each must have."""

import contextlib
import difflib
from collections.abc import Collection, Mapping
from typing import Any, SupportsIndex

from optax_ext._core.errors import did_you_mean, join_words, shorten
from optax_ext._core.field_types import FLOAT32_MAX
from optax_ext.interop._report import Report, is_number, join


def is_finite(value: object) -> bool:
    """Return whether this is a number that floating point can hold; a bool is not."""
    return is_number(value) and -FLOAT32_MAX <= value <= FLOAT32_MAX  # pyright: ignore[reportOperatorIssue]


class Arguments:
    """Reads arguments by name, and reports those that are not what they must be.

    Args:
      data: The arguments as they were written.
      defaults: What is read where an argument is missing or null, by name: each argument that counts here.
      report: What collects problems and notes.
      path: Where they were written.
    """

    def __init__(self, data: Mapping[Any, Any], defaults: Mapping[str, Any], report: Report, path: str = "") -> None:
        self.data = data
        self.defaults = defaults
        self.report = report
        self.path = path

    def given(self, name: str) -> bool:
        """Return whether an argument is there and not null."""
        return self.data.get(name) is not None

    def value(self, name: str) -> Any:
        """Return an argument as it is, or its default."""
        return self.data[name] if self.given(name) else self.defaults[name]

    def number(self, name: str) -> Any:
        """Return a number, or the default where it is none; text such as ``1e-4``, which YAML 1.1 has, is one too."""
        value = self.value(name)
        with contextlib.suppress(ValueError):
            value = float(value) if isinstance(value, str) else value
        return self._checked(name, value, is_finite(value) or value is None, "a number")

    def number_or_none(self, name: str) -> float | None:
        """Return a number, or None where null is written, which is not the default."""
        return None if name in self.data and self.data[name] is None else self.number(name)

    def integer(self, name: str) -> Any:
        """Return an integer, or the default where it is none."""
        value = self.number(name)
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        return self._checked(name, value, isinstance(value, int) or value is None, "an integer")

    def flag(self, name: str) -> Any:
        """Return a bool, or the default where it is none."""
        value = self.value(name)
        return self._checked(name, value, isinstance(value, bool), "true or false")

    def text(self, name: str) -> Any:
        """Return text, or the default where it is none."""
        value = self.value(name)
        return self._checked(name, value, isinstance(value, str), "text")

    def numbers(self, name: str, count: int | None = None) -> Any:
        """Return a list of numbers, or the default where it is none; of `count` of them, if that is given."""
        value = self.value(name)
        fits = isinstance(value, list | tuple) and all(map(is_finite, value)) and count in (None, len(value))
        wanted = "a list of numbers" if count is None else f"a list of {count} numbers"
        return self._checked(name, value, fits or value is None, wanted)

    def count(self, name: str, given: object) -> int | None:
        """Return a number of things that the caller gave beside the arguments, or None if it was not given."""
        if given is None:
            return None
        if isinstance(given, SupportsIndex) and not isinstance(given, bool) and int(given) > 0:
            return int(given)
        self.report.problem(name, f"must be an integer greater than 0, got {shorten(given)}")
        return 1  # so that nobody asks for it again

    def problem(self, name: str, text: str) -> None:
        """Add a reason to refuse one argument."""
        self.report.problem(join(self.path, name), text)

    def note(self, name: str, text: str, *, surprising: bool = False) -> None:
        """Say something about one argument."""
        self.report.note(join(self.path, name), text, surprising=surprising)

    def report_unknown(self, known: Collection[str], whose: str) -> None:
        """Report what looks like a misspelling of an argument that counts here, and note what else is not known."""
        unknown = [str(name) for name in self.data if name not in known and name not in self.defaults]
        others: list[str] = []
        for name in unknown:
            if difflib.get_close_matches(name.lower().replace("-", "_"), self.defaults, n=1, cutoff=0.8):
                self.problem(name, f"is not an argument of {whose}{did_you_mean(name, self.defaults)}")
            else:
                others.append(name)
        if others:
            text = f"not arguments of {whose}, and ignored: {join_words(sorted(others))}"
            self.report.note("", text, surprising=True)

    def _checked(self, name: str, value: Any, fits: bool, wanted: str) -> Any:
        if fits:
            return value
        self.problem(name, f"must be {wanted}, got {shorten(self.value(name))}")
        return self.defaults[name]
