"""Text files and JSON: reading of limited size, and atomic writing."""

import collections
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from optax_ext._core.errors import ConfigError, Problem, did_you_mean, shorten

_MAX_BYTES = 100_000  # bytes; real recipes have a few thousand
_SUFFIXES = (".json", ".yaml", ".yml")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    path = Path(path)
    target = Path(os.path.realpath(path))  # what a link leads to, not the link
    partial = target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")
    try:  # whole or not at all: the old file stays until the new one is complete
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # or the new name could survive a power failure, and its text not
        if target.exists():
            shutil.copymode(target, partial)
        os.replace(partial, target)
    except OSError as error:
        raise file_error(path, f"cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


def json_text(data: Any) -> str:
    """Return plain data as JSON."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def duplicates(keys: Iterable[str]) -> list[str]:
    return [key for key, count in collections.Counter(keys).items() if count > 1]


def quote_line(text: str, number: int, column: int = 1) -> str:
    """Return `: ` and a line of a text around a column, both counted from 1; nothing of a blank line."""
    lines = text.split("\n")
    line = lines[number - 1] if number <= len(lines) else ""
    start = max(0, min(column - 60, len(line) - 80))
    part = line[start : start + 80].strip()
    part = "".join(c if c.isprintable() else repr(c)[1:-1] for c in part)
    return f": {'…' if start else ''}{part}{'…' if start + 80 < len(line) else ''}" if part else ""


def file_suffix(path: str | os.PathLike[str], *, existing: bool = False) -> str:
    """Return the suffix of a file of JSON or YAML, in lower case; raise an error for any other path."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        hint = ": config.from_dict reads data" if isinstance(path, Mapping) else ""
        raise file_error(shorten(path), f"the path of the file must be text, got {type(path).__name__}{hint}")
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in _SUFFIXES:
        if os.fspath(path) and file.is_dir():
            raise file_error(path, "must be a file, got a directory")
        names = os.listdir(file.parent) if existing and file.parent.is_dir() else []
        near = did_you_mean(file.name, (name for name in names if name.endswith(_SUFFIXES)))
        raise file_error(path, f"the file's name must end in .json, .yaml or .yml, got {suffix!r}{near}")
    return suffix


def file_error(path: object, message: str) -> ConfigError:
    name = str(path)
    return ConfigError(name if name.isprintable() else repr(name), [Problem("", message)])


def read_text(path: str | os.PathLike[str]) -> str:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a device"
            raise file_error(path, f"must be a file, got {kind}")
        if status.st_size > _MAX_BYTES:
            raise file_error(path, f"must have at most {_MAX_BYTES} bytes, got {status.st_size}")
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise file_error(path, f"there is no such file{_near(os.fspath(path))}") from None
    except UnicodeDecodeError as error:
        hint = _UTF16 if error.object.startswith((b"\xff\xfe", b"\xfe\xff")) else ""
        found = f"byte {error.object[error.start]:#x} at {error.start}"
        raise file_error(path, f"must be UTF-8 text, got {found}{hint}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise file_error(path, f"cannot be read: {error}") from None
    if not text.strip():
        raise file_error(path, "is empty")
    if "\0" in text:
        raise file_error(path, f"must be UTF-8 text, got a zero byte at {text.index(chr(0))}{_UTF16}")
    return text


_UTF16 = ": if it is UTF-16, as Windows tools write, save it as UTF-8"


def _near(path: str) -> str:
    """Return what may be meant by a path to no file."""
    if not path.isprintable():
        return ": its name has control characters, so write it as r'...' in Python, or with '/'"
    if "\\" in path and os.sep == "/":
        return ": separate the folders with '/'"
    if path.startswith("~"):
        return ": only a shell replaces '~', so write the whole path, or use os.path.expanduser"
    folder = Path(path).parent
    if not folder.is_dir():
        return f": there is no folder {os.path.abspath(folder)!r}"
    return did_you_mean(Path(path).name, os.listdir(folder))


def read_json(text: str, source: str) -> Any:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if duplicates(key for key, _ in pairs):
            raise file_error(source, _duplicate_in_json(text))
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=without_duplicates)
    except ConfigError:
        raise
    except json.JSONDecodeError as error:
        hint = "" if text.lstrip().startswith(("{", "[")) else " (the name of a YAML file must end in .yaml)"
        place = f"in line {error.lineno}, column {error.colno}{hint}{quote_line(text, error.lineno, error.colno)}"
        raise file_error(source, f"is not JSON: {error.msg} {place}") from None
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, or brackets without end
        raise file_error(source, f"is not JSON that can be read: {error}") from None


_JSON_TOKEN = re.compile(r'(?P<text>"(?:[^"\\]|\\.)*")(?P<colon>\s*:)?|[{}]')


def _duplicate_in_json(text: str) -> str:
    """Say which key occurs twice in one object, and in which lines; the text is JSON up to the end of that object."""
    objects: list[dict[str, int]] = []  # that are open, each with the lines of its keys
    for token in _JSON_TOKEN.finditer(text):
        if token[0] == "{":
            objects.append({})
        elif token[0] == "}":
            objects.pop()
        elif token["colon"]:
            key, line = json.loads(token["text"]), text.count("\n", 0, token.start()) + 1
            if key in objects[-1]:
                lines = f"in line {objects[-1][key]} and in line {line}{quote_line(text, line)}"
                return f"the key {shorten(key)} occurs twice in one object, {lines}"
            objects[-1][key] = line
    return "a key occurs twice in one object"
