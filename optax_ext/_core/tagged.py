"""Schemas that data selects by their ``type``: families, such as schedules and optimizers, and their members.

The registry of a family is open, so that a class that a user defines is a member like ours.
"""

import builtins
import dataclasses
import functools
import inspect
import re
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import pydantic
from pydantic_core import core_schema

from optax_ext._core.errors import did_you_mean, join_words, shorten
from optax_ext._core.registry import complete_classes, full_names, identity, note, original
from optax_ext._core.schema import Schema, SchemaType, construct, init_fields, problem, raise_below


class TaggedType(SchemaType):
    """The metaclass of tagged schemas: each class that it makes is a candidate for its tag."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, **kwargs: Any):  # noqa: N805 (of a metaclass)
        super().__init__(name, bases, namespace, **kwargs)
        if "__variant_of__" in namespace:
            return  # the class that it is a variant of has the tag
        if "__qualname__" in namespace:  # as in a class statement; others may have no tag or name of their own yet
            tag, own = vars(cls).get("type"), identity(cls)
            taken = [known for known in _claims(Tagged).get(tag, ()) if identity(known) != own] if tag else []
            if taken:
                raise TypeError(
                    f"the type tag {tag!r} of {cls.__qualname__} is taken by {full_names(taken)}:"
                    " give the class another in an attribute `type`"
                )
        note(cls, namespace)


class Tagged(Schema, metaclass=TaggedType):
    """A schema that data selects by its ``type``: a member of the family that its abstract base defines.

    The tag is the class attribute ``type``, or else the class name in snake case. A concrete subclass is a
    member as soon as it is decorated; defining it again, as a notebook does, replaces it.
    """

    type: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        vars(cls).get("__annotations__", {}).pop("type", None)  # written as a field, it is still the tag
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
        # The members of a family are not known until the whole schema is built.
        return {"x-family": cls.__name__} if inspect.isabstract(cls) else handler(schema)


_T = TypeVar("_T", bound=Tagged)


def _claims(family: type[_T]) -> dict[str, list[type[_T]]]:
    """Return the classes of a family that claim each tag: one, unless two classes that count claim the same."""
    claims: dict[str, list[type[_T]]] = {}
    for cls in complete_classes():
        if issubclass(cls, family):
            claims.setdefault(cls.type, []).append(cls)
    return claims


def members(family: type[_T]) -> dict[str, type[_T]]:
    """Return the concrete classes of a family by their tags; the older class if two claim the same tag."""
    return {tag: claiming[0] for tag, claiming in _claims(family).items()}


def from_tagged(family: type[_T], value: object) -> _T:
    """Return `value` as a member of a family, built from it if it is a mapping with a ``type``; for validators."""
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
        if isinstance(tag, str) and tag not in members(Tagged):
            text += "; if it is yours, import the module that defines it first, with --import MODULE for optax-ext"
        raise_below("type", text, value)
    if len(known[tag]) > 1:
        names = full_names(known[tag])
        raise_below("type", f"{tag!r} is the tag of {names}: give one another in an attribute `type`", value)
    return construct(known[tag][0], (), {key: item for key, item in value.items() if key != "type"})


def refuse_class(expected: type, value: object) -> None:
    """Raise, inside a validator, if `value` is a class where an instance of it is expected."""
    if isinstance(value, type) and issubclass(value, expected):
        names = [field.name for field in init_fields(value)] if dataclasses.is_dataclass(value) else []
        raise problem(f"must be constructed, as {value.__name__}({', '.join(names)}); got the class itself")


class Nested:
    """Marks a field whose type is a schema without a tag, so that data may give a mapping for it."""

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
