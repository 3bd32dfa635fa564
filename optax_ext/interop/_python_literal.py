"""Dicts as Python prints them, turned into JSON token by token, so that nothing is evaluated and nothing nests far."""

import json
import re
import struct
from typing import Any

_MAX_LENGTH = 100_000
# Keras on NumPy 2 prints its rate as `np.float32(3e-05)`, which is the number that 3e-05 is in float32.
_NUMPY = {"float32": "<f", "float16": "<e", "float64": "<d"}
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
    | (?:np\.|numpy\.)?(?P<kind>float16|float32|float64|int32|int64)\((?P<inside>[-+.\w]+)\)
    | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
    | (?P<word>[-+]?[A-Za-z]+)
    | (?P<mark>[][(){},:])
    )\s*""",
    re.VERBOSE,
)
_ESCAPES = {"\\": "\\", "'": "'", '"': '"', "/": "/", "n": "\n", "t": "\t"}
_WORDS = {
    "None": "null",
    "null": "null",
    "True": "true",
    "true": "true",
    "False": "false",
    "false": "false",
    "nan": "NaN",
    "NaN": "NaN",
    "inf": "Infinity",
    "-inf": "-Infinity",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
}


def read_literal(text: str) -> Any:
    """Return the data that a dict, list, tuple, number or text of Python or JSON stands for.

    Raises:
      ValueError: If it is anything else.
    """
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"it must have at most {_MAX_LENGTH} characters, got {len(text)}")
    pieces: list[str] = []
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise ValueError(f"{text[position : position + 40]!r} is neither a number, nor text, nor None or a bool")
        piece = _as_json(token)
        if piece in ("]", "}") and pieces and pieces[-1] == ",":
            pieces.pop()  # which Python takes after a last item, and JSON does not
        pieces.append(piece)
        position = token.end()
    try:
        return json.loads("".join(pieces))
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def read_value(text: str) -> Any:
    """Return the data that a cell of a table stands for, which is text if it is nothing else."""
    try:
        return read_literal(text)
    except ValueError:
        return text


def _as_json(token: re.Match[str]) -> str:
    if token["text"] is not None:
        return json.dumps(re.sub(r"\\(.)", _unescape, token["text"][1:-1]))
    if token["kind"] is not None:
        return _number(token["inside"], token["kind"])
    if token["number"] is not None:
        return _number(token["number"], "")
    if token["word"] is not None:
        if token["word"] not in _WORDS:
            raise ValueError(f"{token['word'][:40]!r} is no value that can be read")
        return _WORDS[token["word"]]
    return {"(": "[", ")": "]"}.get(token["mark"], token["mark"])


def _unescape(escape: re.Match[str]) -> str:
    if escape[1] not in _ESCAPES:
        raise ValueError(f"{escape[0]!r} in its text is no escape that is read")
    return _ESCAPES[escape[1]]


def _number(text: str, kind: str) -> str:
    """Return a number as JSON, rounded to the type of NumPy that it is said to be of."""
    if kind.startswith("int") or re.fullmatch(r"[-+]?\d+", text):
        return str(int(text)) if kind in ("", "int32", "int64") else _rounded(float(text), kind)
    return _rounded(float(text), kind)


def _rounded(value: float, kind: str) -> str:
    try:
        value = struct.unpack(_NUMPY[kind], struct.pack(_NUMPY[kind], value))[0] if kind else value
    except OverflowError:
        raise ValueError(f"{value!r} is out of the range of {kind}") from None
    return json.dumps(value)
