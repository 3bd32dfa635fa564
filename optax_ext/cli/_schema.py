"""The command schema."""

import json

from optax_ext import config


def schema() -> int:
    """Print the JSON Schema of configs."""
    print(json.dumps(config.json_schema(), indent=2))
    return 0
