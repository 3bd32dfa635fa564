"""Numbers of steps in the words of a recipe, such as "5 epochs", "10%" or "300k examples"."""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from optax_ext._core.errors import did_you_mean
from optax_ext._core.relative import Relative

EXAMPLES = "'5 epochs', '10%', '300k examples' or '100% - 5 epochs'"
UNITS = ("steps", "epochs", "examples", "%")
_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9}
_NUMBER = r"[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?"
_FACTOR = r"(?:[kMB](?![A-Za-z]))?"
_MAX_EXPONENT = 30  # far more than any run has steps, and few enough digits to compute with
_TERM = re.compile(rf"\s*(?P<sign>[+-]?)\s*(?P<number>{_NUMBER})\s*(?P<factor>{_FACTOR})\s*(?P<unit>%|[A-Za-z]+)?")
_ANY_TERM = rf"{_NUMBER}\s*{_FACTOR}\s*(?:%|steps?|epochs?|examples?)"
PATTERN = rf"^\s*[+-]?\s*{_ANY_TERM}(?:\s*[+-]\s*{_ANY_TERM})*\s*$"  # for editors
_MAX_LENGTH = 200
_OTHER_WORDS = {
    **dict.fromkeys(("batch", "batches", "ba", "iteration", "iterations", "iter", "iters"), "steps"),
    **dict.fromkeys(("update", "updates"), "steps"),
    **dict.fromkeys(("image", "images", "sample", "samples", "sp"), "examples"),
    **dict.fromkeys(("ep", "pass", "passes"), "epochs"),
    **dict.fromkeys(("percent", "pct", "dur"), "%"),
}


class Term(NamedTuple):
    """One term of a duration: so many of a unit, exactly."""

    amount: Fraction
    unit: str


class Duration(str, Relative):
    """A number of steps in words, as it was written, and the terms whose sum it is.

    It is text, equal to and hashed as what was written, so that a recipe keeps its words. Each term is rounded to whole
    steps by itself: what meets in words, as the end of a warm-up and the start of a decay do, meets in steps.
    """

    terms: tuple[Term, ...]

    def __new__(cls, text: str) -> "Duration":
        """Parse a text; raise ValueError, with what is wrong in words, if it is not a duration."""
        duration = super().__new__(cls, text)
        duration.terms = _parse(text)
        return duration

    def __reduce__(self) -> tuple[Any, ...]:
        return Duration, (str(self),)

    def steps(self, steps_in: Callable[[Fraction, str], Fraction]) -> int:
        """Return the duration in whole steps.

        Args:
          steps_in: Returns, exactly, how many steps an amount of a unit takes.

        Returns:
          The sum of the terms, each rounded to the nearest integer, a half to the even one, and to at least 1 if it
          is more than 0.
        """
        return sum(_round(steps_in(amount, unit)) for amount, unit in self.terms)


def _round(steps: Fraction) -> int:
    size = max(round(abs(steps)), 1) if steps else 0
    return size if steps > 0 else -size


def _parse(text: str) -> tuple[Term, ...]:
    terms: list[Term] = []
    position = 0
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"it has more than {_MAX_LENGTH} characters")
    while position < len(text.rstrip()):
        found = _TERM.match(text, position)
        if found is None or (terms and not found["sign"]):
            raise ValueError(f"it is not a number and a unit, or a sum of these, as {EXAMPLES} are")
        terms.append(Term(_amount(found), _unit(found["unit"])))
        position = found.end()
    if not terms:
        raise ValueError(f"it is empty, and not {EXAMPLES}")
    return tuple(terms)


def _amount(found: "re.Match[str]") -> Fraction:
    number = found["number"].replace("_", "").lower()
    if abs(int(number.partition("e")[2] or 0)) > _MAX_EXPONENT:
        raise ValueError(f"{number!r} is out of range")
    amount = Fraction(number) * _FACTORS[found["factor"]]
    return -amount if found["sign"] == "-" else amount


def _unit(word: str | None) -> str:
    if word is None:
        raise ValueError(f"it has no unit, as {EXAMPLES} have")
    for unit in UNITS:
        if word in (unit, unit.removesuffix("s")):
            return unit
    ours = _OTHER_WORDS.get(word.lower())
    hint = f" (did you mean {ours!r}?)" if ours else did_you_mean(word, UNITS)
    raise ValueError(f"unknown unit {word!r}{hint}, accepted: {', '.join(UNITS)}")
