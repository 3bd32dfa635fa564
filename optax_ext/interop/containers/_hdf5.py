"""The training config in an HDF5 file of a whole model: JSON in an attribute of its root.

The few structures on the way to an attribute are read here. HDF5's own library reads everything else too, and loops
without end on some damaged files. References: the HDF5 File Format Specification, version 3.0, sections II.A, III.E,
IV.A.1 and IV.A.2.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from optax_ext._core.files import decode_text, file_error, read_json
from optax_ext.interop.containers._contents import MAX_BYTES

_ATTRIBUTE = "training_config"
_SAVE = "save the whole model with model.save('model.keras') after compiling it"
_SIZE = 8  # bytes of addresses and lengths
_MAX_HEADER = 2**21  # bytes of an object header with all blocks that continue it, however often one is named
_MAX_MESSAGES = 2**14  # in one object header, of which each attribute is one; HDF5 takes four times as many
_MAX_OBJECTS = 100_000  # in one collection of a global heap
_CONTINUATION, _ATTRIBUTE_MESSAGE, _ATTRIBUTE_INFO = 0x10, 0x0C, 0x15
_FIXED_TEXT, _VARIABLE = 3, 9  # classes of datatypes


def read_hdf5(path: str) -> dict[str, Any]:
    """Return what Keras saved about the training of a model, by the attribute's name."""
    try:
        with open(path, "rb") as file:
            attributes = _Hdf5(file).attributes_of_root()
            if _ATTRIBUTE not in attributes:
                raise file_error(path, _what_is_missing(attributes, path))
            content = attributes[_ATTRIBUTE].read()
    except _DamagedError as error:
        raise file_error(path, f"is no HDF5 file that can be read: {error}") from None
    except OSError as error:
        raise file_error(path, f"cannot be read: {error}") from None
    return {_ATTRIBUTE: read_json(decode_text(content, path), path)}


def _what_is_missing(attributes: "dict[str, _Attribute]", path: str) -> str:
    """Say what a file without a training config is."""
    if "model_config" in attributes:
        return (
            f"has no attribute {_ATTRIBUTE}: the model was saved without being compiled, or with"
            f" include_optimizer=False, so its optimizer is not in it; {_SAVE}"
        )
    if "layer_names" in attributes or path.lower().endswith((".weights.h5", ".weights.hdf5")):
        return (
            f"holds weights alone, as model.save_weights writes them: the config of the optimizer is not in it; {_SAVE}"
        )
    return f"has no attribute {_ATTRIBUTE}: it holds weights alone, or is no model of Keras; {_SAVE}"


class _DamagedError(Exception):
    """The file does not follow the format, or uses a part of it that is not read here."""


class _Bytes:
    """A piece of a file, read from the front."""

    def __init__(self, content: bytes):
        self.content = content
        self.start = 0

    @property
    def left(self) -> int:
        return len(self.content) - self.start

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise _DamagedError("it ends within a structure")
        self.start += size
        return self.content[self.start - size : self.start]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")


class _Attribute(NamedTuple):
    """An attribute of the root, before its value is read."""

    file: "_Hdf5"
    datatype: bytes
    dataspace: bytes
    data: bytes

    def read(self) -> bytes:
        """Return its text."""
        kind = self.datatype[0] & 15
        is_scalar = self.dataspace[1:2] == b"\0" and not (self.dataspace[0] == 2 and self.dataspace[3:4] != b"\0")
        if not is_scalar or (kind != _FIXED_TEXT and not (kind == _VARIABLE and self.datatype[1] & 15 == 1)):
            raise _DamagedError(f"its attribute {_ATTRIBUTE} must be text")
        if kind == _FIXED_TEXT:
            return _Bytes(self.data).take(int.from_bytes(self.datatype[4:8], "little")).rstrip(b"\0")
        value = _Bytes(self.data)
        size, address, index = value.number(4), value.number(_SIZE), value.number(4)
        return self.file.heap_object(address, index, size)


class _Hdf5:
    """The structures of a file that lead to the attributes of its root group."""

    def __init__(self, file: BinaryIO):
        self.file = file
        block = _Bytes(file.read(256))
        if block.take(8) != b"\x89HDF\r\n\x1a\n":
            raise _DamagedError("it does not begin with the signature of HDF5")
        version = block.number(1)
        if version not in (0, 1, 2, 3):
            raise _DamagedError(f"its superblock has the version {version}")
        block.take(4 if version < 2 else 0)
        if block.take(2) != bytes([_SIZE, _SIZE]):
            raise _DamagedError(f"its addresses and lengths must have {_SIZE} bytes, as Keras writes them")
        block.take({0: 9, 1: 13}.get(version, 1))
        # Addresses, the first of which is that of the file's start. The root's is last, and in older versions has those
        # of the driver's block and of the link's name before it.
        block.take((3 if version > 1 else 5) * _SIZE)
        self.root = block.number(_SIZE)

    def attributes_of_root(self) -> dict[str, _Attribute]:
        """Return the attributes of the root group, by their names."""
        found: dict[str, _Attribute] = {}
        for kind, shared, message in self._messages():
            if kind == _ATTRIBUTE_INFO and self._is_dense(message):
                text = f"write h5py.File(…).attrs[{_ATTRIBUTE!r}] to a JSON file"
                raise _DamagedError(f"it keeps its attributes in a heap, which is not read: {text}, or {_SAVE}")
            if kind == _ATTRIBUTE_MESSAGE:
                if shared:
                    raise _DamagedError(f"it shares its attributes among objects, which is not read; {_SAVE}")
                name, attribute = self._attribute(message)
                found[name] = attribute
        return found

    def heap_object(self, address: int, index: int, size: int) -> bytes:
        """Return the text of a variable length that an attribute refers to."""
        heap = self._piece(address, 8 + _SIZE)
        if heap.take(4) != b"GCOL":
            raise _DamagedError("its attribute refers to no heap")
        heap.take(4)
        end = heap.number(_SIZE)
        start = 8 + _SIZE
        for _ in range(_MAX_OBJECTS):
            if start >= end:
                break
            header = self._piece(address + start, 8 + _SIZE)
            number = header.number(2)
            header.take(6)
            length = header.number(_SIZE)
            start += 8 + _SIZE
            if number == index:
                if size > min(length, MAX_BYTES):
                    raise _DamagedError(f"its attribute must have at most {min(length, MAX_BYTES)} bytes, got {size}")
                return self._piece(address + start, size).content
            if number == 0:  # free space, up to the end
                break
            start += -(-length // 8) * 8
        raise _DamagedError("its attribute refers to nothing in its heap")

    def _piece(self, address: int, size: int) -> _Bytes:
        try:
            self.file.seek(address)
        except (OverflowError, ValueError):
            raise _DamagedError("an address leads out of it") from None
        content = self.file.read(size)
        if len(content) < size:
            raise _DamagedError("an address leads out of it")
        return _Bytes(content)

    def _messages(self) -> Iterator[tuple[int, bool, bytes]]:
        """Yield the messages in the header of the root, with their types, and whether they are shared."""
        start = self._piece(self.root, 6)
        newer = start.take(4) == b"OHDR"
        if newer:
            flags = start.content[5]
            skipped = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            size_of_size = 1 << (flags & 3)
            head = self._piece(self.root, skipped + size_of_size)
            head.take(skipped)
            blocks = [(self.root + skipped + size_of_size, head.number(size_of_size), 0)]
        else:
            flags, head = 0, self._piece(self.root, 16)
            if head.number(1) != 1:
                raise _DamagedError("its root has a header of an unknown version")
            head.take(7)
            blocks = [(self.root + 16, head.number(4), 0)]
        left, messages_left = _MAX_HEADER, _MAX_MESSAGES
        for address, size, mark in blocks:  # to which blocks are added on the way
            left -= size
            if size < mark or left < 0:
                raise _DamagedError("a block of the header of its root has an impossible size")
            block = self._piece(address, size)
            block.take(mark)
            while block.left >= (4 if newer else 8):
                messages_left -= 1
                if messages_left < 0:
                    raise _DamagedError(f"the header of its root has more than {_MAX_MESSAGES} messages")
                kind, message, shared = self._message(block, flags, newer)
                if kind == _CONTINUATION:
                    place = _Bytes(message)
                    where, length = place.number(_SIZE), place.number(_SIZE)
                    # A newer block has a signature before its messages and a checksum after them.
                    blocks.append((where, length - 4, 4) if newer else (where, length, 0))
                else:
                    yield kind, shared, message

    def _message(self, block: _Bytes, flags: int, newer: bool) -> tuple[int, bytes, bool]:
        kind, size, message_flags = block.number(1 if newer else 2), block.number(2), block.number(1)
        block.take((2 if flags & 4 else 0) if newer else 3)
        return kind, block.take(size), bool(message_flags & 2)

    def _is_dense(self, message: bytes) -> bool:
        info = _Bytes(message)
        info.take(1)
        info.take(2 if info.number(1) & 1 else 0)
        return info.number(_SIZE) != 2 ** (8 * _SIZE) - 1  # an address of all ones is none

    def _attribute(self, message: bytes) -> tuple[str, _Attribute]:
        content = _Bytes(message)
        version, flags = content.number(1), content.number(1)
        sizes = [content.number(2) for _ in range(3)]
        if version not in (1, 2, 3) or (version > 1 and flags & 3):
            raise _DamagedError("an attribute of its root has an unknown form")
        content.take(1 if version == 3 else 0)
        parts: list[bytes] = []
        for size in sizes:
            parts.append(content.take(size))
            content.take(-size % 8 if version == 1 else 0)
        name, datatype, dataspace = parts
        if len(datatype) < 8 or len(dataspace) < 4:
            raise _DamagedError("an attribute of its root has no type or no shape")
        data = content.take(content.left)
        return name.split(b"\0")[0].decode("utf-8", "replace"), _Attribute(self, datatype, dataspace, data)
