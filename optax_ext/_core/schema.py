"""Schemas: frozen dataclasses whose every construction is validated by pydantic.

Construction in Python and loading from a file run the same checks, and raise the same
[`ConfigError`][optax_ext.config.ConfigError].
"""

import abc
import dataclasses
import functools
import inspect
import operator
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import pydantic
from pydantic_core import ArgsKwargs, InitErrorDetails, PydanticCustomError, core_schema

from optax_ext._core.errors import ConfigError, Problem, join_keys, shorten
from optax_ext._core.lazy import loaded, np
from optax_ext._core.public import public_module
from optax_ext._core.registry import DEFINED_IN, is_dataclass_itself, original
from optax_ext._core.synonyms import suggest

# pydantic's error types in our words; `{x}` is filled from the error's context.
_MESSAGES = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be greater than or equal to {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be less than or equal to {le}",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_unicode": "must be text in valid Unicode",
    "tuple_type": "must be a list",
    "string_too_long": "must have at most {max_length} characters",
    "literal_error": "must be {expected}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
}


def _explain(cls: Any, error: Mapping[str, Any]) -> InitErrorDetails:
    """Put one pydantic error about constructing `cls` into words, with a location made of field names."""
    names = [field.name for field in init_fields(cls)]
    by_position = [field.name for field in init_fields(cls) if not field.kw_only]
    kind, found = error["type"], error["input"]
    loc: list[str | int] = list(error["loc"])
    if loc[-1:] == ["[key]"] and (loc[-2:-1] == [found] or kind == "string_unicode"):
        loc.pop()  # of a mapping's key, which is in the path already
    if kind == "unexpected_positional_argument":
        taken = f"{len(by_position)} arguments by position ({', '.join(by_position)})"
        loc, message = [], f"takes {taken}, got also {shorten(found)}"
    elif kind == "unexpected_keyword_argument" and loc[-1] in getattr(cls, "__refused__", ()):
        message = cls.__refused__[loc[-1]]
    elif kind == "unexpected_keyword_argument":
        message = f"unknown field{suggest(loc[-1], names)}, accepted: {', '.join(names) or 'none'}"
    elif kind in ("missing", "missing_argument"):
        message = "is required"
    elif kind == "multiple_argument_values":
        message = "was given twice"
    else:
        message = _explain_value(error)
        if kind == "problem":
            loc = list(error["ctx"]["at"] or loc)
    if loc and isinstance(loc[0], int):  # given by position
        loc[0] = names[loc[0]]
    return InitErrorDetails(type=problem(message), loc=tuple(loc), input=found)


def _explain_value(error: Mapping[str, Any]) -> str:
    """Put what one pydantic error says of a value into words."""
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "float_type" and isinstance(found, int) and not isinstance(found, bool):
        kind = "finite_number"  # an integer, but too large for any float
    if kind == "problem":  # in words already
        return error["msg"]
    if kind in _MESSAGES:
        shown = {key: f"{value:g}" if isinstance(value, float) else value for key, value in context.items()}
        hint = f": write {_in_a_list(found)}" if kind == "tuple_type" and isinstance(found, str) else ""
        if kind == "float_type" and (callable(found) or (isinstance(found, Mapping) and "type" in found)):
            hint = ": it takes no schedule"
        return f"{_MESSAGES[kind].format(**shown)}, got {shorten(found)}{hint}"
    message = str(context.get("error", error["msg"]))  # a user's own field types and validators
    return message if isinstance(found, ArgsKwargs) else f"{message}, got {shorten(found)}"


def _in_a_list(text: str) -> str:
    """Return text as the only item of a list, as YAML takes it, and without quotes where it needs none."""
    return f"[{text}]" if re.fullmatch(r"[\w./-]{1,40}", text) else f"[{shorten(text)}]"


def explain(accepted: Any, value: object) -> str | None:
    """Return what is wrong with a value, in the words of a field of that type; None if it is accepted."""
    try:
        type_adapter(accepted).validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        return _explain_value(error.errors(include_url=False)[0])
    return None


def problem(message: str, at: str | None = None) -> PydanticCustomError:
    """Make the error that a validator raises to say `message` about its field, or about the field `at`."""
    # pydantic fills `{...}` in a message from a context; our text is finished, and may contain braces.
    return PydanticCustomError("problem", "{text}", {"text": message, "at": [at] if at else None})


def raise_below(key: str, message: str, found: object) -> typing.Never:
    """Raise, inside the validator of a mapping, the error of a validator for the value of one key."""
    details = InitErrorDetails(type=problem(message), loc=(key,), input=found)
    raise pydantic.ValidationError.from_exception_data(key, [details])


def raise_problems(error: ConfigError) -> typing.Never:
    """Raise, inside the validator of a whole, the problems of a config made from it, each at its own place."""
    details = [InitErrorDetails(type=problem(message), loc=(path,), input=None) for path, message in error.problems]
    raise pydantic.ValidationError.from_exception_data(error.subject, details)


def as_config_error(subject: str, error: pydantic.ValidationError) -> ConfigError:
    """Turn the collected pydantic error of a whole config into a `ConfigError`."""
    traced = loaded("jax.core", "Tracer")
    lines = error.errors(include_url=False)
    problems = (
        Problem(join_keys(map(str, line["loc"])), line["msg"] + (_TRACED if isinstance(line["input"], traced) else ""))
        for line in lines
    )
    return ConfigError(subject, problems)


_TRACED = (
    ": a recipe is data, which a traced value is not; make(hyperparameters=[...]) of a recipe keeps numbers in the"
    " state, where they can be changed, as optax.inject_hyperparams does for functions"
)


# ---------------------------------------------------------------------------------------------------------
# Schemas: every construction validates.


def plain_value(value: object) -> object:
    """Convert NumPy and JAX numbers to Python's, and lists and arrays to tuples, recursively."""
    value = plain_numbers(value)
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return tuple(plain_value(item) for item in value)
    return value


def plain_numbers(value: object) -> object:
    """Convert a number or an array of NumPy or JAX to Python numbers, unless it is traced or holds random keys."""
    if type(value) in (bool, int, float, str):
        return value
    is_array = isinstance(value, (*loaded("numpy", "generic", "ndarray"), *loaded("jax", "Array")))
    if not is_array or isinstance(value, loaded("jax.core", "Tracer")):
        return value
    array: Any = value
    if not isinstance(array.dtype, np.dtype):
        return array
    plain: object = array.tolist()
    return float(plain) if isinstance(plain, np.floating) else plain  # Python has no long double, so that stays one


@functools.lru_cache(maxsize=256)  # a notebook defines the same classes repeatedly
def type_adapter(cls: Any) -> pydantic.TypeAdapter[Any]:
    """Return the pydantic validator of a schema, a family or a field type, built once, on first use."""
    return pydantic.TypeAdapter(cls)


def init_fields(cls: type) -> list[dataclasses.Field[Any]]:
    """Return the fields in the order of the arguments: keyword-only fields come last, including those of a base."""
    return sorted((field for field in dataclasses.fields(cls) if field.init), key=lambda field: field.kw_only is True)


def construct(cls: type, args: Sequence[object], kwargs: Mapping[str, object]) -> Any:
    """Construct an instance from arguments in Python or data, validated; raise pydantic's error, in our words."""
    given = ArgsKwargs(tuple(map(plain_value, args)), {str(key): plain_value(value) for key, value in kwargs.items()})
    if issubclass(cls, Schema):
        cls = cls.__variant__(given.args, given.kwargs or {})
    try:
        return type_adapter(cls).validate_python(given)
    except pydantic.ValidationError as error:
        details = [_explain(cls, line) for line in error.errors(include_url=False)]
        raise pydantic.ValidationError.from_exception_data(cls.__name__, details) from None


# What `dataclasses` and pydantic made and nobody calls, with validators in it: `help` would print them by the page.
_MACHINERY = {
    *("__abstractmethods__", "__annotations__", "__dataclass_fields__", "__dataclass_params__", "__init__"),
    *("__init_subclass__", DEFINED_IN),
}


class SchemaType(abc.ABCMeta):
    """The metaclass of schemas: construction validates, whichever dataclass decorator was used."""

    if not typing.TYPE_CHECKING:  # type checkers read the signature that the dataclass decorator made

        def __new__(mcs, name, bases, namespace, /, **kwargs):
            """Let a class of ours say that it lives in its room, and remember the file that defines it."""
            module = namespace.get("__module__", "")
            if public_module(module) != module:
                namespace = {**namespace, "__module__": public_module(module), DEFINED_IN: module}
            return super().__new__(mcs, name, bases, namespace, **kwargs)

        def __call__(cls, *args, **kwargs):
            if inspect.isabstract(cls):
                return super().__call__(*args, **kwargs)  # Python's own error, which names what is missing
            if not is_dataclass_itself(cls) and original(cls) is None:
                raise TypeError(f"{cls.__name__} must be decorated with @dataclasses.dataclass(frozen=True)")
            try:
                return construct(cls, args, kwargs)
            except pydantic.ValidationError as error:
                raise as_config_error(cls.__name__, error) from None

        def __dir__(cls):
            return [name for name in super().__dir__() if name not in _MACHINERY and "_pydantic_" not in name]

        @property
        def __signature__(cls):
            """The signature made from the fields, for `help` and editors, rather than that of `__call__`."""
            parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
            return inspect.Signature([p.replace(annotation=plain_type(p.annotation)) for p in parameters])

        @__signature__.setter
        def __signature__(cls, signature):
            """Ignore the signature that pydantic's decorator assigns: it is made from the same fields."""


def plain_type(annotation: Any) -> Any:
    """Return an annotation without what validates it: ``float | None`` where a field has more to say."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return plain_type(args[0])
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, map(plain_type, args))
    if isinstance(origin, type) and args:
        return types.GenericAlias(origin, tuple(map(plain_type, args)))
    return annotation


@dataclasses.dataclass(frozen=True)
class Schema(metaclass=SchemaType):
    """A frozen dataclass whose every construction is validated, strictly, by pydantic."""

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False
    )
    __refused__: ClassVar[Mapping[str, str]] = {}  # arguments that are known and not accepted, and what to say of each

    @classmethod
    def __variant__(cls, args: Sequence[object], kwargs: Mapping[str, object]) -> "type[Schema]":
        """Return the class to construct from arguments: this one, unless an argument decides which fields there are."""
        del args, kwargs
        return cls

    @classmethod
    def __variants__(cls) -> "Mapping[str, type[Schema]]":
        """Return the classes that `__variant__` chooses from, by the names of their definitions in the JSON Schema."""
        return {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__repr__ = cls.__repr__  # the decorator makes one of its own unless the class itself has one

    def __repr__(self) -> str:
        """Show how to make the instance: the arguments without a default, and those that differ from it."""
        fields = ((field, getattr(self, field.name)) for field in init_fields(type(self)) if field.repr)
        shown = [f"{field.name}={value!r}" for field, value in fields if not _is_default(field, value)]
        return f"{type(self).__qualname__.rpartition('<locals>.')[2]}({', '.join(shown)})"

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type, handler: pydantic.GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        _restore_missing(source)
        schema = handler(source)
        inner: Any = schema
        while inner["type"] != "dataclass":  # inside the wrappers of a user's own model validators
            inner = inner["schema"]
        inner["strict"] = False  # the fields stay strict; the whole is built from arguments, not from an instance
        return schema


def _is_default(field: dataclasses.Field[Any], value: object) -> bool:
    factory = field.default_factory
    default = field.default if factory is dataclasses.MISSING else factory()
    return default is not dataclasses.MISSING and bool(value == default)


def _restore_missing(cls: type) -> None:
    """Restore `dataclasses.MISSING` in fields where pickling the class by value left a copy of it."""
    for field in dataclasses.fields(cls):
        for attribute in ("default", "default_factory", "kw_only"):
            if isinstance(getattr(field, attribute), type(dataclasses.MISSING)):
                setattr(field, attribute, dataclasses.MISSING)
