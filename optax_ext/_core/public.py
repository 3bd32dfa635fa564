"""Where public names say that they live: in the room that exports them, not in the private file that defines them."""

from typing import Any, TypeVar

_T = TypeVar("_T")


def public_module(module: str) -> str:
    """Return the room of a module of ours, ``optax_ext.schedules`` for ``optax_ext.schedules._cosine``.

    Modules of others, and those of the core, which is no room, stay as they are.
    """
    package, *parts = module.split(".")
    private = next((index for index, part in enumerate(parts) if part.startswith("_")), 0)
    return ".".join([package, *parts[:private]]) if package == "optax_ext" and private else module


def public(thing: _T) -> _T:
    """Make a function or a class say that it lives in its room: in tracebacks, in pickles and in `help`."""
    named: Any = thing
    named.__module__ = public_module(named.__module__)
    return thing
