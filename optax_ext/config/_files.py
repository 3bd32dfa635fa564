"""Configs in files: JSON and YAML, read safely and written so that they read back equal."""

import collections
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from optax_ext._schema import ConfigError, Problem, Schema, did_you_mean, shorten
from optax_ext.config._codec import from_dict, to_dict

_LARGEST_FILE = 100_000  # bytes; real recipes have a few thousand
_LARGEST_YAML = 100_000  # values, aliases followed


def load(path: str | os.PathLike[str]) -> Any:
    """Read a config from a JSON or YAML file.

    YAML is read as YAML 1.2 has it: ``1e-3`` is a number, and only ``true`` and ``false`` are bool, so that ``off``
    and ``no`` stay text. Nothing in a file is ever executed.

    Args:
      path: A file whose name ends in ``.json``, ``.yaml`` or ``.yml``.

    Returns:
      The config, as [`from_dict`][optax_ext.config.from_dict] builds it.

    Raises:
      ConfigError: If there is no such file, it is not JSON or YAML, or is not a valid config.

    Example:
      >>> import tempfile
      >>> from optax_ext import config
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     config.save(config.LARS(learning_rate=0.5), f"{folder}/recipe.yaml")
      ...     config.load(f"{folder}/recipe.yaml").learning_rate
      0.5
    """
    read = read_json if _suffix(path) == ".json" else read_yaml
    return from_dict(read(read_text(path), str(path)), source=str(path))


def save(config: Schema, path: str | os.PathLike[str], *, exclude_defaults: bool = False) -> None:
    """Write a config to a JSON or YAML file, in place of what is there.

    Args:
      config: Any config, or part of one.
      path: Where to; the name ends in ``.json``, ``.yaml`` or ``.yml``.
      exclude_defaults: Whether to leave out fields that have their default value.

    Raises:
      ConfigError: If the suffix is none of these, or the file cannot be written.

    Example:
      See [`load`][optax_ext.config.load].

      >>> from optax_ext import config
      >>> config.save(config.LARS(learning_rate=0.5), "recipe.txt")
      Traceback (most recent call last):
        ...
      optax_ext.config.ConfigError: recipe.txt: 1 problem
        the file's name must end in .json, .yaml or .yml, got '.txt'
    """
    as_text = json_text if _suffix(path) == ".json" else yaml_text
    write_text(path, as_text(to_dict(config, exclude_defaults=exclude_defaults)))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    path = Path(path)
    target = Path(os.path.realpath(path))  # what a link leads to, not the link
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:  # whole or not at all: the old file stays until the new one is complete
        partial.write_text(text, encoding="utf-8")
        if target.exists():
            shutil.copymode(target, partial)
        os.replace(partial, target)
    except OSError as error:
        raise _error(path, f"cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


def json_text(data: Any) -> str:
    """Return plain data as JSON."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def yaml_text(data: Any) -> str:
    """Return plain data as YAML, with text that any YAML reader could take for something else in quotes."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def _duplicates(keys: Iterable[str]) -> list[str]:
    return [key for key, count in collections.Counter(keys).items() if count > 1]


def _error(path: object, message: str) -> ConfigError:
    return ConfigError(str(path), [Problem("", message)])


def _suffix(path: str | os.PathLike[str]) -> str:
    if not isinstance(path, str | os.PathLike):
        raise _error(shorten(path), "the path of the file must be text")
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".yaml", ".yml"):
        raise _error(path, f"the file's name must end in .json, .yaml or .yml, got {suffix!r}")
    return suffix


def read_text(path: str | os.PathLike[str]) -> str:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise _error(path, "must be a file, got " + ("a directory" if stat.S_ISDIR(status.st_mode) else "a device"))
        if status.st_size > _LARGEST_FILE:
            raise _error(path, f"must have at most {_LARGEST_FILE} bytes, got {status.st_size}")
        with open(path, encoding="utf-8-sig") as file:
            return file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        folder = Path(path).parent
        near = did_you_mean(Path(path).name, os.listdir(folder)) if folder.is_dir() else ""
        raise _error(path, f"there is no such file{near}") from None
    except UnicodeDecodeError as error:
        raise _error(path, f"must be UTF-8 text, got byte {error.object[error.start]:#x} at {error.start}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise _error(path, f"cannot be read: {error}") from None


# ---------------------------------------------------------------------------------------------------------
# JSON


def read_json(text: str, source: str) -> Any:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := _duplicates(key for key, _ in pairs):
            raise _error(source, f"the key {shorten(twice[0])} occurs twice in one object")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=without_duplicates)
    except ConfigError:
        raise
    except json.JSONDecodeError as error:
        raise _error(source, f"is not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, or brackets without end
        raise _error(source, f"is not JSON that can be read: {error}") from None


# ---------------------------------------------------------------------------------------------------------
# YAML, by the core schema of YAML 1.2 where PyYAML follows 1.1

_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)
_CORE_SCHEMA = [
    ("tag:yaml.org,2002:bool", re.compile(r"true$|True$|TRUE$|false$|False$|FALSE$"), "tTfF"),
    ("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+$"), "-+0123456789"),
    ("tag:yaml.org,2002:float", _FLOAT, "-+.0123456789"),
    ("tag:yaml.org,2002:null", re.compile(r"~$|null$|Null$|NULL$|$"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:merge", re.compile(r"<<$"), "<"),
]


class YamlLoader(yaml.SafeLoader):
    """Reads safe YAML by the core schema, and no key twice."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        return int(node.value)  # in 1.1 a leading zero would mean octal

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"))
        if twice := _duplicates(key.value for key in keys):
            what = f"the key {shorten(twice[0])} occurs twice in one mapping"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Knows what is a number to us besides what is something else to YAML 1.1, and puts text of either in quotes."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


YamlLoader.yaml_implicit_resolvers = {}  # PyYAML's, of 1.1, are not wanted
for _tag, _pattern, _first in _CORE_SCHEMA:
    YamlLoader.add_implicit_resolver(_tag, _pattern, list(_first))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
YamlLoader.add_constructor("tag:yaml.org,2002:int", YamlLoader.construct_yaml_int)
YamlLoader.add_constructor("tag:yaml.org,2002:float", YamlLoader.construct_yaml_float)


def read_yaml(text: str, source: str, loader_type: type[YamlLoader] = YamlLoader) -> Any:
    loader = None
    try:
        loader = loader_type(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _bound(node, {}, source)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = ", ".join(filter(None, (error.context, error.problem)))
        raise _error(source, f"is not YAML that can be read: {_start_of(what)}{place}") from None
    except ConfigError:
        raise
    # PyYAML's constructors trust a tag: `!!bool maybe` is a KeyError, `!!timestamp x` an AttributeError.
    except (yaml.YAMLError, ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
        raise _error(source, f"is not YAML that can be read: {_start_of(str(error))}") from None
    finally:
        if loader is not None:
            loader.dispose()


def _start_of(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}…"  # PyYAML quotes tags and keys of any length


def _bound(node: yaml.Node, sizes: dict[int, int], source: str) -> int:
    """Return how many values a node is once its aliases are followed, without following any twice."""
    if id(node) not in sizes:
        sizes[id(node)] = _LARGEST_YAML + 1  # what contains itself is as large as anything
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = [child for item in children for child in (item if isinstance(item, tuple) else (item,))]
        sizes[id(node)] = 1 + sum(_bound(child, sizes, source) for child in flat)
    if sizes[id(node)] > _LARGEST_YAML:
        raise _error(source, f"must have at most {_LARGEST_YAML} values once its aliases are followed")
    return sizes[id(node)]
