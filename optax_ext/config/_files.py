"""Reading and writing of config files."""

import os
from collections.abc import Callable
from types import UnionType
from typing import Any, TypeVar, overload

from optax_ext._core.errors import ConfigError, Problem, shorten
from optax_ext._core.files import file_error, file_suffix, json_text, read_json, read_text, write_text
from optax_ext._core.public import public
from optax_ext._core.schema import Schema
from optax_ext._core.yaml_files import read_yaml, yaml_text
from optax_ext.config._codec import to_dict
from optax_ext.config._override import Overrides, read_overridden

_Kind = TypeVar("_Kind", bound=Schema)  # also of a Callable, since mypy takes no abstract class for a type


@overload
def load(path: str | os.PathLike[str], kind: None = None, *, overrides: Overrides = ()) -> Any: ...


@overload
def load(
    path: str | os.PathLike[str], kind: type[_Kind] | Callable[..., _Kind], *, overrides: Overrides = ()
) -> _Kind: ...


@overload
def load(path: str | os.PathLike[str], kind: UnionType, *, overrides: Overrides = ()) -> Any: ...


@public
def load(path: str | os.PathLike[str], kind: Any = None, *, overrides: Overrides = ()) -> Any:
    """Read a config from a JSON or YAML file.

    YAML is read by the rules of YAML 1.2: ``1e-3`` is a number, and only ``true`` and ``false`` are bool, so that
    ``off`` and ``no`` stay text. Nothing in a file is ever executed.

    Args:
      path: A file whose name ends in ``.json``, ``.yaml`` or ``.yml``.
      kind: What the file must hold: a schema such as [`LARS`][optax_ext.config.LARS], a family such as
        [`Optimizer`][optax_ext.config.Optimizer], or a union of them. Type checkers know what is returned then.
      overrides: What is set in the file's data before it is checked, such as ``["optimizer.momentum=0.9"]``, as
        [`override`][optax_ext.config.override] takes it. A field that the file lacks may be required.

    Returns:
      The config, as [`from_dict`][optax_ext.config.from_dict] builds it.

    Raises:
      ConfigError: If there is no such file, it is not JSON or YAML, or is not a valid config of this kind,
        with its overrides.

    Examples:
      >>> import tempfile
      >>> from optax_ext import config
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     config.save(config.LARS(learning_rate=0.5), f"{folder}/recipe.yaml")
      ...     config.load(f"{folder}/recipe.yaml", config.LARS).learning_rate
      ...     config.load(f"{folder}/recipe.yaml", overrides=["learning_rate=1.5", "nesterov=true"])
      0.5
      LARS(learning_rate=1.5, nesterov=True)
    """
    suffix = file_suffix(path, existing=True)
    text = read_text(path)
    data = read_json(text, str(path)) if suffix == ".json" else read_yaml(text, str(path))
    if data is None or data == {}:  # as `---`, `null` and `{}` are read
        raise file_error(path, "is empty")
    return read_overridden(data, overrides, kind, str(path))


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
    if isinstance(path, Schema):
        text = f"takes the config first and then the path, got {shorten(config)} and then {shorten(path)}"
        raise ConfigError("save", [Problem("", text)])
    as_text = json_text if file_suffix(path) == ".json" else yaml_text
    write_text(path, as_text(to_dict(config, exclude_defaults=exclude_defaults)))
