r"""Regular expressions in configs: with Python's meaning, in bounded time.

Python's engine tries every way to match, and ``(\w+)*!`` has more ways on one path than there are seconds in a year. So
patterns that mean the same in Rust's engine run there: it comes with pydantic and takes time linear in the path.
Patterns with what Rust's engine lacks or reads differently, such as lookaround, backreferences, flags and ``\b``, run
in Python's, and are refused if there may be too many ways to match.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

_MAX_LENGTH = 1000  # characters of a pattern; real recipes use fewer than 200
_MAX_CHARACTERS = 2000  # of a list's patterns except plain names, since Rust's programs take memory
_MAX_CLASSES = 20  # of a pattern, such as `\w`, since each takes a megabyte in Rust's engine when repeated
_PATH = 100  # characters of a long path
_MAX_STEPS = 4_000_000  # of Python's engine for a list's patterns on one path, hundredths of a second
_RANK = re.compile(r"rank\s*<=\s*(\d{1,3})", re.ASCII)
_RANK_LIKE = re.compile(r"(?<!<)\brank\s*[<>=!]")  # no path has such a name in it; a group may be called rank
_NAME = re.compile(r"[\w/.-]*", re.ASCII)  # a plain name, which takes hardly any memory


class PathPattern(NamedTuple):
    """A compiled pattern: a regular expression on paths, or ``rank <= 1``."""

    text: str
    is_in: Callable[[str], bool]
    steps: float  # at most, of Python's engine on a long path; 0 for Rust's
    max_rank: int | None = None  # of a pattern of ranks, which is in no path

    def matches(self, path: str, rank: int | None) -> bool:
        """Whether a parameter matches; the rank of a hole is not known, so that any may match."""
        if self.max_rank is None:
            return self.is_in(path)
        return rank is None or rank <= self.max_rank


@functools.lru_cache(maxsize=64)
def compile_pattern(text: str) -> PathPattern:
    """Compile one pattern; raise a ValueError that says what is wrong with it.

    ``rank <= 1`` is no regular expression but chooses by rank: parameters with at most one axis, as biases and the
    scales of normalization have.
    """
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"it may have {_MAX_LENGTH} characters, got {len(text)}")
    if is_of_ranks(text):
        return _compile_rank(text)
    try:
        compiled = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None
    if linear := _linear_search(text):
        return PathPattern(text, linear, 0)
    steps = _count_steps(text)
    if steps > _MAX_STEPS:
        raise ValueError(
            "it may search for too long. Write it with fewer repeats and alternatives and without repeating a group, or"
            r" without what only Python's engine has: lookaround, backreferences, flags, '\b', rare escapes"
        )
    return PathPattern(text, lambda path: compiled.search(path) is not None, steps)


def compile_numbered(text: str) -> tuple[PathPattern, re.Pattern[str]]:
    """Compile a pattern on paths that has a group, which is a number, or none; raise a ValueError if it is another.

    The second of the two finds the number. It runs in Python's engine, since Rust's does not tell what a group found.
    """
    pattern = compile_pattern(text)
    if pattern.max_rank is not None:
        raise ValueError("it is of ranks, not of paths")
    numbered = re.compile(text)
    if numbered.groups > 1:
        raise ValueError(f"it must have one group, the number, got {numbered.groups}: write the others as (?:...)")
    if _count_steps(text) > _MAX_STEPS:
        raise ValueError("it may search for too long: write it with fewer repeats and alternatives")
    return pattern, numbered


def is_of_ranks(text: str) -> bool:
    """Whether a pattern is of ranks, or was meant to be."""
    return _RANK_LIKE.search(text) is not None


def _compile_rank(text: str) -> PathPattern:
    found = _RANK.fullmatch(text)
    if found is None:
        raise ValueError(
            "a pattern of ranks is written 'rank <= 1', with the largest rank that matches, as an entry of its own"
        )
    return PathPattern(text, lambda path: False, 0, max_rank=int(found[1]))


def check_together(patterns: Sequence[PathPattern]) -> None:
    """Raise ValueError if patterns that are each quick enough would search for too long together."""
    characters = sum(len(text) for text in {pattern.text for pattern in patterns} if not _NAME.fullmatch(text))
    if characters > _MAX_CHARACTERS:
        raise ValueError(
            f"patterns may have {_MAX_CHARACTERS} characters together, besides plain names; got {characters}"
        )
    if sum(pattern.steps for pattern in patterns) > _MAX_STEPS:
        raise ValueError(f"{len(patterns)} patterns may search for too long together: merge some into one with '|'")


def _count_steps(text: str) -> float:
    """Return an upper bound on the steps for a long path: each choice doubles them, each repeat tries each place."""
    if re.search(r"\)[*+{]|\(\?[a-zA-Z]*x", text):
        return float("inf")  # repeated choices are too many to count; comments and blanks can hide them
    choices = len(re.findall(r"\||(?<!\()\?", text))
    repeats = len(re.findall(r"[*+{]", text))
    return 2**choices * _PATH ** (repeats + 1)


# Tokens that both engines know. Counts are not among them: size and time of Rust's program grow with their product.
_TOKEN = re.compile(
    r"""  [\w/ ,:;=@%!"'`-]                             # a character
        | \\[.^$|?*+()\[\]{}\\/-] | \\[dDsSwW]        # an escape
        | [.^$|)] | \((?:\?:|(?!\?))
        | \[\^?(?:[\w/.,: ](?:-[a-zA-Z0-9])?|\\[.\\/dDsSwW-])+-?\]
        | [*+?]\??(?!\+)
    """,
    re.VERBOSE | re.ASCII,
)
# Tokens that Rust spells differently: Python's `$` also matches before a last newline, and its `\w` excludes marks.
_SPELLINGS = {
    "$": r"(?:\n?\z)",
    r"\s": r"[\s\x1c-\x1f]",
    r"\S": r"[^\s\x1c-\x1f]",
    r"\w": r"[\p{L}\p{N}_]",
    r"\W": r"[^\p{L}\p{N}_]",
}


def _linear_search(text: str) -> Callable[[str], bool] | None:
    """Return a search by Rust's engine, or None if the pattern would not mean the same there."""
    tokens: list[str] = []
    if len(re.findall(r"\\[dDsSwW]", text)) > _MAX_CLASSES:
        return None
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            return None
        tokens.append(re.sub(r"\\.|\$", lambda part: _SPELLINGS.get(part[0], part[0]), token[0]))
        position = token.end()
    try:
        pattern = core_schema.str_schema(pattern="".join(tokens), regex_engine="rust-regex")
        validator = SchemaValidator(pattern)
    except SchemaError:
        return None  # the program is too large

    def search(path: str) -> bool:
        try:
            validator.validate_python(path, strict=True)
        except ValidationError:
            return False
        return True

    return search
