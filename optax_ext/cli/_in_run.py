"""What a recipe is in its run, or in the one of the argument --run."""

from collections.abc import Mapping
from typing import Any, TypeVar

from optax_ext import config
from optax_ext._core.schema import Schema
from optax_ext.config import ConfigError, OptimizationConfig, Problem

_Config = TypeVar("_Config", bound=Schema)


def in_run(file: str, loaded: _Config, run: Mapping[str, Any] | None) -> _Config:
    """Return a config with plain steps and rates; raise ConfigError, with the file's name, if it needs another run."""
    try:
        return config.resolve(loaded, run)
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
