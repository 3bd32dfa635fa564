"""YAML, by the core schema of YAML 1.2, whereas PyYAML follows 1.1."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from optax_ext._core.errors import ConfigError, shorten
from optax_ext._core.files import file_error, quote_line

_MAX_VALUES = 100_000  # values, with aliases expanded
_MAX_LINE = 60  # characters of a list of text; numbers are wrapped


def yaml_text(data: Any) -> str:
    """Return plain data as YAML, and quote text that some YAML reader could take for something else."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=100)


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
    """Reads safe YAML by the core schema, and refuses duplicate keys."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        return int(node.value)  # in YAML 1.1 a leading zero would mean octal

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            if key.value in lines:
                what = f"the key {shorten(key.value)} occurs twice in one mapping, in line {lines[key.value]} and"
                raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
            if ":" in key.value and key.style is None and value.start_mark.index == value.end_mark.index:
                what = f"a space is missing after the ':' of {shorten(key.value)}"
                raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that is a number by our rules, or anything else than text by YAML 1.1.

    A list of numbers or short text is written on a line.
    """

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        node = super().represent_sequence(tag, sequence, flow_style)
        items = [item.value for item in node.value if isinstance(item, yaml.ScalarNode)]
        is_text = any(isinstance(item, str) for item in sequence)
        node.flow_style = len(items) == len(node.value) and not (is_text and sum(map(len, items)) > _MAX_LINE)
        return node

    def represent_float(self, data: float) -> yaml.ScalarNode:
        node = super().represent_float(data)
        node.value = re.sub(r"e([-+])0(\d)$", r"e\1\2", node.value)  # 1.0e-5
        return node

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


_Dumper.add_representer(float, _Dumper.represent_float)
YamlLoader.yaml_implicit_resolvers = {}  # removes PyYAML's rules of YAML 1.1
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
            raise file_error(source, "is empty, but for comments")
        _bound(node, {}, source)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        what = ", ".join(filter(None, (error.context, error.problem)))
        raise file_error(source, f"is not YAML that can be read: {_start_of(what)}{_place(text, error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        what = f"the character {text[error.position]!r} in line {line}{quote_line(text, line, column)}"
        raise file_error(source, f"is not YAML that can be read: it may not have {what}") from None
    except ConfigError:
        raise
    # PyYAML's constructors trust a tag: `!!bool maybe` is a KeyError, `!!timestamp x` an AttributeError.
    except (yaml.YAMLError, ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
        raise file_error(source, f"is not YAML that can be read: {_start_of(str(error))}") from None
    finally:
        if loader is not None:
            loader.dispose()


# What PyYAML says, and what is to be done where it does not tell.
_HINTS = {
    "'\\t'": "indent with spaces, since YAML takes no tabs",
    "that cannot start any token": "put text that begins with it in quotes",
    "undefined alias": "put text that begins with '*' in quotes",
    "unknown escape character": "put regular expressions in single quotes",
    "mapping values are not allowed": "look at the indentation, and for a missing space after a ':' just before",
    "<block mapping start>": "indent all fields of a mapping alike",
    "another document": "one file holds one config",
    ":python/": "Python's tags are not read; `optax-ext convert` reads the tuples of Model Garden's files",
}


def _place(text: str, error: yaml.MarkedYAMLError) -> str:
    """Return where the error is, with the line itself, and what may help."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return ""
    hint = next((f" ({hint})" for said, hint in _HINTS.items() if said in (error.problem or "")), "")
    line = quote_line(text, mark.line + 1, mark.column + 1)
    if not line and (began := error.context_mark):  # the end of the file, which what is not closed runs into
        line = f"; it began in line {began.line + 1}{quote_line(text, began.line + 1, began.column + 1)}"
    return f" in line {mark.line + 1}, column {mark.column + 1}{hint}{line}"


def _start_of(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}…"  # PyYAML quotes tags and keys of any length


def _bound(node: yaml.Node, sizes: dict[int, int], source: str) -> int:
    """Return the number of values in a node with its aliases expanded, without following any alias twice."""
    if id(node) not in sizes:
        sizes[id(node)] = _MAX_VALUES + 1  # a node that contains itself counts as too large
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = [child for item in children for child in (item if isinstance(item, tuple) else (item,))]
        sizes[id(node)] = 1 + sum(_bound(child, sizes, source) for child in flat)
    if sizes[id(node)] > _MAX_VALUES:
        raise file_error(source, f"must have at most {_MAX_VALUES} values once its aliases are followed")
    return sizes[id(node)]
