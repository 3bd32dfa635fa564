"""Conversion of configs to plain data and back."""

import os
import typing
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, TypeVar, overload

import pydantic
from pydantic_core import PydanticCustomError

from optax_ext._core.durations import Duration
from optax_ext._core.errors import ConfigError, Problem, did_you_mean, join_keys, join_words, shorten
from optax_ext._core.frozen_mapping import FrozenMapping
from optax_ext._core.plain_data import plain_data
from optax_ext._core.public import public
from optax_ext._core.schema import Schema, as_config_error, construct, init_fields
from optax_ext._core.tagged import Tagged, from_tagged, members
from optax_ext.config._foreign import refuse_foreign
from optax_ext.config._group import Group
from optax_ext.config._layer_decay import LayerDecay
from optax_ext.config._params_ema import ParamsEma
from optax_ext.config._recipe import OptimizationConfig
from optax_ext.config._run import Run
from optax_ext.schedules import RatePerBatch

_WITHOUT_TYPE = (ParamsEma, Run, RatePerBatch, Group, LayerDecay)  # read only where they are asked for
_Kind = TypeVar("_Kind", bound=Schema)  # also of a Callable, since mypy takes no abstract class for a type


@overload
def from_dict(data: Any, kind: None = None, *, source: str = "config") -> Any: ...


@overload
def from_dict(data: Any, kind: type[_Kind] | Callable[..., _Kind], *, source: str = "config") -> _Kind: ...


@overload
def from_dict(data: Any, kind: UnionType, *, source: str = "config") -> Any: ...


@public
def from_dict(data: Any, kind: Any = None, *, source: str = "config") -> Any:
    """Build a config from plain data, or raise one error with everything that is wrong in it.

    Args:
      data: A mapping with an ``optimizer``, for a whole [`OptimizationConfig`][optax_ext.config.OptimizationConfig],
        or with a ``type``, for a part of one: an optimizer, a loss scale, or a schedule of ours or of yours. An
        ``ml_collections.ConfigDict`` or an ``omegaconf`` container will do as well.
      kind: What it must be: a schema such as [`LARS`][optax_ext.config.LARS], a family such as
        [`Optimizer`][optax_ext.config.Optimizer], or a union of them. What has no ``type``, such as a
        [`ParamsEma`][optax_ext.config.ParamsEma] or a [`Run`][optax_ext.config.Run], is read by itself where it is
        asked for.
      source: What the error says the data is, such as a file name.

    Returns:
      The config that the mapping describes.

    Raises:
      ConfigError: If anything is unknown, missing, of a wrong type or out of range, or it is not of this kind.

    Examples:
      >>> from optax_ext import config
      >>> config.from_dict({"type": "polynomial_decay", "initial_learning_rate": 0.1, "decay_steps": 0})
      Traceback (most recent call last):
        ...
      optax_ext.config.ConfigError: config: 1 problem
        decay_steps: must be greater than 0, got 0
    """
    if isinstance(data, str | os.PathLike):
        hint = "config.load reads a file, and json.loads or yaml.safe_load text"
        text = f"must be a mapping with a 'type' or an 'optimizer', got {shorten(data)}: {hint}"
        raise ConfigError(source, [Problem("", text)])
    return read_config(data, kind, source)


def read_config(data: Any, kind: Any, source: str) -> Any:
    """Build a config from what a file holds, whatever that is."""
    kinds = _kinds(kind)
    config = data if isinstance(data, Schema) else _from_plain(plain_data(data, source), kinds, source)
    if kinds and not isinstance(config, kinds):
        asked = " or ".join(asked.__name__ for asked in kinds)
        raise ConfigError(source, [Problem("", f"holds {type(config).__name__} where {asked} was asked for")])
    return config


def _kinds(kind: Any) -> tuple[type[Schema], ...]:
    is_union = typing.get_origin(kind) in (UnionType, typing.Union)
    kinds = () if kind is None else typing.get_args(kind) if is_union else (kind,)
    for asked in kinds:
        if not (isinstance(asked, type) and issubclass(asked, Schema)):
            text = f"must be a schema such as config.LARS, or a union of them, got {shorten(kind)}"
            raise ConfigError("config", [Problem("kind", text)])
    return kinds


def _from_plain(plain: Any, kinds: tuple[type[Schema], ...], source: str) -> Schema:
    refuse_foreign(plain, source)
    try:
        if isinstance(plain, Mapping):
            asked = None if "type" in plain else next((kind for kind in _WITHOUT_TYPE if kind in kinds), None)
            if "optimizer" in plain and (asked is None or OptimizationConfig in kinds):
                return construct(OptimizationConfig, (), plain)
            if asked is not None:
                return construct(asked, (), plain)
            if "type" not in plain:
                raise _without_type(plain, source)
        return from_tagged(Tagged, plain)
    except pydantic.ValidationError as error:
        raise as_config_error(source, error) from None
    except PydanticCustomError as error:  # about the config as a whole
        raise ConfigError(source, [Problem("", error.message())]) from None


def _without_type(plain: Mapping[str, Any], source: str) -> ConfigError:
    """Return the error of a mapping that has neither an ``optimizer`` nor a ``type``."""
    for key, value in plain.items():
        if did_you_mean(key, ["optimizer"]) and not (isinstance(value, Mapping) and "optimizer" in value):
            return _misspelled(plain, key, source)
    known = join_words(members(Tagged))
    text = f"must have an 'optimizer', or a 'type' that is one of {known}; got {shorten(list(plain))}"
    inside = [key for key, value in plain.items() if isinstance(value, Mapping) and {"optimizer", "type"} & {*value}]
    if inside:
        text += f": give what is under {join_words(inside[:1])}"
    else:
        text += next((near for key in plain if (near := did_you_mean(key, ["type"]))), "")
    return ConfigError(source, [Problem("", text)])


def _misspelled(plain: Mapping[str, Any], key: str, source: str) -> ConfigError:
    """Return all problems of a recipe that has its ``optimizer`` under another key, with the paths of the file."""
    try:
        construct(OptimizationConfig, (), {**plain, "optimizer": plain[key]})
    except pydantic.ValidationError as error:  # always: the other key is an unknown field
        problems: list[Problem] = []
        for path, message in as_config_error(source, error).problems:
            head, dot, rest = path.partition(".")
            problems.append(Problem(f"{join_keys((key,))}{dot}{rest}" if head == "optimizer" else path, message))
        return ConfigError(source, problems)
    raise AssertionError(f"{key!r} is a field of OptimizationConfig")


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
        hint = ""
        if isinstance(config, Mapping):
            hint = ": config.from_dict makes one of data"
        elif isinstance(config, type) and issubclass(config, Schema):
            hint = f": construct it, {config.__name__}(...)"
        elif hasattr(config, "update"):
            hint = ": a transformation does not tell what it was made from"
        raise ConfigError("config", [Problem("", f"must be a config, got {shorten(config)}{hint}")])
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
    if isinstance(value, FrozenMapping):
        return {key: _write(item, path, exclude_defaults) for key, item in value.items()}
    if isinstance(value, Duration):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError("config", [Problem(path, f"cannot be written as data, got {shorten(value)}")])
