"""Files of Keras and Model Garden, as mappings."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from optax_ext._core.errors import ConfigError, Problem, shorten
from optax_ext._core.files import file_error, read_json, read_text
from optax_ext._core.plain_data import plain_data
from optax_ext._core.yaml_files import YamlLoader, read_yaml
from optax_ext.interop._python_literal import read_literal


class _Loader(YamlLoader):
    """Reads the two Python tags that real files have, both of lists, and no other."""

    def construct_list(self, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.SequenceNode):
            raise yaml.constructor.ConstructorError(None, None, "a list is expected", node.start_mark)
        return self.construct_sequence(node, deep=True)


for _tag in ("tag:yaml.org,2002:python/tuple", "tag:yaml.org,2002:python/list"):
    _Loader.add_constructor(_tag, _Loader.construct_list)


def read_mapping(source: Any, argument: str) -> Mapping[Any, Any]:
    """Return a mapping as plain data, or the mapping that a JSON or YAML file holds."""
    if not isinstance(source, str | os.PathLike):
        data = plain_data(source, argument)
        if isinstance(data, Mapping):
            return data
        text = f"must be a mapping or the path of a file, got {shorten(source)}"
        raise ConfigError(argument, [Problem("", text)])
    path: Any = source
    data = read_data(path, read_text(path))
    if not isinstance(data, Mapping):
        raise ConfigError(str(path), [Problem("", f"must hold a mapping, got {shorten(data)}")])
    return data


def read_data(path: str | os.PathLike[str], text: str) -> Any:
    """Return what the text of a file holds: JSON by the file's name, else JSON, a dict of Python or YAML."""
    name = str(path)
    if Path(path).suffix.lower() == ".json":
        data = read_json(text, name)
    else:
        start = text.lstrip()[:2]
        data = None
        if start[:1] in ("{", "["):  # which is JSON or YAML, and YAML takes no tabs
            with contextlib.suppress(ConfigError):
                data = read_json(text, name)
        if data is None and start == "{'":  # as Python prints a config
            with contextlib.suppress(ValueError):
                data = read_literal(text)
        if data is None:
            data = read_yaml(text, name, _Loader)
    if data is None:  # as `---` and `null` are read
        raise file_error(path, "is empty")
    return data
