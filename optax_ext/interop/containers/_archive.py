"""The config of a model in the archive model.keras: JSON in a zip file."""

import io
import zipfile
import zlib
from typing import Any

from optax_ext._core.files import decode_text, file_error, read_json
from optax_ext.interop.containers._contents import MAX_BYTES

_MEMBER = "config.json"
_MAX_READ = 2**20  # bytes read at once: the table of contents, which a real archive fills with a few lines
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What `zipfile` raises for damaged archives, beside its own error.
_DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, LookupError, RuntimeError, OverflowError)


class _BoundedFile(io.FileIO):
    """A file that is never read far at once, whatever its headers ask for."""

    def read(self, size: int | None = -1, /) -> bytes:
        known = size is not None and 0 <= size <= _MAX_READ
        content = super().read(size if known else _MAX_READ + 1) or b""
        if len(content) > _MAX_READ:
            raise zipfile.BadZipFile("its table of contents is too large")
        return content


def read_archive(path: str) -> Any:
    """Return the JSON of the model's config."""
    try:
        with _BoundedFile(path) as file, zipfile.ZipFile(file) as archive:
            content = _read_member(archive, path)
    except UnicodeDecodeError:
        raise file_error(path, "is a damaged archive: its names are no text") from None
    except _DAMAGED as error:
        if type(error).__module__ == "optax_ext.config":
            raise
        raise file_error(path, f"is no archive of Keras that can be read: {_text(error)}") from None
    return read_json(decode_text(content, path), path)


def _read_member(archive: zipfile.ZipFile, path: str) -> bytes:
    try:
        member = archive.getinfo(_MEMBER)
    except KeyError:
        names = archive.namelist()
        held = ", ".join(repr(name)[:60] for name in names[:5]) + (" …" if len(names) > 5 else "")
        weights = any(name.endswith(".weights.h5") for name in names)
        hint = ": it holds weights alone" if weights else ""
        raise file_error(path, f"must hold {_MEMBER!r}, as model.keras does, got {held or 'nothing'}{hint}") from None
    if member.file_size > MAX_BYTES or member.compress_type not in _PLAIN:
        text = f"{_MEMBER} must have at most {MAX_BYTES} bytes, deflated or stored, got {member.file_size}"
        raise file_error(path, text)
    with archive.open(member) as file:
        content = file.read(MAX_BYTES + 1)  # the size that the archive claims may be wrong
        if len(content) > MAX_BYTES:
            raise file_error(path, f"{_MEMBER} must have at most {MAX_BYTES} bytes")
    return content


def _text(error: BaseException) -> str:
    text = str(error)[:200]
    return text if text.isprintable() else repr(text)
