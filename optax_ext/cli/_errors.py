"""Errors that end a command with a line of explanation."""

import importlib
from types import ModuleType


class CommandError(Exception):
    """A problem that is not an invalid config; its text is for the user, its status for the shell."""

    def __init__(self, text: str, status: int = 1):
        super().__init__(text)
        self.status = status


def need(command: str, module: str) -> ModuleType:
    """Import a module that only the extra `plot` installs, or say in one line how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # it is there, but broken
        raise CommandError(f'{command} needs {package}: pip install "optax_ext[plot]"') from None
