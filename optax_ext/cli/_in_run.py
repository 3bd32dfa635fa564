"""What a recipe is in its run, or in the one of the argument --run."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from optax_ext import config
from optax_ext._core.schema import Schema
from optax_ext.config import ConfigError, OptimizationConfig, Problem

_Config = TypeVar("_Config", bound=Schema)


def in_run(file: str, loaded: _Config, run: Mapping[str, Any] | None) -> tuple[_Config, _Config]:
    """Return a config in its own words, with the run given, and in plain steps and rates.

    Raises:
      ConfigError: If the run given is not valid; with the name of the file, if the config needs another run.
    """
    given = None if run is None else _given(run)
    try:
        if given is not None and isinstance(loaded, OptimizationConfig):
            loaded = dataclasses.replace(loaded, run=given)
        return loaded, config.resolve(loaded, given)
    except ConfigError as error:
        *others, last = error.problems
        hint = "" if run is not None else "; here by --run examples=1281167,batch_size=4096,epochs=90"
        raise ConfigError(file, [*others, Problem(last.path, f"{last.message}{hint}")]) from None


def length_of_run(resolved: Schema, run: Mapping[str, Any] | None) -> int | None:
    """Return how many steps the run of a config has; None if that is not known."""
    if run is not None:
        return config.Run(**run).total_steps()
    own = resolved.run if isinstance(resolved, OptimizationConfig) else None
    return None if own is None else own.total_steps()


def _given(run: Mapping[str, Any]) -> config.Run:
    try:
        return config.Run(**run)
    except ConfigError as error:
        raise ConfigError("argument --run", error.problems) from None
