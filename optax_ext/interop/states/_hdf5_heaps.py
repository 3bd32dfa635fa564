"""Checks the parts of HDF5 files in which damage makes the HDF5 library run for ever or take all memory.

A global heap holds texts, such as those of attributes, one object after another. The library walks it by the sizes of
its objects, and stays for ever at a free one of size 0. Where a text is used stand its length, the address of its heap
and the index of its object; the library takes as much memory as that length says, up to 4 GiB.

References:
  HDF5 file format, version 3, sections III.E and IV.A.2.d,
  https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

import mmap
import os
from collections.abc import Mapping
from typing import IO

from optax_ext._core.files import file_error

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAP = b"GCOL\x01\x00\x00\x00"  # the signature of a global heap, its version, and three reserved bytes
_HEADER = 16  # bytes, of a heap and of each of its objects
_MAX_SEARCH, _FEW = 2**32, 64  # bytes in which texts are looked for, and heaps for which all are, as in real files


def check_heaps(file: IO[bytes], path: str) -> None:
    """Raise ConfigError if an object of a global heap has no size, or a text is longer than its object.

    Heaps are found only where addresses have 8 bytes and count from the start of the file, so that anything else is
    refused: Keras does not write it.

    Args:
      file: The open file, of HDF5.
      path: What an error says it is.
    """
    size = os.fstat(file.fileno()).st_size
    if not size:
        return  # nothing can be mapped of nothing, which is no HDF5
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        sizes = content[13:15] if content[8:9] < b"\2" else content[9:11]
        if content[:8] != _SIGNATURE or sizes != b"\x08\x08":
            raise file_error(
                path, "is no HDF5 as Keras writes it, with addresses of 8 bytes from the start of the file"
            )
        starts, start = list[int](), content.find(_HEAP)
        while start >= 0:
            starts.append(start)
            if len(starts) > max(_FEW, _MAX_SEARCH // size):
                raise file_error(path, f"has more than {len(starts) - 1} global heaps, and Keras writes a few")
            start = content.find(_HEAP, start + len(_HEAP))
        for start in starts:
            _check_texts(content, start, _objects(content, start, path), path)


def _objects(content: mmap.mmap, start: int, path: str) -> dict[int, int]:
    """Return the sizes of the objects in a heap, by their index."""
    end = min(len(content), start + _number(content, start + 8, 8))
    place, objects = start + _HEADER, dict[int, int]()
    while place + _HEADER <= end:
        index, size = _number(content, place, 2), _number(content, place + 8, 8)
        step = _HEADER + (size + 7) // 8 * 8 if index else size  # that of free space counts its header
        if step < _HEADER or place + step > end:
            raise file_error(path, f"is damaged: the global heap at byte {start} has an object of {size} bytes")
        objects[index] = size
        place += step
    return objects


def _check_texts(content: mmap.mmap, start: int, objects: Mapping[int, int], path: str) -> None:
    address = start.to_bytes(8, "little")
    place = content.find(address)
    while place >= 0:
        length, index = _number(content, place - 4, 4), _number(content, place + 8, 4)
        if index and length > objects.get(index, length):
            raise file_error(path, f"is damaged: the text at byte {place} has {length} bytes, more than there are")
        place = content.find(address, place + 1)


def _number(content: mmap.mmap, place: int, size: int) -> int:
    return int.from_bytes(content[max(place, 0) : place + size], "little")
