"""Values that depend on the run: durations in epochs, and learning rates for a batch of some size."""

from collections.abc import Iterator
from typing import overload

from optax_ext._core.errors import shorten
from optax_ext._core.frozen_mapping import FrozenMapping
from optax_ext._core.schema import Schema, init_fields


class Relative:
    """A value of a field that is a plain number only once the run is known."""

    __slots__ = ()


@overload
def resolved(value: int | str) -> int: ...


@overload
def resolved(value: float | str | Relative) -> float: ...


def resolved(value: float | str | Relative) -> float:
    """Return a plain number; raise ValueError for a value that depends on the run."""
    if isinstance(value, Relative):
        raise ValueError(
            f"{shorten(value)} depends on the run: resolve the recipe first, with config.resolve(recipe, "
            "config.Run(...)), or make it with make(run=...)"
        )
    assert not isinstance(value, str)  # a field holds no other text
    return value


def relative_values(value: object, path: tuple[str, ...] = ()) -> "Iterator[tuple[tuple[str, ...], Relative]]":
    """Find the values in a config that depend on the run, each with the keys that lead to it."""
    if isinstance(value, Relative):
        yield path, value
        return
    for key, item in children(value):
        yield from relative_values(item, (*path, key))


def is_relative(value: object) -> bool:
    """Return whether anything in a config depends on the run."""
    return next(relative_values(value), None) is not None


def children(value: object) -> "list[tuple[str, object]]":
    """Return what is directly inside a value of a config, by its keys in data."""
    if isinstance(value, Schema):
        return [(field.name, getattr(value, field.name)) for field in init_fields(type(value))]
    if isinstance(value, FrozenMapping):
        return [(str(key), item) for key, item in value.items()]
    return [(str(index), item) for index, item in enumerate(value)] if isinstance(value, tuple) else []
