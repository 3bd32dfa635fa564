"""Numbers as a person writes them: 0.001 where a file has its float32 rounding, 0.0010000000474974513."""

import struct
from typing import Any

_DIGITS = 6  # significant ones: float32 tells apart all decimals that have no more
_SMALLEST, _LARGEST = 2.0**-126, 3.4e38  # in between, float32 has its full precision
_TOLERANCE = 2e-5  # of 1 - x, which many optimizers use rather than x itself


def short_numbers(data: Any, changed: dict[float, float]) -> Any:
    """Return plain data with the short decimals that its numbers are float32 roundings of; tell which were changed.

    The short decimal is the same number in float32, and as the decay of an average it is the same up to 2e-5 of
    ``1 - decay``: of 0.9998999834060669 the difference to 1 would change by more, so that this one stays.
    """
    if isinstance(data, dict):
        return {key: short_numbers(value, changed) for key, value in data.items()}
    if isinstance(data, list):
        return [short_numbers(item, changed) for item in data]
    if isinstance(data, float) and (short := _short(data)) != data:
        changed[data] = short
        return short
    return data


def _short(number: float) -> float:
    if not _SMALLEST <= abs(number) <= _LARGEST:
        return number
    short = float(f"{number:.{_DIGITS}g}")
    is_same = _float32(short) == number and abs(short - number) <= _TOLERANCE * abs(1 - number)
    return short if is_same else number


def _float32(number: float) -> float:
    return struct.unpack("f", struct.pack("f", number))[0]
