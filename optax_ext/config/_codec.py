"""Conversion of configs to plain data and back."""

from collections.abc import Mapping
from typing import Any

import pydantic
from pydantic_core import PydanticCustomError

from optax_ext._core.errors import ConfigError, Problem, did_you_mean, join_words, shorten
from optax_ext._core.plain_data import plain_data
from optax_ext._core.public import public
from optax_ext._core.schema import Schema, as_config_error, construct, init_fields
from optax_ext._core.tagged import Tagged, from_tagged, members
from optax_ext.config._recipe import OptimizationConfig


@public
def from_dict(data: Any, *, source: str = "config") -> Any:
    """Build a config from plain data, or raise one error that lists everything wrong with it.

    Args:
      data: A mapping with an ``optimizer``, for a whole [`OptimizationConfig`][optax_ext.config.OptimizationConfig],
        or with a ``type``, for a part of one: an optimizer, a loss scale, or a schedule, also one of your own. An
        ``ml_collections.ConfigDict`` or an ``omegaconf`` container is accepted as well.
      source: What errors call the data, such as a file name.

    Returns:
      The config that the mapping describes.

    Raises:
      ConfigError: If anything is unknown, missing, of a wrong type or out of range.

    Examples:
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
    except PydanticCustomError as error:  # about the config as a whole
        raise ConfigError(source, [Problem("", error.message())]) from None


@public
def to_dict(config: Schema, *, exclude_defaults: bool = False) -> dict[str, Any]:
    """Convert a config to plain data: dicts, lists, text, numbers, bool and None, and nothing else.

    Args:
      config: Any config, or part of one.
      exclude_defaults: Whether to leave out fields that have their default value.

    Returns:
      Data from which [`from_dict`][optax_ext.config.from_dict] builds an equal config, with the ``type`` of each
      part that has one.

    Raises:
      ConfigError: If ``config`` is not a config, or contains a value that is not data.

    Examples:
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
