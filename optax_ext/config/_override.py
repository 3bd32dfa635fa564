"""Overrides of a recipe: ``optimizer.momentum=0.9``, set in its data before that is checked."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from optax_ext._core.errors import ConfigError, Problem, join_keys, join_words, shorten
from optax_ext._core.plain_data import plain_data
from optax_ext._core.public import public
from optax_ext._core.schema import Schema
from optax_ext._core.tagged import Tagged
from optax_ext._core.yaml_files import read_yaml
from optax_ext.config._codec import read_config, to_dict
from optax_ext.config._foreign import refuse_foreign
from optax_ext.config._recipe import OptimizationConfig

_Kind = TypeVar("_Kind", bound=Schema)
Overrides = Sequence[str] | Mapping[str, Any]  # KEY=VALUE, or values by their keys


@public
def override(recipe: _Kind, overrides: Overrides) -> _Kind:
    """Return a config with some of its fields changed.

    An override is text, ``KEY=VALUE``, as a command line has it:

    ```text
    optimizer.momentum=0.9                        a number, as in a YAML file: 1e-3 is one too
    optimizer.learning_rate.after.decay_steps=5   a field of a part of a part
    optimizer.learning_rate.values.0=0.1          an entry of a list, from 0 on
    optimizer.exclude_from_weight_decay=[bias]    a whole list
    optimizer.learning_rate={type: constant, learning_rate: 0.1}    a whole part
    ema.average_decay=0.999                       a part that was not there
    loss_scale=null                               none
    optimizer.stacked_axes.'^blocks/.*kernel'=0   a key with dots, in quotes if it is new
    ```

    Overrides are set in the data of the config, one after the other, so that of two for the same key the last counts.
    The whole is checked afterwards: fields may be required by, or fit, only what other overrides set. A changed
    ``type`` leaves the other fields of its part as they are; set the whole part to drop them.

    Args:
      recipe: Any config, or part of one.
      overrides: A list of ``KEY=VALUE``, whose values are read as YAML; or a mapping from keys to values, which are
        data or configs.

    Returns:
      A new config. It is of the same class, unless its own ``type`` was overridden.

    Raises:
      ConfigError: If an override cannot be read, leads through something that has no fields or no such entry, or if
        the config is not valid with all of them. The error names the overrides.

    Examples:
      >>> import optax_ext
      >>> from optax_ext import config
      >>> recipe = config.OptimizationConfig(config.SGD(optax_ext.CosineDecay(0.1, decay_steps=1000)))
      >>> changed = config.override(recipe, ["optimizer.learning_rate.decay_steps=2000", "ema.average_decay=0.999"])
      >>> changed.optimizer
      SGD(learning_rate=CosineDecay(initial_learning_rate=0.1, decay_steps=2000))
      >>> changed.ema
      ParamsEma(average_decay=0.999)
      >>> config.override(changed, {"optimizer.momentum": 0.9}).optimizer.momentum
      0.9
      >>> config.override(recipe, ["optimizer.momentum=2"])
      Traceback (most recent call last):
        ...
      optax_ext.config.ConfigError: OptimizationConfig with optimizer.momentum=2: 1 problem
        optimizer.momentum: must be less than or equal to 1, got 2
    """
    kind = None if isinstance(recipe, Tagged | OptimizationConfig) else type(recipe)
    return read_overridden(to_dict(recipe, exclude_defaults=True), overrides, kind, type(recipe).__name__)


class _Change(NamedTuple):
    """A ``type`` that an override changed: the part that has it, what that held, and the new type."""

    place: str
    part: Mapping[str, Any]
    tag: Any


def read_overridden(data: Any, overrides: Overrides, kind: Any, source: str) -> Any:
    """Build a config from plain data, in which overrides are set first."""
    texts = _texts(overrides)
    if not texts or not isinstance(data, Mapping):
        return read_config(data, kind, source)
    refuse_foreign(data, source)
    source = _name(source, texts)
    problems: list[Problem] = []
    changes: list[_Change] = []
    for key, value in _assignments(overrides, problems):
        try:
            data = _set(data, key, plain_data(value, source), changes)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(source, problems)
    try:
        return read_config(data, kind, source)
    except ConfigError as error:
        raise ConfigError(source, _with_hints(error.problems, changes)) from None


def _texts(overrides: Overrides) -> list[str]:
    """Return overrides as an error names them."""
    if isinstance(overrides, Mapping):
        return [f"{key}={shorten(value)}" for key, value in overrides.items()]
    if isinstance(overrides, str | bytes) or not isinstance(overrides, Sequence):
        hint = f": write [{shorten(overrides)}]" if isinstance(overrides, str) else ""
        text = f"must be a list of KEY=VALUE, or a mapping from keys to values, got {shorten(overrides)}{hint}"
        raise ConfigError("overrides", [Problem("", text)])
    return [text if isinstance(text, str) else shorten(text) for text in overrides]


def _name(source: str, texts: Sequence[str]) -> str:
    shown = [text if text.isprintable() and len(text) <= 100 else shorten(text) for text in texts[:_MAX_NAMED]]
    more = f" and {len(texts) - _MAX_NAMED} more" if len(texts) > _MAX_NAMED else ""
    return f"{source} with {', '.join(shown)}{more}"


_MAX_NAMED = 8  # overrides in the first line of an error
_QUOTED = r"'(?:[^']|'')*'|\"(?:[^\"\\]|\\.)*\""  # as YAML quotes: between single quotes a backslash is one
_KEY_AND_VALUE = re.compile(rf"((?:(?:^|(?<=\.))(?:{_QUOTED})|[^=])*)=(.*)", re.DOTALL)
_QUOTED_KEY = re.compile(rf"({_QUOTED})(?:\.|$)", re.DOTALL)


def _assignments(overrides: Overrides, problems: list[Problem]) -> Iterator[tuple[str, Any]]:
    """Yield keys and values; note which overrides have none."""
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            if isinstance(key, str):
                yield key, value
            else:
                problems.append(Problem("", f"the key of an override must be text, got {shorten(key)}"))
        return
    for text in overrides:
        match = _KEY_AND_VALUE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            problems.append(Problem("", f"must be KEY=VALUE, such as optimizer.momentum=0.9, got {shorten(text)}"))
            continue
        key, value = match[1].strip(), match[2]
        if not value.strip():
            problems.append(Problem(key, "has no value after the '=': write null for none, or '' for empty text"))
            continue
        try:
            yield key, read_yaml(value, key)
        except ConfigError as error:
            problems += [Problem(key, message) for _, message in error.problems]


def _set(data: Any, key: str, value: Any, changes: list[_Change]) -> Any:
    """Return data with one value set in it; parts are copied, since YAML's aliases share theirs."""
    passed: list[tuple[Any, Any]] = []  # the parts on the way, and the key that is taken in each
    node: Any = data
    around = place = ""
    rest: str | None = key
    while rest is not None:
        around = place
        node = to_dict(node, exclude_defaults=True) if isinstance(node, Schema) else node
        taken, rest = _next_key(node, rest, place)
        place = _below(place, str(taken))
        passed.append((node, taken))
        node = node[taken] if isinstance(taken, int) else node and node.get(taken)
    part, last = passed[-1]
    if last == "type" and part and "type" in part and part["type"] != value:
        changes.append(_Change(around, part, value))
    for part, taken in reversed(passed):
        is_list = isinstance(taken, int)
        value = [*part[:taken], value, *part[taken + 1 :]] if is_list else {**(part or {}), taken: value}
    return value


def _next_key(node: Any, rest: str, place: str) -> tuple[str | int, str | None]:
    """Return the key that a path takes first in a part of a config, and what is left of the path, None for nothing.

    Args:
      node: The part; None where there is none, which the path then makes.
      rest: What is left of the path.
      place: Where the part is.
    """
    head, dot, tail = rest.partition(".")
    left = tail if dot else None
    if isinstance(node, list):
        if not re.fullmatch(r"[0-9]{1,9}", head) or int(head) >= len(node):
            entries = "1 entry" if len(node) == 1 else f"{len(node)} entries"
            hint = f"to change its length, set the whole list, {place}=[...]"
            raise _misled(place, f"has {entries}, which count from 0, got {shorten(head)} for one of them; {hint}")
        return int(head), left
    if node is not None and not isinstance(node, Mapping):
        whole = f"{place}={{{head}: ...}}"
        raise _misled(place, f"has no fields, got {shorten(node)}, where {shorten(head)} was to be set: set {whole}")
    known = [key for key in node or () if isinstance(key, str)]
    if head == "optimizer" and not place and node is not None and "type" in known:
        text = f"has no 'optimizer', since it is itself of type {node['type']!r}"
        raise _misled("", f"{text}: set {tail}" if tail else text)
    for key in sorted(known, key=len, reverse=True):  # since keys may have dots
        printed = join_keys((key,))
        if rest == printed:
            return key, None
        if rest.startswith(f"{printed}."):
            return key, rest[len(printed) + 1 :]
    if quoted := _QUOTED_KEY.match(rest):
        return str(read_yaml(quoted[1], place)), rest[quoted.end() :] if quoted[0].endswith(".") else None
    accepted = f", which has the fields {join_words(known)}" if known else ""
    if not head:
        text = f"must be names with dots between them, got {shorten(rest)} for a part of the key{accepted}"
        raise _misled(place, text)
    if left is not None and not re.fullmatch(r"[\w-]+", head):
        raise _misled(place, f"has no {shorten(head)}: put a new key that has dots in quotes, '{rest}'{accepted}")
    if node is None and head.isdecimal():
        raise _misled(place, f"is not set, and so has no entry {head}: set the whole list, {place}=[...]")
    return head, left


def _below(place: str, key: str) -> str:
    return f"{place}.{join_keys((key,))}" if place else join_keys((key,))


def _misled(place: str, message: str) -> ConfigError:
    return ConfigError("override", [Problem(place, message)])


def _with_hints(problems: Sequence[Problem], changes: Sequence[_Change]) -> list[Problem]:
    """Say of fields that do not fit a changed ``type`` where they come from, and how to drop them."""
    hinted = list(problems)
    for place, part, tag in changes:
        fields = {_below(place, key) for key in part if key != "type"}
        left = [index for index, problem in enumerate(problems) if problem.path in fields]
        if left:
            whole = f", {place}={{type: {tag}, ...}}" if place else ""
            path, message = hinted[left[-1]]
            hint = f"the fields of {part['type']!r} stay when its type changes: to drop them, set the whole part{whole}"
            hinted[left[-1]] = Problem(path, f"{message}; {hint}")
    return hinted
