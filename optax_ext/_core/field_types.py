"""The types of fields, each with its range. All values fit float32 and int32, the types that reach devices."""

import abc
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, cast

import pydantic
from pydantic_core import core_schema

from optax_ext._core.durations import PATTERN as DURATION_PATTERN
from optax_ext._core.durations import Duration
from optax_ext._core.errors import shorten
from optax_ext._core.frozen_mapping import FrozenMapping
from optax_ext._core.regexes import check_together, compile_pattern
from optax_ext._core.schema import explain, plain_numbers, plain_value, problem, type_adapter

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
NonPositiveNumber = Annotated[float, pydantic.Field(allow_inf_nan=False, le=0), _Float32]
NumberAboveOne = Annotated[float, pydantic.Field(allow_inf_nan=False, gt=1), _Float32]
Fraction = Annotated[float, pydantic.Field(allow_inf_nan=False, ge=0, le=1), _Float32]
PositiveFraction = Annotated[float, pydantic.Field(allow_inf_nan=False, gt=0, le=1), _Float32]
FractionBelowOne = Annotated[float, pydantic.Field(allow_inf_nan=False, ge=0, lt=1), _Float32]

_Integral = pydantic.BeforeValidator(_integral)
Integer = Annotated[int, pydantic.Field(ge=-INT32_MAX, le=INT32_MAX), _Integral]
NonNegativeInteger = Annotated[int, pydantic.Field(ge=0, le=INT32_MAX), _Integral]
PositiveInteger = Annotated[int, pydantic.Field(gt=0, le=INT32_MAX), _Integral]
LargePositiveInteger = Annotated[int, pydantic.Field(gt=0, le=2**53), _Integral]  # of data sets, which no device counts


def _is_like_a_duration(text: str) -> bool:
    """Return whether a text may be meant as a duration: it has a digit, and is not a number in quotes."""
    try:
        float(text)
    except ValueError:
        return any(character.isdigit() for character in text)
    return False


class NumberOr(abc.ABC):
    """Takes a number of the type given, or something else; one validator, so that no union tag enters errors' paths."""

    def __init__(self, number: Any) -> None:
        self.number = number

    @abc.abstractmethod
    def check(self, value: object) -> object:
        """Return the value to keep; raise a problem, or pydantic's error, if it is neither."""

    @abc.abstractmethod
    def alternatives(self) -> list[dict[str, Any]]:
        """Return the JSON Schemas of what is taken besides a number."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: pydantic.GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        del source, handler
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        del schema, handler
        return {"anyOf": [type_adapter(self.number).json_schema(), *self.alternatives()]}


class _StepsOr(NumberOr):
    """Takes a number of steps of the type given, or a duration in words, which becomes one once the run is known."""

    def check(self, value: object) -> object:
        if not isinstance(value, str):
            return type_adapter(self.number).validate_python(value, strict=True)
        try:
            duration = value if isinstance(value, Duration) else Duration(value)
        except ValueError as error:
            hint = f"; as a duration: {error}" if _is_like_a_duration(value) else ""
            raise problem(f"{explain(self.number, value)}{hint}") from None
        signs = [(amount > 0) - (amount < 0) for amount, _ in duration.terms]
        wrong = explain(self.number, max(signs) if max(signs) > 0 else min(signs))  # whatever the run is
        if wrong is not None:
            raise problem(f"{wrong.partition(', got')[0]}, got {shorten(value)}")
        return duration

    def alternatives(self) -> list[dict[str, Any]]:
        return [{"type": "string", "pattern": DURATION_PATTERN}]


Steps = Annotated[int | str, _StepsOr(Integer)]
NonNegativeSteps = Annotated[int | str, _StepsOr(NonNegativeInteger)]
PositiveSteps = Annotated[int | str, _StepsOr(PositiveInteger)]
PositiveNumberOfSteps = Annotated[float | str, _StepsOr(PositiveNumber)]  # a period that need not be whole


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


# ---------------------------------------------------------------------------------------------------------
# Mappings from patterns on paths: factors, and the axes that count layers.


def _is_of_paths(pattern: str) -> str:
    if compile_pattern(pattern).max_rank is not None:
        raise problem(f"must be a regular expression on paths, got {shorten(pattern)}, which is of ranks")
    return pattern


class ByPattern:
    """Takes any mapping from patterns on paths, such as one of omegaconf's, and keeps a frozen one."""

    def __init__(self, example: str) -> None:
        self.example = example

    def __get_pydantic_core_schema__(
        self, source: Any, handler: pydantic.GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        _, item = typing.get_args(source)

        def freeze(value: object, check: core_schema.ValidatorFunctionWrapHandler) -> object:
            if not isinstance(value, Mapping) or not value:
                text = f"must be a mapping with at least one pattern, as in {self.example}, got {shorten(value)}"
                raise problem(text)
            given = cast(Mapping[object, object], value)
            checked = check({key: plain_value(item) for key, item in given.items()})
            _are_quick(tuple(checked))
            return FrozenMapping(checked)

        pattern = Annotated[Pattern, pydantic.AfterValidator(_is_of_paths)]
        inner = Annotated[dict[pattern, item], pydantic.Field(min_length=1)]
        return core_schema.no_info_wrap_validator_function(freeze, handler(inner))


FactorsByPattern = Annotated[Mapping[str, NonNegativeNumber], ByPattern("{'^head/': 10.0}")]


class _ByKind:
    """Takes an axis, a list or a mapping, and says of each what is wrong with it rather than with all of them."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: pydantic.GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        kinds = {typing.get_origin(typing.get_args(kind)[0]): kind for kind in typing.get_args(source)}
        wanted = "must be an axis, a list of axes, a mapping from patterns to these, or null"
        wanted = wanted if Mapping in kinds else "must be an axis, a list of axes, or null"

        def check(value: object, _: Any) -> Any:
            value = as_tuple(value)
            kind = Mapping if isinstance(value, Mapping) else Sequence if isinstance(value, tuple) else None
            if kind not in kinds or (kind is None and type(value) not in (int, float)):
                raise problem(f"{wanted}, got {shorten(value)}")
            return type_adapter(kinds[kind]).validate_python(value, strict=True)

        return core_schema.no_info_wrap_validator_function(check, handler(source))


def _each_once(axes: tuple[int, ...]) -> tuple[int, ...]:
    if not axes or len(set(axes)) < len(axes):
        raise problem(f"must list at least one axis, and each once, got {list(axes)}")
    return axes


_AXES: dict[str, Any] = {"minItems": 1, "uniqueItems": True}
_Axes = Annotated[ListOf[Integer], pydantic.AfterValidator(_each_once), pydantic.Field(json_schema_extra=_AXES)]
Axes = Annotated[Integer | _Axes, _ByKind()]  # counted from the end if negative
AxesByPattern = Annotated[Mapping[str, Axes | None], ByPattern("{'^blocks/': 0}")]
StackedAxes = Annotated[Integer | _Axes | AxesByPattern, _ByKind()]
