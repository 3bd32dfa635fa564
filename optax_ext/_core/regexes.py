r"""Regular expressions that a config may hold: Python's meaning, in bounded time.

Python's engine tries every way to match, of which ``(\w+)*!`` has more on one path than there are seconds in a year. So
patterns that both engines read alike are run by Rust's, which pydantic brings along: it takes time linear in the path.
What that one lacks or reads otherwise, such as lookaround, backreferences, flags and ``\b``, stays with Python's, and
is refused if there may be too many ways.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

_MAX_LENGTH = 1000  # characters of a pattern; those of real recipes have less than 200
_MAX_CHARACTERS = 2000  # of a list's patterns but for plain names, since Rust's programs take memory
_MAX_CLASSES = 20  # of a pattern, such as `\w`, since each takes a megabyte of Rust's engine when repeated
_PATH = 100  # characters of a long path
_MAX_STEPS = 4_000_000  # of Python's engine for a list's patterns on one path, hundredths of a second
_NAME = re.compile(r"[\w/.-]*", re.ASCII)  # a plain name, which takes no memory to speak of


class PathPattern(NamedTuple):
    """A pattern that can be searched for."""

    text: str
    is_in: Callable[[str], bool]
    steps: float  # at most, of Python's engine on a long path; 0 by Rust's


@functools.lru_cache(maxsize=64)
def compile_pattern(text: str) -> PathPattern:
    """Return one pattern to search for; raise ValueError that says what is wrong with it."""
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"it may have {_MAX_LENGTH} characters, got {len(text)}")
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


def check_together(patterns: Sequence[PathPattern]) -> None:
    """Raise ValueError if patterns, each quick enough, would search for too long together."""
    characters = sum(len(text) for text in {pattern.text for pattern in patterns} if not _NAME.fullmatch(text))
    if characters > _MAX_CHARACTERS:
        raise ValueError(
            f"patterns may have {_MAX_CHARACTERS} characters together, besides plain names; got {characters}"
        )
    if sum(pattern.steps for pattern in patterns) > _MAX_STEPS:
        raise ValueError(f"{len(patterns)} patterns may search for too long together: merge some into one with '|'")


def _count_steps(text: str) -> float:
    """Return an upper bound of the steps on a long path: each choice doubles them, each repeat tries each place."""
    if re.search(r"\)[*+{]|\(\?[a-zA-Z]*x", text):
        return float("inf")  # repeated choices are too many to count; comments and blanks can hide them
    choices = len(re.findall(r"\||(?<!\()\?", text))
    repeats = len(re.findall(r"[*+{]", text))
    return 2**choices * _PATH ** (repeats + 1)


# Tokens that both engines know. Counts are not among them: the size of Rust's program, and its time, is their product.
_TOKEN = re.compile(
    r"""  [\w/ ,:;=@%!"'`-]                             # a character
        | \\[.^$|?*+()\[\]{}\\/-] | \\[dDsSwW]        # an escape
        | [.^$|)] | \((?:\?:|(?!\?))
        | \[\^?(?:[\w/.,: ](?:-[a-zA-Z0-9])?|\\[.\\/dDsSwW-])+-?\]
        | [*+?]\??(?!\+)
    """,
    re.VERBOSE | re.ASCII,
)
# And those that mean the same in another spelling: `$` stands before a last newline too, and words have no marks.
_SPELLINGS = {
    "$": r"(?:\n?\z)",
    r"\s": r"[\s\x1c-\x1f]",
    r"\S": r"[^\s\x1c-\x1f]",
    r"\w": r"[\p{L}\p{N}_]",
    r"\W": r"[^\p{L}\p{N}_]",
}


def _linear_search(text: str) -> Callable[[str], bool] | None:
    """Return a search by Rust's engine, or None if it would not mean the same."""
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
        return None  # too large a program

    def search(path: str) -> bool:
        try:
            validator.validate_python(path, strict=True)
        except ValidationError:
            return False
        return True

    return search
