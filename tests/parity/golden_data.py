"""Golden files: what TensorFlow returned, as JSON text from which every float32 comes back bit by bit.

Tensors are `{"shape": ..., "float32": ...}`, the second their little-endian bytes in base64. Other numbers are plain,
in the fewest digits that tell float32 numbers apart; what JSON has no numbers for is "nan", "inf" or "-inf".
"""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden"


def load(name: str) -> dict[str, Any]:
    """Read a golden file."""
    return loads((GOLDEN / f"{name}.json").read_text())


def loads(text: str) -> dict[str, Any]:
    """Return content with its tensors as arrays."""
    return json.loads(text, object_hook=_from_json)


def dumps(content: dict[str, Any]) -> str:
    """Return the text of content, with a line for each tensor and each list of numbers."""
    return _lines(_to_json(content)) + "\n"


def float32s(numbers: list[Any]) -> np.ndarray:
    """Return plain numbers, "nan" and the like as an array."""
    return np.array([np.float32(number) for number in numbers], np.float32)


def deviation(ours: Any, expected: Any) -> float:
    """Return how far a series of tensors is off: at its worst step, in parts of the tensor's largest entry there.

    Infinite unless the same entries are NaN or infinite in both.
    """
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(ours)):
        return np.inf
    if not np.array_equal(ours[~finite], expected[~finite], equal_nan=True):
        return np.inf
    apart = np.abs(np.subtract(ours, expected, out=np.zeros_like(expected), where=finite))
    entries = tuple(range(1, expected.ndim))
    apart, largest = apart.max(entries, initial=0), np.abs(np.where(finite, expected, 0)).max(entries, initial=0)
    relative = np.divide(apart, largest, out=np.where(apart > 0, np.inf, 0), where=largest > 0)
    return float(relative.max(initial=0))


def _from_json(value: dict[str, Any]) -> Any:
    if value.keys() != {"shape", "float32"}:
        return value
    return np.frombuffer(base64.b64decode(value["float32"]), "<f4").reshape(value["shape"])


def _to_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, np.ndarray):
        data = base64.b64encode(value.astype("<f4").tobytes()).decode()
        return {"shape": list(value.shape), "float32": data}
    if isinstance(value, np.floating):
        return float(str(value)) if np.isfinite(value) else str(value)
    return value


def _lines(value: Any, indent: str = "") -> str:
    line = json.dumps(value)
    if len(indent + line) <= 120 or not any(isinstance(item, (dict, list)) for item in _items(value)):
        return line
    inner = indent + " "
    if isinstance(value, dict):
        parts, brackets = [f"{json.dumps(key)}: {_lines(item, inner)}" for key, item in value.items()], "{}"
    else:
        parts, brackets = [_lines(item, inner) for item in value], "[]"
    return f"{brackets[0]}\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}{brackets[1]}"


def _items(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
