"""What a container holds, and how much of it is read."""

from typing import Any, NamedTuple

MAX_BYTES = 16 * 2**20  # of JSON; the largest models have a few million


class Contents(NamedTuple):
    """What a container holds.

    Args:
      data: What an optimizer stands in.
      path: The file that it was read from.
      place: The keys that lead to the data, where it has been taken out of more.
    """

    data: Any
    path: str
    place: tuple[str, ...] = ()
