"""Numbers as Model Garden's YAML loader reads them."""

from typing import Any


def read_number(value: Any) -> Any:
    """Read text such as `1e-4`, which YAML 1.1 does not take for a number and Model Garden does."""
    if isinstance(value, list | tuple):
        return [read_number(item) for item in value]
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            pass
    return value
