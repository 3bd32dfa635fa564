"""Comments of a translated recipe, each above the field that it is about."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from optax_ext._core.yaml_files import YamlLoader
from optax_ext.interop import Note

_WIDTH = 100
_BESIDE = ("task", "trainer")  # the parts of Model Garden's experiments that hold no field of ours
# Other people's names of fields: those of Keras and Model Garden, of transformers, and of timm.
_OURS = {
    "after_warmup_lr_sched": "after",
    "decay_schedule_fn": "after",
    "inner_optimizer": "optimizer",
    "lr": "learning_rate",
    "warmup": "learning_rate",
    "weight_decay": "weight_decay_rate",
    "adam_beta1": "beta_1",
    "adam_beta2": "beta_2",
    "adam_epsilon": "epsilon",
    "fp16": "loss_scale",
    "lr_scheduler_type": "learning_rate",
    "max_grad_norm": "global_clipnorm",
    "warmup_ratio": "warmup_steps",
    "clip_grad": "global_clipnorm",
    "model_ema_decay": "average_decay",
    "opt_eps": "epsilon",
    "sched": "learning_rate",
    "warmup_epochs": "warmup_steps",
    "warmup_lr": "warmup_learning_rate",
}

Path = tuple[str, ...]


class Comment(NamedTuple):
    """A comment and the path of what is below it: the field that it is about, or something around that."""

    path: Path
    text: str
    is_about_it: bool = False


def comment_of(note: Note, data: Mapping[str, Any]) -> Comment:
    """Return a note of a translation as the comment of the field that it is about, or of the part that has the field.

    Args:
      note: The note, with a path in what was translated.
      data: What it became.
    """
    names = note.path.split(".")
    if names[0] not in _BESIDE:
        paths = list(_paths(data, ()))
        for depth in range(len(names), 0, -1):
            name = _OURS.get(names[depth - 1], names[depth - 1])
            around = {_OURS.get(other, other) for other in names[: depth - 1]}
            if found := [path for path in paths if path[-1] == name]:
                path = max(found, key=lambda path: len(around.intersection(path)))
                is_about_it = depth == len(names)
                return Comment(path, f"{names[-1]}: {note.text}" if is_about_it else str(note), is_about_it)
    return Comment((), str(note))


def _paths(data: Mapping[str, Any], path: Path) -> Iterator[Path]:
    for key, value in data.items():
        yield (*path, key)
        if isinstance(value, Mapping):
            yield from _paths(value, (*path, key))


def without_defaults(
    data: Mapping[str, Any], given: Mapping[str, Any], comments: Iterable[Comment], path: Path = ()
) -> dict[str, Any]:
    """Return what differs from the defaults, and the fields with their defaults that a comment is about.

    Args:
      data: A recipe with all fields.
      given: The same without defaults.
      comments: What is to be said about it.
      path: The path of both in the whole.
    """
    said = {comment.path for comment in comments if comment.is_about_it}
    left: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and isinstance(given.get(key), Mapping):
            left[key] = without_defaults(value, given[key], comments, (*path, key))
        elif key in given or (*path, key) in said:
            left[key] = value
    return left


def insert_comments(text: str, comments: Iterable[Comment]) -> str:
    """Put each comment above its field in the YAML of a mapping."""
    lines = text.splitlines(keepends=True)
    places = {(): (0, 0), **dict(_places(yaml.compose(text, Loader=YamlLoader), ()))}
    above: dict[int, list[str]] = {}
    for comment in comments:
        line, column = places[comment.path]
        above.setdefault(line, []).extend(wrap_comment(comment.text, " " * column + "# "))
    return "".join("".join([*above.get(number, ()), line]) for number, line in enumerate(lines))


def _places(node: yaml.Node | None, path: Path) -> Iterator[tuple[Path, tuple[int, int]]]:
    """Yield the line and the column of each field in a mapping."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*path, key.value)
            yield place, (key.start_mark.line, key.start_mark.column)
            yield from _places(value, place)


def wrap_comment(text: str, prefix: str = "") -> list[str]:
    """Return the lines of a comment; a character that could end a line of YAML is written out."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    lines = textwrap.wrap(text, _WIDTH - len(prefix), subsequent_indent="  ", break_long_words=False)
    return [f"{prefix}{line}\n" for line in lines]
