"""Which kind of container a path is, by its first bytes or by its name."""

import os
from pathlib import Path

from optax_ext._core.errors import shorten
from optax_ext._core.files import decode_text, file_error, read_bytes, read_json, require_file
from optax_ext.interop.containers._contents import MAX_BYTES, Contents

_MAX_CARD = 2**20  # bytes of a model card, which may hold the numbers of every epoch
_ZIP, _HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"
_HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
# What a directory holds, the one that tells most first.
_IN_DIRECTORIES = ("keras_metadata.pb", "saved_model.pb", "config.json", "model.json")


def read_container(path: str | os.PathLike[str]) -> Contents | None:
    """Return what a saved model or a model card holds; None for a file of plain JSON or YAML.

    Args:
      path: A file, or the directory of a SavedModel.

    Returns:
      Its contents.

    Raises:
      ConfigError: If there is nothing that can be read, or it is damaged.

    Examples:
      >>> from optax_ext.interop import containers
      >>> containers.read_container("no such file.json")
      Traceback (most recent call last):
        ...
      optax_ext.config.ConfigError: no such file.json: 1 problem
        there is no such file
    """
    try:
        name = os.fspath(path)
        is_directory = os.path.isdir(path)
    except (TypeError, ValueError) as error:
        raise file_error(shorten(path), f"must be the path of a file: {error}") from None
    if not isinstance(name, str):
        raise file_error(shorten(path), f"the path must be text, got {type(name).__name__}")
    if is_directory:
        return _read_directory(name)
    require_file(name)
    suffix = Path(name).suffix.lower()
    start = _first_bytes(name)
    if start.startswith(_ZIP) or suffix == ".keras":
        if start.startswith(_HDF5):  # as TensorFlow before 2.12 saved a model under this name
            return _read_hdf5(name)
        from optax_ext.interop.containers._archive import read_archive

        return Contents(read_archive(name), name)
    if start.startswith(_HDF5) or suffix in _HDF5_SUFFIXES:
        return _read_hdf5(name)
    if suffix == ".pb":
        from optax_ext.interop.containers._saved_model import read_saved_model

        return read_saved_model(name)
    if suffix == ".json":
        return None
    from optax_ext.interop.containers._model_card import is_card, read_card

    if suffix in (".md", ".markdown") or is_card(start.decode("utf-8", "replace")):
        return Contents(*read_card(decode_text(read_bytes(name, _MAX_CARD), name), name))
    return None


def _first_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(20_000)
    except OSError as error:
        raise file_error(path, f"cannot be read: {error}") from None


def _read_hdf5(path: str) -> Contents:
    from optax_ext.interop.containers._hdf5 import read_hdf5

    return Contents(read_hdf5(path), path)


def _read_directory(path: str) -> Contents:
    name = next((name for name in _IN_DIRECTORIES if os.path.lexists(os.path.join(path, name))), None)
    if name is None:
        accepted = ", ".join(_IN_DIRECTORIES)
        raise file_error(path, f"must be a file, or the directory of a saved model, which holds one of {accepted}")
    file = os.path.join(path, name)
    if name.endswith(".pb"):
        from optax_ext.interop.containers._saved_model import read_saved_model

        return read_saved_model(file)
    return Contents(read_json(decode_text(read_bytes(file, MAX_BYTES), file), file), file)
