"""Text files and JSON: reading of limited size, and atomic writing."""

import collections
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from optax_ext._core.errors import ConfigError, Problem, did_you_mean, shorten

_MAX_BYTES = 100_000  # bytes; real recipes have a few thousand


def write_text(path: str | os.PathLike[str], text: str) -> None:
    path = Path(path)
    target = Path(os.path.realpath(path))  # the target of a link, not the link
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:  # atomic: the old file stays until the new one is complete
        partial.write_text(text, encoding="utf-8")
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


def file_error(path: object, message: str) -> ConfigError:
    return ConfigError(str(path), [Problem("", message)])


def read_text(path: str | os.PathLike[str]) -> str:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise file_error(
                path, "must be a file, got " + ("a directory" if stat.S_ISDIR(status.st_mode) else "a device")
            )
        if status.st_size > _MAX_BYTES:
            raise file_error(path, f"must have at most {_MAX_BYTES} bytes, got {status.st_size}")
        with open(path, encoding="utf-8-sig") as file:
            return file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        folder = Path(path).parent
        near = did_you_mean(Path(path).name, os.listdir(folder)) if folder.is_dir() else ""
        raise file_error(path, f"there is no such file{near}") from None
    except UnicodeDecodeError as error:
        raise file_error(
            path, f"must be UTF-8 text, got byte {error.object[error.start]:#x} at {error.start}"
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise file_error(path, f"cannot be read: {error}") from None


def read_json(text: str, source: str) -> Any:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := duplicates(key for key, _ in pairs):
            raise file_error(source, f"the key {shorten(twice[0])} occurs twice in one object")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=without_duplicates)
    except ConfigError:
        raise
    except json.JSONDecodeError as error:
        raise file_error(source, f"is not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, or deeply nested brackets
        raise file_error(source, f"is not JSON that can be read: {error}") from None
