"""Warnings that name the line of the user, however deep below it what they are about is made."""

import inspect
import warnings

_BETWEEN = ("optax_ext", "pydantic", "dataclasses")  # who may stand between a user's line and a config that it makes


def warn_user(message: str) -> None:
    """Warn of something in a config, at the line that made it, alone or in a recipe."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level + 1)
