"""Refuses what Keras or Model Garden wrote, with the name of what translates it."""

from collections.abc import Iterator, Mapping
from typing import Any

from optax_ext._core.errors import ConfigError, Problem, join_keys
from optax_ext._core.writers import Foreign, foreign_writer, is_serialized

_IMPORTERS: dict[Foreign, str] = {
    "keras": ("is a config of Keras: translate it with `optax-ext convert FILE`, or in Python with interop.from_keras"),
    "get_config": (
        "is a get_config of Keras: translate it with `optax-ext convert --from keras FILE`, or in Python with"
        " interop.from_keras"
    ),
    "model_garden": (
        "is a recipe of Model Garden: translate it with `optax-ext convert FILE`, or in Python with"
        " interop.from_model_garden; if it overrides another experiment, give that one as --base or base"
    ),
}


def refuse_foreign(data: Any, source: str) -> None:
    """Raise an error that names the importer of what Keras or Model Garden wrote."""
    if not isinstance(data, Mapping):
        return
    writer = foreign_writer(data)
    problems = [*_serialized_inside(data, ())] if writer is None else [Problem("", _IMPORTERS[writer])]
    if problems:
        raise ConfigError(source, problems)


def _serialized_inside(data: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Problem]:
    """Yield a problem for each config of Keras inside of something else, such as a model or a recipe of ours."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            if is_serialized(value):
                yield Problem(join_keys((*path, key)), "is a config of Keras: translate it with interop.from_keras")
            else:
                yield from _serialized_inside(value, (*path, key))
