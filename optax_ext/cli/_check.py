"""The command check."""

from collections.abc import Sequence

from optax_ext import config
from optax_ext._core.errors import join_keys
from optax_ext._core.relative import relative_values
from optax_ext._core.schema import Schema
from optax_ext.cli._warnings import warnings_of
from optax_ext.config import ConfigError


def check(files: Sequence[str], overrides: Sequence[str]) -> int:
    """Print for each file that it is ok, or all its problems."""
    status = 0
    for file in files:
        try:
            with warnings_of(file):
                loaded = config.load(file, overrides=overrides)
        except ConfigError as error:
            print(error)
            status = 1
        else:
            print(f"{file}: ok{_with_a_run(loaded)}")
    return status


def _with_a_run(loaded: Schema) -> str:
    """Say which fields depend on a run that the recipe does not have."""
    relative = [join_keys(path) for path, _ in relative_values(loaded)]
    if not relative or getattr(loaded, "run", None) is not None:
        return ""
    others = f" and {len(relative) - 1} more" if len(relative) > 1 else ""
    return f", given a run, on which {relative[0]}{others} depend{'' if others else 's'}"
