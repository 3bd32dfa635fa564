"""The types of fields, each with its range. All values fit float32 and int32, the types that reach devices."""

import typing
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar, cast

import pydantic
from pydantic_core import core_schema

from optax_ext._core.errors import shorten
from optax_ext._core.regexes import check_together, compile_pattern
from optax_ext._core.schema import plain_numbers, plain_value, problem

FLOAT32_MAX = (2 - 2.0**-23) * 2.0**127
FLOAT32_TINY = 2.0**-126  # below it numbers are subnormal, and flushed to zero
INT32_MAX = 2**31 - 1


def _representable(value: float) -> float:
    if not (value == 0 or FLOAT32_TINY <= abs(value) <= FLOAT32_MAX):
        raise problem(f"must be representable in float32, got {value!r}")
    return value


def _integral(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value  # 1e4 steps are 10000


_Float32 = pydantic.AfterValidator(_representable)
Number = Annotated[float, pydantic.Field(allow_inf_nan=False), _Float32]
NonNegativeNumber = Annotated[float, pydantic.Field(allow_inf_nan=False, ge=0), _Float32]
PositiveNumber = Annotated[float, pydantic.Field(allow_inf_nan=False, gt=0), _Float32]
NumberAboveOne = Annotated[float, pydantic.Field(allow_inf_nan=False, gt=1), _Float32]
Fraction = Annotated[float, pydantic.Field(allow_inf_nan=False, ge=0, le=1), _Float32]
FractionBelowOne = Annotated[float, pydantic.Field(allow_inf_nan=False, ge=0, lt=1), _Float32]

_Integral = pydantic.BeforeValidator(_integral)
Integer = Annotated[int, pydantic.Field(ge=-INT32_MAX, le=INT32_MAX), _Integral]
NonNegativeInteger = Annotated[int, pydantic.Field(ge=0, le=INT32_MAX), _Integral]
PositiveInteger = Annotated[int, pydantic.Field(gt=0, le=INT32_MAX), _Integral]


class _AsTuple:
    """Takes any sequence for a list, such as one of omegaconf's, and keeps a tuple, which is hashable."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: pydantic.GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        (item,) = typing.get_args(source)
        return core_schema.no_info_before_validator_function(as_tuple, handler(tuple[item, ...]))


def as_tuple(value: object) -> object:
    """Return a sequence as a tuple, and anything else, text and bytes included, unchanged."""
    value = plain_numbers(value)  # an array as a list
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray | memoryview):
        return value
    return tuple(map(plain_value, cast(Sequence[object], value)))


_Item = TypeVar("_Item")
ListOf = Annotated[Sequence[_Item], _AsTuple()]


def _compiles(pattern: str) -> str:
    try:
        compile_pattern(pattern)
    except ValueError as error:
        raise problem(f"must be a regular expression, got {shorten(pattern)}: {error}") from None
    return pattern


def _are_quick(patterns: tuple[str, ...]) -> tuple[str, ...]:
    try:
        check_together([compile_pattern(pattern) for pattern in patterns])
    except ValueError as error:
        raise problem(f"is too long a list: {error}") from None
    return patterns


Pattern = Annotated[str, pydantic.Field(max_length=1000), pydantic.AfterValidator(_compiles)]
Patterns = Annotated[ListOf[Pattern], pydantic.AfterValidator(_are_quick)]
