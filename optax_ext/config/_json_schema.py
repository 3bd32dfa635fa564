"""The JSON Schema of configs, for editors and other validators."""

import dataclasses
import inspect
import re
from collections.abc import Iterable
from typing import Any

from optax_ext._core.public import public
from optax_ext._core.schema import Schema, type_adapter
from optax_ext._core.tagged import Tagged, members
from optax_ext.config._group import Group
from optax_ext.config._layer_decay import LayerDecay
from optax_ext.config._loss_scale import LossScale
from optax_ext.config._params_ema import ParamsEma
from optax_ext.config._recipe import OptimizationConfig
from optax_ext.config._run import Run
from optax_ext.config._update_rule import UpdateRule
from optax_ext.schedules import RatePerBatch, Schedule


@public
def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of everything that [`from_dict`][optax_ext.config.from_dict] reads.

    It contains all schedules defined so far, including your own. An editor that is given this schema completes and
    checks recipes as they are typed.

    Returns:
      The schema as plain data, in draft 2020-12.

    Examples:
      >>> from optax_ext import config
      >>> config.json_schema()["$defs"]["lars"]["properties"]["momentum"]["maximum"]
      1
    """
    families: list[type[Tagged]] = [UpdateRule, LossScale, Schedule]
    # Members are named by their tags, which are unique, and the rest by their class names.
    parts = (OptimizationConfig, ParamsEma, Group, LayerDecay, Run, RatePerBatch)
    definitions = {part.__name__: _definition(part) for part in parts}
    for tag, member in ((tag, member) for family in families for tag, member in members(family).items()):
        variants = member.__variants__()
        definitions |= {name: _definition(variant) for name, variant in variants.items()}
        definitions[tag] = _any_of(variants) if variants else _definition(member)
    for family in families:
        definitions[family.__name__] = _any_of(members(family))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "optax_ext config",
        **_any_of([schema.__name__ for schema in (OptimizationConfig, *families)], in_order=True),
        "$defs": dict(sorted(definitions.items())),
    }


def _any_of(names: Iterable[str], *, in_order: bool = False) -> dict[str, Any]:
    names = names if in_order else sorted(names)
    return {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in names]}


def _definition(schema: type[Schema]) -> dict[str, Any]:
    definition = _refer_to_families(type_adapter(schema).json_schema())
    doc = inspect.getdoc(schema) or ""
    properties = definition.get("properties", {})
    for field in dataclasses.fields(schema):
        described = re.search(rf"^  {field.name}: (.*(?:\n    .*)*)", doc, re.MULTILINE)
        if field.name in properties and described:
            properties[field.name]["description"] = _plain_words(described[1])
            properties[field.name].pop("title", None)  # it only repeats the name
    if issubclass(schema, Tagged):
        properties = {"type": {"const": schema.type}, **properties}
        definition["required"] = ["type", *definition.get("required", [])]
    return {**definition, "properties": properties, "description": _plain_words(doc.partition("\n")[0])}


def _plain_words(text: str) -> str:
    """Return the text of a docstring without its markup, which an editor would show verbatim."""
    without_links = re.sub(r"\[`?([^`\]]*)`?\]\[[^\]]*\]", r"\1", text)
    return " ".join(without_links.replace("``", "").replace("$", "").split())


def _refer_to_families(schema: Any) -> Any:
    """Replace the placeholders for families in the schemas of fields with references."""
    if isinstance(schema, dict):
        if "x-family" in schema:
            return {"$ref": f"#/$defs/{schema['x-family']}"} | {k: schema[k] for k in schema if k != "x-family"}
        return {key: _refer_to_families(value) for key, value in schema.items()}
    return [_refer_to_families(item) for item in schema] if isinstance(schema, list) else schema
