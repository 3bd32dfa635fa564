"""Schemas: frozen dataclasses whose every construction is validated by pydantic.

Construction in Python and loading from a file run the same checks, and raise the same
[`ConfigError`][optax_ext.config.ConfigError].
"""

import abc
import dataclasses
import functools
import inspect
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pydantic
from pydantic_core import ArgsKwargs, InitErrorDetails, PydanticCustomError, core_schema

from optax_ext._core.errors import ConfigError, Problem, did_you_mean, join_keys, shorten
from optax_ext._core.lazy import loaded, np
from optax_ext._core.registry import is_dataclass_itself, original

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


def _explain(cls: type, error: Mapping[str, Any]) -> InitErrorDetails:
    """Put one pydantic error about constructing `cls` into words, with a location made of field names."""
    names = [field.name for field in init_fields(cls)]
    by_position = [field.name for field in init_fields(cls) if not field.kw_only]
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    loc: list[str | int] = list(error["loc"])
    if kind == "float_type" and isinstance(found, int) and not isinstance(found, bool):
        kind = "finite_number"  # an integer, but too large for any float
    if kind == "unexpected_positional_argument":
        taken = f"{len(by_position)} arguments by position ({', '.join(by_position)})"
        loc, message = [], f"takes {taken}, got also {shorten(found)}"
    elif kind == "unexpected_keyword_argument":
        message = f"unknown field{did_you_mean(loc[-1], names)}, accepted: {', '.join(names) or 'none'}"
    elif kind in ("missing", "missing_argument"):
        message = "is required"
    elif kind == "multiple_argument_values":
        message = "was given twice"
    elif kind in _MESSAGES:
        shown = {key: f"{value:g}" if isinstance(value, float) else value for key, value in context.items()}
        message = f"{_MESSAGES[kind].format(**shown)}, got {shorten(found)}"
    elif kind == "problem":  # already in our words
        message, loc = error["msg"], list(context.get("at") or loc)
    else:  # a user's own field types and validators
        message = str(context.get("error", error["msg"]))
        if not isinstance(found, ArgsKwargs):  # about one field, not the whole
            message += f", got {shorten(found)}"
    if loc and isinstance(loc[0], int):  # given by position
        loc[0] = names[loc[0]]
    return InitErrorDetails(type=problem(message), loc=tuple(loc), input=found)


def problem(message: str, at: str | None = None) -> PydanticCustomError:
    """Make the error that a validator raises to say `message` about its field, or about the field `at`."""
    # pydantic fills `{...}` in a message from a context; our text is finished, and may contain braces.
    return PydanticCustomError("problem", "{text}", {"text": message, "at": [at] if at else None})


def raise_below(key: str, message: str, found: object) -> typing.Never:
    """Raise, inside the validator of a mapping, the error of a validator for the value of one key."""
    details = InitErrorDetails(type=problem(message), loc=(key,), input=found)
    raise pydantic.ValidationError.from_exception_data(key, [details])


def as_config_error(subject: str, error: pydantic.ValidationError) -> ConfigError:
    """Turn the collected pydantic error of a whole config into a `ConfigError`."""
    lines = error.errors(include_url=False)
    return ConfigError(subject, (Problem(join_keys(map(str, line["loc"])), line["msg"]) for line in lines))


# ---------------------------------------------------------------------------------------------------------
# Schemas: every construction validates.


def _plain(value: Any) -> Any:
    """Return NumPy and JAX numbers as Python's, and lists and arrays as tuples, all the way down."""
    if type(value) in (bool, int, float, str):
        return value
    is_array = isinstance(value, (*loaded("numpy", "generic", "ndarray"), *loaded("jax", "Array")))
    if is_array and not isinstance(value, loaded("jax.core", "Tracer")):
        is_plain = isinstance(value.dtype, np.dtype)  # random keys are not
        return _plain(value.tolist()) if is_plain else value
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return tuple(_plain(item) for item in value)
    return value


@functools.lru_cache(maxsize=256)  # a notebook defines the same classes repeatedly
def type_adapter(cls: type) -> pydantic.TypeAdapter[Any]:
    """Return the pydantic validator of a schema or of a family, built once, on first use."""
    return pydantic.TypeAdapter(cls)


def init_fields(cls: type) -> list[dataclasses.Field[Any]]:
    """Return the fields in the order of the arguments: keyword-only fields come last, including those of a base."""
    return sorted((field for field in dataclasses.fields(cls) if field.init), key=lambda field: field.kw_only is True)


def construct(cls: type, args: Sequence[object], kwargs: Mapping[str, object]) -> Any:
    """Construct an instance from arguments in Python or data, validated; raise pydantic's error, in our words."""
    given = ArgsKwargs(tuple(map(_plain, args)), {str(key): _plain(value) for key, value in kwargs.items()})
    try:
        return type_adapter(cls).validate_python(given)
    except pydantic.ValidationError as error:
        details = [_explain(cls, line) for line in error.errors(include_url=False)]
        raise pydantic.ValidationError.from_exception_data(cls.__name__, details) from None


class SchemaType(abc.ABCMeta):
    """The metaclass of schemas: construction validates, whichever dataclass decorator was used."""

    if not typing.TYPE_CHECKING:  # type checkers read the signature that the dataclass decorator made

        def __call__(cls, *args, **kwargs):
            if inspect.isabstract(cls):
                return super().__call__(*args, **kwargs)  # Python's own error, which names what is missing
            if not is_dataclass_itself(cls) and original(cls) is None:
                raise TypeError(f"{cls.__name__} must be decorated with @dataclasses.dataclass(frozen=True)")
            try:
                return construct(cls, args, kwargs)
            except pydantic.ValidationError as error:
                raise as_config_error(cls.__name__, error) from None

        @property
        def __signature__(cls):
            """The signature made from the fields, for `help` and editors, rather than that of `__call__`."""
            parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
            plain = [p.replace(annotation=getattr(p.annotation, "__origin__", p.annotation)) for p in parameters]
            return inspect.Signature(plain)

        @__signature__.setter
        def __signature__(cls, signature):
            """Ignore the signature that pydantic's decorator assigns: it is made from the same fields."""


@dataclasses.dataclass(frozen=True)
class Schema(metaclass=SchemaType):
    """A frozen dataclass whose every construction is validated, strictly, by pydantic."""

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False
    )

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


def _restore_missing(cls: type) -> None:
    """Restore `dataclasses.MISSING` in fields where pickling the class by value left a copy of it."""
    for field in dataclasses.fields(cls):
        for attribute in ("default", "default_factory", "kw_only"):
            if isinstance(getattr(field, attribute), type(dataclasses.MISSING)):
                setattr(field, attribute, dataclasses.MISSING)
