"""The floor that schedules and configs stand on: validated frozen dataclasses, tags and errors.

A *schema* is a frozen dataclass whose every construction is validated by pydantic, from Python as from a
file, so that both run the same checks and raise the same [`ConfigError`][optax_ext.config.ConfigError].
A *tagged* schema belongs to a family (schedules, optimizers, loss scales) and is chosen in data by its
``type``; the registry of a family is open, so that a class a user defines is a member like ours.
"""

import abc
import builtins
import dataclasses
import difflib
import functools
import inspect
import re
import reprlib
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

import jax
import numpy as np
import pydantic
from jax.core import Tracer
from pydantic_core import ArgsKwargs, InitErrorDetails, PydanticCustomError, core_schema

from optax_ext._registry import complete_classes, full_names, identity, is_dataclass_itself, note, original

# ---------------------------------------------------------------------------------------------------------
# Errors: the data first, the text from it.


class Problem(NamedTuple):
    """One thing wrong with a config: the dotted ``path`` to it, and a ``message`` that says what is accepted."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(ValueError):
    """Everything wrong with one config, at once.

    Args:
      subject: What was read: a class name, a file name.
      problems: At least one [`Problem`][].

    Example:
      >>> import optax_ext
      >>> try:
      ...     optax_ext.CosineDecay(initial_learning_rate=-1.0, decay_steps=0)
      ... except optax_ext.config.ConfigError as error:
      ...     for problem in error.problems:
      ...         print(problem)
      initial_learning_rate: must be greater than or equal to 0, got -1.0
      decay_steps: must be greater than 0, got 0
    """

    def __init__(self, subject: str, problems: Iterable[Problem]):
        self.subject = subject
        self.problems = tuple(problems)
        super().__init__(subject, self.problems)  # what pickle rebuilds the error from

    def __str__(self) -> str:
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = [f"{self.subject}: {count}", *map(str, self.problems[:_MOST_LINES])]
        if len(self.problems) > _MOST_LINES:
            lines.append(f"and {len(self.problems) - _MOST_LINES} more")
        return "\n  ".join(lines)


_MOST_LINES = 100
for _public in (Problem, ConfigError):
    _public.__module__ = "optax_ext.config"  # where a reader of a traceback finds it


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest known word, or nothing when none is close."""
    by_lower_case = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(word).lower(), by_lower_case, n=1)
    return f" (did you mean {by_lower_case[close[0]]!r}?)" if close else ""


def join_words(words: Iterable[str]) -> str:
    """Return the words in a readable list, quoted."""
    return ", ".join(repr(word) for word in words)


def join_keys(keys: Iterable[str]) -> str:
    """Return the keys to a place in a config as the path to it."""
    # A key of control characters is a wrong key, and must not break the lines of an error's text.
    return ".".join(key if key.isprintable() else repr(key) for key in keys)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def shorten(value: object) -> str:
    """Return a value as an error shows it: in Python's words, on one line, and not too long."""
    try:
        return _short.repr(value)
    except ValueError:  # Python refuses to write out an integer of thousands of digits
        return f"{type(value).__name__} too long to show"


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
    """Put one pydantic error about a construction of `cls` into words, at a location of field names."""
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
    elif kind == "problem":  # in words already
        message, loc = error["msg"], list(context.get("at") or loc)
    else:  # a user's own field types and validators
        message = str(context.get("error", error["msg"]))
        if not isinstance(found, ArgsKwargs):  # of one field, not of the whole
            message += f", got {shorten(found)}"
    if loc and isinstance(loc[0], int):  # given by position
        loc[0] = names[loc[0]]
    return InitErrorDetails(type=problem(message), loc=tuple(loc), input=found)


def problem(message: str, at: str | None = None) -> PydanticCustomError:
    """Make the error that a validator raises to say `message` about its field, or about the field `at`."""
    # pydantic fills `{...}` in a message from a context; ours is finished text, braces and all.
    return PydanticCustomError("problem", "{text}", {"text": message, "at": [at] if at else None})


def raise_below(key: str, message: str, found: object) -> typing.Never:
    """Raise, inside the validator of a mapping, what a validator would say about the value of one key."""
    details = InitErrorDetails(type=problem(message), loc=(key,), input=found)
    raise pydantic.ValidationError.from_exception_data(key, [details])


def as_config_error(subject: str, error: pydantic.ValidationError) -> ConfigError:
    """Turn the collected pydantic error of a whole config into ours."""
    lines = error.errors(include_url=False)
    return ConfigError(subject, (Problem(join_keys(map(str, line["loc"])), line["msg"]) for line in lines))


# ---------------------------------------------------------------------------------------------------------
# Schemas: every construction validates.


def _plain(value: object) -> object:
    """Return NumPy and JAX numbers as Python's, and lists and arrays as tuples, all the way down."""
    if isinstance(value, np.generic | np.ndarray | jax.Array) and not isinstance(value, Tracer):
        is_plain = isinstance(value.dtype, np.dtype)  # random keys are not
        return _plain(value.tolist()) if is_plain else value
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return tuple(_plain(item) for item in value)
    return value


@functools.lru_cache(maxsize=256)  # a notebook defines the same classes again and again
def type_adapter(cls: type) -> pydantic.TypeAdapter[Any]:
    """Return the pydantic validator of a schema or of a family, built once and when first needed."""
    return pydantic.TypeAdapter(cls)


def init_fields(cls: type) -> list[dataclasses.Field[Any]]:
    """Return the fields in the order of the arguments: those by keyword alone come last, a base's too."""
    return sorted((field for field in dataclasses.fields(cls) if field.init), key=lambda field: field.kw_only is True)


def construct(cls: type, args: Sequence[object], kwargs: Mapping[str, object]) -> Any:
    """Validate arguments, from Python or from data, into an instance; raise pydantic's error, in our words."""
    given = ArgsKwargs(tuple(map(_plain, args)), {str(key): _plain(value) for key, value in kwargs.items()})
    try:
        return type_adapter(cls).validate_python(given)
    except pydantic.ValidationError as error:
        details = [_explain(cls, line) for line in error.errors(include_url=False)]
        raise pydantic.ValidationError.from_exception_data(cls.__name__, details) from None


class _SchemaType(abc.ABCMeta):
    """The type of schemas: calling one validates, whichever dataclass decorator made it."""

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
            """The arguments of the fields, for `help` and editors, rather than those of the method above."""
            parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
            plain = [p.replace(annotation=getattr(p.annotation, "__origin__", p.annotation)) for p in parameters]
            return inspect.Signature(plain)

        @__signature__.setter
        def __signature__(cls, signature):
            """Leave what the decorator of pydantic would put here: it is the same, of the same fields."""


@dataclasses.dataclass(frozen=True)
class Schema(metaclass=_SchemaType):
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
        while inner["type"] != "dataclass":  # below what a user's own model validators wrap around it
            inner = inner["schema"]
        inner["strict"] = False  # the fields stay strict; the whole is built from arguments, not from an instance
        return schema


def _restore_missing(cls: type) -> None:
    """Put `dataclasses.MISSING` back into fields that a pickle of the class by value brought a copy of it."""
    for field in dataclasses.fields(cls):
        for attribute in ("default", "default_factory", "kw_only"):
            if isinstance(getattr(field, attribute), type(dataclasses.MISSING)):
                setattr(field, attribute, dataclasses.MISSING)


class _TaggedType(_SchemaType):
    """The type of tagged schemas: each class it makes is a candidate for its tag."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, **kwargs: Any):
        super().__init__(name, bases, namespace, **kwargs)
        if "__qualname__" in namespace:  # as in a class statement; others may have no tag or name of their own yet
            tag, own = vars(cls).get("type"), identity(cls)
            taken = [known for known in _claims(Tagged).get(tag, ()) if identity(known) != own] if tag else []
            if taken:
                raise TypeError(
                    f"the type tag {tag!r} of {cls.__qualname__} is taken by {full_names(taken)}:"
                    " give the class another in an attribute `type`"
                )
        note(cls, namespace)


class Tagged(Schema, metaclass=_TaggedType):
    """A schema that data chooses by its ``type``: a member of the family that its abstract base is.

    The tag is the class's name in snake case, or what the class says in an attribute ``type``. A concrete
    subclass is a member as soon as it is decorated; defining it anew, as a notebook does, replaces it.
    """

    type: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        vars(cls).get("__annotations__", {}).pop("type", None)  # written as a field, it is the tag all the same
        if "type" not in cls.__dict__ and original(cls) is None:
            cls.type = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        if not isinstance(cls.type, str) or not cls.type:
            raise TypeError(f"the type tag of {cls.__qualname__}, its attribute `type`, must be text, got {cls.type!r}")

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: builtins.type, handler: pydantic.GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        if inspect.isabstract(source):
            return core_schema.no_info_plain_validator_function(functools.partial(from_tagged, source))
        return super().__get_pydantic_core_schema__(source, handler)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        # The members of a family are not known until the whole schema is asked for.
        return {"x-family": cls.__name__} if inspect.isabstract(cls) else handler(schema)


_T = TypeVar("_T", bound=Tagged)


def _claims(family: type[_T]) -> dict[str, list[type[_T]]]:
    """Return the classes of a family that claim each tag: one, unless two real ones do."""
    claims: dict[str, list[type[_T]]] = {}
    for cls in complete_classes():
        if issubclass(cls, family):
            claims.setdefault(cls.type, []).append(cls)
    return claims


def members(family: type[_T]) -> dict[str, type[_T]]:
    """Return the concrete classes of a family, by their tags; of two that claim one tag, the older."""
    return {tag: claiming[0] for tag, claiming in _claims(family).items()}


def from_tagged(family: type[_T], value: object) -> _T:
    """Return `value` as a member of a family, built where it is a mapping with a ``type``; for validators."""
    if isinstance(value, family):
        return value
    refuse_class(family, value)
    known = _claims(family)
    if not isinstance(value, Mapping):
        raise problem(f"must be a mapping with a 'type', one of {join_words(known)}; got {shorten(value)}")
    if "type" not in value:
        raise_below("type", f"is required: one of {join_words(known)}", value)
    tag = value["type"]
    if not isinstance(tag, str) or tag not in known:
        text = f"unknown type {shorten(tag)}{did_you_mean(tag, known)}, accepted: {join_words(known)}"
        raise_below("type", text, value)
    if len(known[tag]) > 1:
        names = full_names(known[tag])
        raise_below("type", f"{tag!r} is the tag of {names}: give one another in an attribute `type`", value)
    return construct(known[tag][0], (), {key: item for key, item in value.items() if key != "type"})


def refuse_class(expected: type, value: object) -> None:
    """Raise, inside a validator, where `value` is a class of what is expected, rather than an instance."""
    if isinstance(value, type) and issubclass(value, expected):
        names = [field.name for field in init_fields(value)] if dataclasses.is_dataclass(value) else []
        raise problem(f"must be constructed, as {value.__name__}({', '.join(names)}); got the class itself")


class Nested:
    """Marks a field whose type is a schema without a tag, so that data may have a mapping in its place."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: pydantic.GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        def build(value: object) -> Any:
            if isinstance(value, source):
                return value
            refuse_class(source, value)
            if not isinstance(value, Mapping):
                names = join_words(field.name for field in init_fields(source))
                raise problem(f"must be a mapping of {names}; got {shorten(value)}")
            return construct(source, (), value)

        reference = {"x-family": source.__name__}
        plain = core_schema.no_info_plain_validator_function(build)
        plain["metadata"] = {"pydantic_js_functions": [lambda schema, handler: reference]}
        return plain


# ---------------------------------------------------------------------------------------------------------
# Field types. What reaches the device is float32 and int32, so that is what they hold.

FLOAT32_MAX = float(np.finfo(np.float32).max)
FLOAT32_TINY = float(np.finfo(np.float32).tiny)  # below it numbers are subnormal, and flushed to zero
_INT32_MAX = 2**31 - 1


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
Integer = Annotated[int, pydantic.Field(ge=-_INT32_MAX, le=_INT32_MAX), _Integral]
NonNegativeInteger = Annotated[int, pydantic.Field(ge=0, le=_INT32_MAX), _Integral]
PositiveInteger = Annotated[int, pydantic.Field(gt=0, le=_INT32_MAX), _Integral]
