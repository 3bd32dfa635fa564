"""What a recipe may give for an argument of an Optax function, by its annotation, its name and its default."""

import collections.abc
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, cast

import pydantic
from pydantic_core import core_schema

from optax_ext._core.errors import shorten
from optax_ext._core.field_types import (
    Fraction,
    Integer,
    NonNegativeInteger,
    NonNegativeNumber,
    NonNegativeSteps,
    Number,
    Patterns,
    PositiveSteps,
)
from optax_ext._core.frozen_mapping import FrozenMapping
from optax_ext._core.lazy import jax, np, optax
from optax_ext._core.schema import explain, problem, raise_below, type_adapter
from optax_ext._core.synonyms import suggest
from optax_ext.schedules import (
    AnyNumberOrSchedule,
    FractionOrSchedule,
    NonNegativeOrSchedule,
    Rate,
    ScalarOrSchedule,
)


class Argument(NamedTuple):
    """An argument of a function of Optax.

    Attributes:
      name: What Optax calls it.
      accepted: The type of the field that a recipe has for it; None if it cannot stand in a recipe.
      reason: Why it cannot, or nothing.
      default: Its default as the field has it; ``inspect.Parameter.empty`` if it is required.
      by_keyword: Whether it is given by keyword alone.
    """

    name: str
    accepted: Any | None
    reason: str
    default: Any
    by_keyword: bool

    @property
    def is_required(self) -> bool:
        """Whether the function cannot be called without it."""
        return self.default is inspect.Parameter.empty


def read_argument(parameter: inspect.Parameter, reserved: Sequence[str], *, schedules: bool = True) -> Argument:
    """Read an argument from the signature of a function of Optax.

    Args:
      parameter: The argument.
      reserved: Names of fields of ours.
      schedules: Whether the function can evaluate a schedule, if the annotation says that it takes one.

    Returns:
      The argument as a recipe has it.
    """
    by_keyword = parameter.kind is inspect.Parameter.KEYWORD_ONLY
    accepted, kind = (
        (None, "what a field of ours is called") if parameter.name in reserved else _read(parameter, schedules)
    )
    reason = f"{kind}, which cannot stand in a recipe" if kind else ""
    default = parameter.default
    if accepted is _Mask:
        default = inspect.Parameter.empty if default is inspect.Parameter.empty else None  # True means as much
    elif accepted is not None and _is_dtype(parameter.name) and default not in (None, inspect.Parameter.empty):
        default = np.dtype(default).name
    if accepted is not None and (default is None or type(None) in _choices(parameter.annotation)):
        accepted = accepted | None
    return Argument(parameter.name, accepted, reason, default, by_keyword)


def _read(parameter: inspect.Parameter, schedules: bool) -> tuple[Any | None, str]:
    """Return the type of the field for an argument, or None and what it is."""
    name, choices = parameter.name, _choices(parameter.annotation)
    if name in _REFINED:
        return _REFINED[name], ""
    if is_made_of_transformations(parameter.annotation):
        return None, "a transformation"
    functions = [choice for choice in choices if typing.get_origin(choice) is collections.abc.Callable]
    if Any in choices and any(typing.get_args(function)[0] == [optax.Params] for function in functions):
        return _Mask, ""
    if _is_dtype(name):
        return _DType, ""
    if optax.Schedule in functions:
        return _WITH_SCHEDULE[_range(name)] if schedules else _range(name), ""
    if functions:
        return None, "a function, or a tree"
    if jax.Array in choices and float not in choices:
        return None, "an array"
    values = [_value(choice, name, parameter.default) for choice in _without_numbers(choices)]
    if not values or None in values:
        return None, f"of a type that is not known here, {shorten(parameter.annotation)}"
    return (values[0] if len(values) == 1 else Annotated[Any, _Either(tuple(values))]), ""


def is_made_of_transformations(annotation: Any) -> bool:
    """Return whether a type is that of a transformation, or of anything that holds or makes them."""
    return optax.GradientTransformation.__name__ in str(annotation)


def _choices(annotation: Any) -> tuple[Any, ...]:
    """Return the types of a union; of any other annotation, itself."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _without_numbers(choices: Sequence[Any]) -> list[Any]:
    """Return the types to choose from without None, and one in place of all the numbers of `jax.typing.ArrayLike`."""
    if complex in choices:
        numbers = set(_choices(jax.typing.ArrayLike))
        choices = [float, *(choice for choice in choices if choice not in numbers)]
    return [choice for choice in choices if choice is not type(None)]


def _value(kind: Any, name: str, default: object) -> Any | None:
    """Return the field type of a value of one kind; None if there is none."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if kind is float and type(default) is not int:
        return _range(name)
    if kind in (int, float):  # a number whose default is an integer counts something
        return Integer if {"seed", "key"} & {*name.split("_")} else NonNegativeInteger
    if kind in (bool, str) or origin is Literal:
        return kind
    if origin is tuple and inside:
        items = [item if item is ... else _one_of(item, name) for item in inside]
        return None if None in items else tuple[tuple(items)]
    return None


def _one_of(item: Any, name: str) -> Any | None:
    values = [_value(choice, name, None) for choice in _without_numbers(_choices(item))]
    return values[0] if len(values) == 1 else None


# ---------------------------------------------------------------------------------------------------------
# Numbers. Optax's annotations say nothing of their ranges; some names do.


def _range(name: str) -> Any:
    words = name.split("_")
    if name.endswith("learning_rate"):
        return Rate
    if "weight_decay" in name or "eps" in words:
        return NonNegativeNumber
    return Fraction if re.fullmatch(r"b\d|beta\d|betas", words[-1]) else Number


_WITH_SCHEDULE = {
    Rate: ScalarOrSchedule,
    NonNegativeNumber: NonNegativeOrSchedule,
    Fraction: FractionOrSchedule,
    Number: AnyNumberOrSchedule,
}
_REFINED = {
    "warmup_steps": PositiveSteps,
    "decay_offset": NonNegativeSteps,  # of adafactor
    "update_interval": PositiveSteps,  # of sophia, which divides by it, as galore does by the next
    "update_proj_gap": PositiveSteps,
    "print_win_rate_every_n_steps": NonNegativeSteps,
    "variant": Literal["sps", "sps+"],  # of polyak_sgd, which looks at it in `update` only
    "key": Integer,  # from which Optax makes a key
}


# ---------------------------------------------------------------------------------------------------------
# Types of numbers.


def _is_dtype(name: str) -> bool:
    return "dtype" in name.split("_")


def _name_of_dtype(value: object) -> object:
    """Return the name of a dtype of JAX or NumPy."""
    if value is None or isinstance(value, str | int | float | tuple | Mapping):
        return value
    try:
        return np.dtype(cast(Any, value)).name
    except TypeError:
        return value


_DType = Annotated[Literal["bfloat16", "float16", "float32"], pydantic.BeforeValidator(_name_of_dtype)]


# ---------------------------------------------------------------------------------------------------------
# Masks.


class _PatternsOfMask:
    """Takes the arguments of `path_mask`, and keeps a frozen mapping of them."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: pydantic.GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        del source, handler
        return core_schema.no_info_plain_validator_function(_check_mask)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        del schema, handler
        patterns = type_adapter(Patterns).json_schema()
        properties = dict.fromkeys(_KEYS_OF_MASK, patterns)
        return {"type": "object", "properties": properties, "additionalProperties": False, "minProperties": 1}


_Mask = Annotated[Mapping[str, Sequence[str]], _PatternsOfMask()]
_KEYS_OF_MASK = ("include", "exclude")


def _check_mask(value: object) -> FrozenMapping[str, Sequence[str]]:
    form = "must be {include: [patterns]}, {exclude: [patterns]}, or both"
    if isinstance(value, str | tuple):
        patterns = [value] if isinstance(value, str) else list(cast(Sequence[object], value))
        text = f"{form}, got {shorten(value)}: write {{exclude: {shorten(patterns)}}} for all parameters but these"
        raise problem(text)
    if callable(value):
        raise problem(f"{form}, got a function: a recipe is data, which a function is not")
    if not isinstance(value, Mapping) or not value:
        raise problem(f"{form}, got {shorten(value)}")
    given = cast(Mapping[object, object], value)
    for key in given:
        if key not in _KEYS_OF_MASK:
            raise_below(str(key), f"unknown field{suggest(key, _KEYS_OF_MASK)}, accepted: include, exclude", key)
    return FrozenMapping(type_adapter(dict[str, Patterns]).validate_python({**given}, strict=True))


def is_mask(accepted: Any) -> bool:
    """Return whether a field holds the patterns of a mask."""
    return _Mask in _choices(accepted)


# ---------------------------------------------------------------------------------------------------------
# Arguments that take values of several kinds.


class _Either:
    """Takes a value that any of several types accepts, with one error for all of them."""

    def __init__(self, kinds: tuple[Any, ...]) -> None:
        self.kinds = kinds

    def __get_pydantic_core_schema__(
        self, source: Any, handler: pydantic.GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        del source, handler
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        del schema, handler
        return {"anyOf": [type_adapter(kind).json_schema() for kind in self.kinds]}

    def _check(self, value: object) -> Any:
        for kind in self.kinds:
            if explain(kind, value) is None:
                return type_adapter(kind).validate_python(value, strict=True)
        raise problem(f"must be {', or '.join(map(_in_words, self.kinds))}; got {shorten(value)}")


def _in_words(kind: Any) -> str:
    """Say what values a field type accepts."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _in_words(inside[0])
    if origin is Literal:
        return " or ".join(map(repr, inside))
    if origin is tuple and inside[1:] == (...,):
        return f"a list, each item {_in_words(inside[0])}"
    if origin is tuple:
        return f"a list of {len(inside)}: {', '.join(map(_in_words, inside))}"
    return _KINDS[kind]


_KINDS = {float: "a number", int: "an integer", bool: "true or false", str: "text"}
