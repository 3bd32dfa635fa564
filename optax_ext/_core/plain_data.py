"""Conversion of mappings and config containers to plain data of limited size."""

import sys
from collections.abc import Mapping
from typing import Any

from optax_ext._core.errors import ConfigError, Problem, join_keys, shorten
from optax_ext._core.lazy import loaded

_MAX_DEPTH = 32  # levels of nesting; real recipes have five
_MAX_VALUES = 100_000  # values in all
_MAX_BITS = 14_000  # of an integer: beyond any float, and just below what Python refuses to print in an error


def plain_data(data: Any, source: str) -> Any:
    """Convert mappings of text to values into dicts, within limits far beyond any recipe."""
    problems: list[Problem] = []
    seen = 0

    def read(value: Any, path: tuple[str, ...]) -> Any:
        nonlocal seen
        seen += 1
        if len(path) > _MAX_DEPTH or seen > _MAX_VALUES:
            text = f"must have at most {_MAX_DEPTH} levels and {_MAX_VALUES} values in all"
            raise ConfigError(source, [Problem(join_keys(path[:4]), text)])
        value = _from_container(value, path, problems)
        if isinstance(value, Mapping):
            place = join_keys(path)  # joined once for all of them: it can be as long as the file
            wrong = [key for key in value if not isinstance(key, str)]
            problems.extend(Problem(place, f"must have text for keys, got {shorten(key)}") for key in wrong)
            texts = ((key if isinstance(key, str) else shorten(key), item) for key, item in value.items())
            return {key: read(item, (*path, key)) for key, item in texts}
        if isinstance(value, loaded("numpy", "ndarray")) and value.ndim:
            value = value.tolist()
        if isinstance(value, list | tuple):
            return [read(item, (*path, str(index))) for index, item in enumerate(value)]
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            problems.append(Problem(join_keys(path), f"must be a finite number, got {shorten(value)}"))
        return value

    plain = read(data, ())
    if problems:
        raise ConfigError(source, problems)
    return plain


def _from_container(value: Any, path: tuple[str, ...], problems: list[Problem]) -> Any:
    """Open the containers of config libraries, which can occur only if their library is imported."""
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
