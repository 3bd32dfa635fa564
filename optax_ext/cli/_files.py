"""The commands that only read and write: check, convert and schema."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from optax_ext import config
from optax_ext._core.files import json_text
from optax_ext._core.yaml_files import yaml_text
from optax_ext.cli._errors import CommandError
from optax_ext.config import ConfigError


def check(files: Sequence[str]) -> int:
    """Print for each file that it is ok, or all its problems."""
    status = 0
    for file in files:
        try:
            config.load(file)
        except ConfigError as error:
            print(error)
            status = 1
        else:
            print(f"{file}: ok")
    return status


def convert(file: str, output: str | None, to: str | None, exclude_defaults: bool) -> int:
    """Write a config in another format, into a file or to standard output."""
    loaded = config.load(file)
    if output is not None:
        if to is not None and to != _format(output):
            raise CommandError(f"--to {to} and -o {output} are two formats: give one of them", status=2)
        config.save(loaded, output, exclude_defaults=exclude_defaults)
        return 0
    to = to or ("yaml" if _format(file) == "json" else "json")
    as_text = json_text if to == "json" else yaml_text
    sys.stdout.write(as_text(config.to_dict(loaded, exclude_defaults=exclude_defaults)))
    return 0


def schema() -> int:
    """Print the JSON Schema of configs."""
    print(json.dumps(config.json_schema(), indent=2))
    return 0


def _format(file: str) -> str:
    return "json" if Path(file).suffix.lower() == ".json" else "yaml"
