"""The command check."""

from collections.abc import Sequence

from optax_ext import config
from optax_ext.cli._warnings import warnings_of
from optax_ext.config import ConfigError


def check(files: Sequence[str], overrides: Sequence[str]) -> int:
    """Print for each file that it is ok, or all its problems."""
    status = 0
    for file in files:
        try:
            with warnings_of(file):
                config.load(file, overrides=overrides)
        except ConfigError as error:
            print(error)
            status = 1
        else:
            print(f"{file}: ok")
    return status
