"""Reading and writing of config files."""

import os
from pathlib import Path
from typing import Any

from optax_ext._core.errors import shorten
from optax_ext._core.files import file_error, json_text, read_json, read_text, write_text
from optax_ext._core.public import public
from optax_ext._core.schema import Schema
from optax_ext._core.yaml_files import read_yaml, yaml_text
from optax_ext.config._codec import from_dict, to_dict


@public
def load(path: str | os.PathLike[str]) -> Any:
    """Read a config from a JSON or YAML file.

    YAML is read by the rules of YAML 1.2: ``1e-3`` is a number, and only ``true`` and ``false`` are bool, so that
    ``off`` and ``no`` stay text. Nothing in a file is ever executed.

    Args:
      path: A file whose name ends in ``.json``, ``.yaml`` or ``.yml``.

    Returns:
      The config, as [`from_dict`][optax_ext.config.from_dict] builds it.

    Raises:
      ConfigError: If the file does not exist, is not JSON or YAML, or is not a valid config.

    Examples:
      >>> import tempfile
      >>> from optax_ext import config
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     config.save(config.LARS(learning_rate=0.5), f"{folder}/recipe.yaml")
      ...     config.load(f"{folder}/recipe.yaml").learning_rate
      0.5
    """
    read = read_json if _suffix(path) == ".json" else read_yaml
    return from_dict(read(read_text(path), str(path)), source=str(path))


@public
def save(config: Schema, path: str | os.PathLike[str], *, exclude_defaults: bool = False) -> None:
    """Write a config to a JSON or YAML file, replacing one that exists.

    Args:
      config: Any config, or part of one.
      path: A file whose name ends in ``.json``, ``.yaml`` or ``.yml``.
      exclude_defaults: Whether to leave out fields that have their default value.

    Raises:
      ConfigError: If the suffix is not one of these, or the file cannot be written.

    Examples:
      See [`load`][optax_ext.config.load].

      >>> from optax_ext import config
      >>> config.save(config.LARS(learning_rate=0.5), "recipe.txt")
      Traceback (most recent call last):
        ...
      optax_ext.config.ConfigError: recipe.txt: 1 problem
        the file's name must end in .json, .yaml or .yml, got '.txt'
    """
    as_text = json_text if _suffix(path) == ".json" else yaml_text
    write_text(path, as_text(to_dict(config, exclude_defaults=exclude_defaults)))


def _suffix(path: str | os.PathLike[str]) -> str:
    if not isinstance(path, str | os.PathLike):
        raise file_error(shorten(path), "the path of the file must be text")
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".yaml", ".yml"):
        raise file_error(path, f"the file's name must end in .json, .yaml or .yml, got {suffix!r}")
    return suffix
