"""The metadata of Keras in a SavedModel: JSON in the text fields of a protocol buffer, read without its library."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from optax_ext._core.errors import shorten
from optax_ext._core.files import decode_text, file_error, read_bytes, read_json
from optax_ext.interop.containers._contents import MAX_BYTES, Contents

_METADATA, _MODEL = "keras_metadata.pb", "saved_model.pb"
_MAX_MODEL = 256 * 2**20  # bytes of saved_model.pb, which holds the graph too
_TRAINING = b'"training_config"'
_WITHOUT = (
    "has no optimizer, as a model saved without being compiled, or by Keras 3's export or with include_optimizer=False:"
    " save it with model.save('model.keras') after compiling it, or write keras.optimizers.serialize(model.optimizer)"
    " to a JSON file"
)


class _Node(NamedTuple):
    path: str
    metadata: bytes


def read_saved_model(path: str) -> Contents:
    """Return what Keras saved about the model of a SavedModel that is nearest to its root.

    Args:
      path: ``keras_metadata.pb``, or ``saved_model.pb``, beside which it is looked for, and which held the metadata
        itself before TensorFlow 2.5.

    Returns:
      The metadata of the model, with the path of its node if that is not the root.
    """
    beside = os.path.join(os.path.dirname(path), _METADATA)
    if Path(path).name == _MODEL and os.path.lexists(beside):
        path = beside
    is_model = Path(path).name == _MODEL
    data = memoryview(read_bytes(path, _MAX_MODEL if is_model else MAX_BYTES))
    try:
        nodes = [node for node in (_nodes_of_model if is_model else _nodes)(data) if _TRAINING in node.metadata]
    except ValueError as error:
        raise file_error(path, f"is no SavedModel that can be read: {error}") from None
    if not nodes:
        raise file_error(path, _WITHOUT)
    if sum(len(node.metadata) for node in nodes) > MAX_BYTES:
        raise file_error(path, f"must have at most {MAX_BYTES} bytes of metadata")
    read = {node.path: _read_metadata(node, path) for node in nodes}
    compiled = {key: value for key, value in read.items() if isinstance(value, dict) and value.get("training_config")}
    if not compiled:
        raise file_error(path, _WITHOUT)
    root = "root" if "root" in compiled else next(iter(compiled))
    if root != "root" and len(compiled) > 1:
        return Contents(compiled, path)  # in which an optimizer is looked for, and several are found
    return Contents(compiled[root], path, () if root == "root" else (root,))


def _read_metadata(node: _Node, path: str) -> Any:
    return read_json(decode_text(node.metadata, path), f"{path}: {shorten(node.path)}")


def _nodes(data: memoryview) -> Iterator[_Node]:
    """Yield the nodes of keras_metadata.pb: each has its path in field 3, and its metadata in field 5."""
    for node in _children(data, 1):
        yield _Node(_text(_last(node, 3)), bytes(_last(node, 5)))


def _nodes_of_model(data: memoryview) -> Iterator[_Node]:
    """Yield the objects of saved_model.pb that are of Keras, of which the first object of all is the root."""
    for graph in _children(data, 2):  # a MetaGraphDef
        for objects in _children(graph, 7):  # its SavedObjectGraph
            for index, node in enumerate(_children(objects, 1)):
                for user_object in _children(node, 4):
                    yield _Node(f"node {index}" if index else "root", bytes(_last(user_object, 3)))


def _text(data: memoryview) -> str:
    return bytes(data).decode("utf-8", "replace")


def _last(message: memoryview, number: int) -> memoryview:
    """Return a field that occurs once at most: its last occurrence counts, and an empty one if there is none."""
    return [memoryview(b""), *_children(message, number)][-1]


def _children(message: memoryview, number: int) -> Iterator[memoryview]:
    """Yield the fields of one number that have a length: messages and text."""
    start = 0
    while start < len(message):
        tag, start = _varint(message, start)
        kind = tag & 7
        if kind == 0:
            _, start = _varint(message, start)
        elif kind == 2:
            size, start = _varint(message, start)
            if size > len(message) - start:
                raise ValueError("a field is longer than the message that holds it")
            if tag >> 3 == number:
                yield message[start : start + size]
            start += size
        elif kind in (1, 5):
            start += 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field has the unknown wire type {kind}")
    if start > len(message):
        raise ValueError("it ends within a field")


def _varint(message: memoryview, start: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and where it ends."""
    value = 0
    for count, byte in enumerate(message[start : start + 10]):
        value |= (byte & 127) << 7 * count
        if byte < 128:
            return value, start + count + 1
    raise ValueError("it ends within a number, or has one that is too long")
