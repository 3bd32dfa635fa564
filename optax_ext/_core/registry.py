"""The registry of classes: which class counts for a name when other software has made copies of it.

Gin derives a decorated class from ours, cloudpickle makes an empty class and fills it later, `dataclass(slots=True)`
makes each class twice, and a notebook or `importlib.reload` defines it again. These cases cannot be told apart when
the class is made. So classes are only noted then, and a lookup decides which of them count.
"""

import inspect
import sys
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class _Noted(NamedTuple):
    cls: weakref.ref[type]
    was_empty: bool  # when it was made, as cloudpickle makes a class before it fills it


_lock = threading.RLock()
_noted: tuple[_Noted, ...] = ()  # in order of definition; replaced as a whole, so that readers need no lock
_kept: dict[tuple[str, str], tuple[type, ...]] = {}  # keeps classes that count alive, and lets replaced ones go


def identity(cls: type) -> tuple[str, str]:
    """Return the module and the qualified name of a class, which a new definition shares with the old one."""
    # A process spawned by multiprocessing has the script's module under another name.
    return ("__main__" if cls.__module__ == "__mp_main__" else cls.__module__, cls.__qualname__)


def full_names(classes: Iterable[type]) -> str:
    """Return the full names of classes as an error shows them."""
    return " and ".join(".".join(identity(cls)) for cls in classes)


def is_dataclass_itself(cls: type) -> bool:
    """Return whether a class was decorated, rather than derived from one that was."""
    return "__dataclass_fields__" in vars(cls)


def original(cls: type) -> type | None:
    """Return the dataclass that a class only wraps: its base of the same name, to which it adds no field."""
    if is_dataclass_itself(cls) or inspect.get_annotations(cls):
        return None
    bases = (base for base in cls.__mro__[1:] if identity(base) == identity(cls))
    return next(filter(is_dataclass_itself, bases), None)


def note(cls: type, namespace: Mapping[str, Any]) -> None:
    """Note a class just made from a namespace; the class that it replaces is kept as long as that one counts."""
    global _noted
    was_empty = all(name in ("__module__", "__doc__", "__dict__", "__slots__") for name in namespace)
    key = identity(cls)
    with _lock:
        counting = _standing([known for known in _kept.get(key, ()) if _is_complete(known)])
        _kept[key] = (*counting, cls)
        _noted = (*(entry for entry in _noted if entry.cls() is not None), _Noted(weakref.ref(cls), was_empty))


def complete_classes() -> list[type]:
    """Return the classes that count, one for each name: decorated, not abstract, in order of first definition."""
    same: dict[tuple[str, str], list[tuple[bool, type]]] = {}
    for entry in _noted:
        cls = entry.cls()
        if cls is not None and _is_complete(cls):
            # By the short name, since cloudpickle does not restore the `f.<locals>` before it.
            same.setdefault((identity(cls)[0], cls.__name__), []).append((not entry.was_empty, cls))
    by_rank = (sorted(group, key=lambda ranked: ranked[0]) for group in same.values())
    return [cls for group in by_rank for cls in _standing([cls for _, cls in group])]


def _is_complete(cls: type) -> bool:
    return is_dataclass_itself(cls) and not inspect.isabstract(cls)


def _standing(definitions: Sequence[type]) -> Sequence[type]:
    """Return the one definition that counts, if any: the one that its module contains, or else the last."""
    return [cls for cls in definitions if _in_its_module(cls)] or definitions[-1:]


def _in_its_module(cls: type) -> bool:
    """Return whether the module of a class has that class under its name; pickle tells copies apart in this way."""
    found: Any = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is cls
