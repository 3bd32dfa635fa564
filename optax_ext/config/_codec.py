"""Configs to plain data and back."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pydantic
from pydantic_core import PydanticCustomError

from optax_ext._schema import (
    ConfigError,
    Problem,
    Schema,
    Tagged,
    as_config_error,
    construct,
    did_you_mean,
    from_tagged,
    init_fields,
    join_keys,
    join_words,
    members,
    shorten,
)
from optax_ext.config._optimization import OptimizationConfig

_DEEPEST = 32  # levels of nesting; real recipes have five
_LARGEST = 100_000  # values in all
_MOST_BITS = 14_000  # of an integer: no float comes near, and Python would soon refuse to write it out in an error


def from_dict(data: Any, *, source: str = "config") -> Any:
    """Build a config from plain data, or raise one error with everything that is wrong in it.

    Args:
      data: A mapping with an ``optimizer``, for a whole [`OptimizationConfig`][optax_ext.config.OptimizationConfig],
        or with a ``type``, for a part of one: an optimizer, a loss scale, or a schedule of ours or of yours. An
        ``ml_collections.ConfigDict`` or an ``omegaconf`` container will do as well.
      source: What the error says the data is, such as a file name.

    Returns:
      The config that the mapping describes.

    Raises:
      ConfigError: If anything is unknown, missing, of a wrong type or out of range.

    Example:
      >>> from optax_ext import config
      >>> config.from_dict({"type": "polynomial_decay", "initial_learning_rate": 0.1, "decay_steps": 0})
      Traceback (most recent call last):
        ...
      optax_ext.config.ConfigError: config: 1 problem
        decay_steps: must be greater than 0, got 0
    """
    if isinstance(data, Schema):
        return data
    plain = plain_data(data, source)
    try:
        if isinstance(plain, Mapping) and "optimizer" in plain:
            return construct(OptimizationConfig, (), plain)
        if isinstance(plain, Mapping) and "type" not in plain:
            known = join_words(members(Tagged))
            near = next((near for key in plain if (near := did_you_mean(key, ["optimizer", "type"]))), "")
            text = f"must have an 'optimizer', or a 'type' that is one of {known}; got {shorten(list(plain))}{near}"
            raise ConfigError(source, [Problem("", text)])
        return from_tagged(Tagged, plain)
    except pydantic.ValidationError as error:
        raise as_config_error(source, error) from None
    except PydanticCustomError as error:  # about the whole
        raise ConfigError(source, [Problem("", error.message())]) from None


def to_dict(config: Schema, *, exclude_defaults: bool = False) -> dict[str, Any]:
    """Write a config as plain data: dicts, lists, text, numbers, bool and None, and nothing else.

    Args:
      config: Any config, or part of one.
      exclude_defaults: Whether to leave out fields that have their default value.

    Returns:
      Data that [`from_dict`][optax_ext.config.from_dict] makes into an equal config, with the ``type`` of each
      part that has one.

    Raises:
      ConfigError: If it is not a config, or holds a value that is not data.

    Example:
      >>> import optax_ext
      >>> optax_ext.config.to_dict(optax_ext.Constant(0.1))
      {'type': 'constant', 'learning_rate': 0.1}
    """
    if not isinstance(config, Schema):
        raise ConfigError("config", [Problem("", f"must be a config, got {shorten(config)}")])
    data: dict[str, Any] = {"type": config.type} if isinstance(config, Tagged) else {}
    for field in init_fields(type(config)):
        value = getattr(config, field.name)
        if not (exclude_defaults and value == field.default):
            data[field.name] = _write(value, field.name, exclude_defaults)
    return data


def _write(value: Any, path: str, exclude_defaults: bool) -> Any:
    if isinstance(value, Schema):
        return to_dict(value, exclude_defaults=exclude_defaults)
    if isinstance(value, tuple):
        return [_write(item, path, exclude_defaults) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError("config", [Problem(path, f"cannot be written as data, got {shorten(value)}")])


def plain_data(data: Any, source: str) -> Any:
    """Turn whatever maps text to values into dicts, within bounds that no recipe comes near."""
    problems: list[Problem] = []
    seen = 0

    def read(value: Any, path: tuple[str, ...]) -> Any:
        nonlocal seen
        seen += 1
        if len(path) > _DEEPEST or seen > _LARGEST:
            text = f"must have at most {_DEEPEST} levels and {_LARGEST} values in all"
            raise ConfigError(source, [Problem(join_keys(path[:4]), text)])
        value = _from_container(value, path, problems)
        if isinstance(value, Mapping):
            place = join_keys(path)  # one text for all of them: it can be as long as the file
            wrong = [key for key in value if not isinstance(key, str)]
            problems.extend(Problem(place, f"must have text for keys, got {shorten(key)}") for key in wrong)
            texts = ((key if isinstance(key, str) else shorten(key), item) for key, item in value.items())
            return {key: read(item, (*path, key)) for key, item in texts}
        if isinstance(value, np.ndarray) and value.ndim:
            value = value.tolist()
        if isinstance(value, list | tuple):
            return [read(item, (*path, str(index))) for index, item in enumerate(value)]
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            problems.append(Problem(join_keys(path), f"must be a finite number, got {shorten(value)}"))
        return value

    plain = read(data, ())
    if problems:
        raise ConfigError(source, problems)
    return plain


def _from_container(value: Any, path: tuple[str, ...], problems: list[Problem]) -> Any:
    """Open the containers of config libraries, which can be here only if their library is."""
    ml_collections, omegaconf = sys.modules.get("ml_collections"), sys.modules.get("omegaconf")
    if ml_collections is not None and isinstance(value, ml_collections.ConfigDict):
        return value.to_dict()
    if omegaconf is not None and omegaconf.OmegaConf.is_config(value):
        try:
            return omegaconf.OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
        except omegaconf.errors.OmegaConfBaseException as error:
            problems.append(Problem(join_keys(path), f"omegaconf cannot resolve it: {error}"))
            return None
    return value
