"""The loss scales of Keras's loss-scale optimizers: the current one, and the experimental one before it."""

from collections.abc import Mapping
from typing import Any

from optax_ext._core.errors import did_you_mean, join_words, shorten
from optax_ext.config import DynamicLossScale, FixedLossScale, LossScale
from optax_ext.interop._report import Report, is_number, join


def read_loss_scale(fields: dict[str, Any], path: str, report: Report) -> LossScale | None:
    """Take the loss scale out of the fields of a LossScaleOptimizer."""
    dynamic = fields.pop("dynamic", True)
    initial_scale, growth_steps = fields.pop("initial_scale", None), fields.pop("dynamic_growth_steps", None)
    if not isinstance(dynamic, bool):
        report.problem(join(path, "dynamic"), f"must be true or false, got {shorten(dynamic)}")
        return None
    if dynamic:
        given = {"initial_scale": initial_scale, "growth_steps": growth_steps}
        given = {key: value for key, value in given.items() if value is not None}
        return report.build(DynamicLossScale, given, path, {"growth_steps": "dynamic_growth_steps"})
    if initial_scale is None:
        report.problem(join(path, "initial_scale"), "is required when dynamic is false")
        return None
    if growth_steps is not None:
        text = f"must be null when dynamic is false, got {shorten(growth_steps)}"
        report.problem(join(path, "dynamic_growth_steps"), text)
    return report.build(FixedLossScale, {"scale": initial_scale}, path, {"scale": "initial_scale"})


def read_old_loss_scale(value: Any, path: str, report: Report) -> LossScale | None:
    """Read what the experimental class took: a number, "dynamic", or a loss scale of TensorFlow 1."""
    if isinstance(value, str) and value == "dynamic":
        return DynamicLossScale()
    if not isinstance(value, Mapping):
        if isinstance(value, str) or value is None:
            report.problem(path, f"must be a number, 'dynamic' or a loss scale, got {shorten(value)}")
            return None
        return report.build(FixedLossScale, {"scale": value}, path, {"scale": ""})
    kinds = {
        "FixedLossScale": {"loss_scale_value": "scale"},
        "DynamicLossScale": {"initial_loss_scale": "initial_scale", "increment_period": "growth_steps"},
    }
    kind, config = value.get("class_name"), value.get("config")
    if not isinstance(kind, str) or kind not in kinds:
        text = f"unknown class {shorten(kind)}{did_you_mean(kind, kinds)}, accepted: {join_words(kinds)}"
        report.problem(join(path, "class_name"), text)
        return None
    if config is not None and not isinstance(config, Mapping):
        report.problem(join(path, "config"), f"must be a mapping, got {shorten(config)}")
        return None
    fields: dict[str, Any] = dict(config or {})
    multiplier = fields.pop("multiplier", 2) if kind == "DynamicLossScale" else 2
    if not is_number(multiplier) or multiplier != 2:
        text = f"must be 2, the only multiplier that a LossScaleOptimizer has, got {shorten(multiplier)}"
        report.problem(join(path, "config.multiplier"), text)
    names = kinds[kind]
    for key in value:
        if key not in ("class_name", "config", "module"):
            report.problem(join(path, str(key)), "unknown field")
    for key in fields:
        if key not in names:
            text = f"unknown field{did_you_mean(key, names)}, accepted: {', '.join(names)}"
            report.problem(join(path, f"config.{key}"), text)
    given = {ours: fields[name] for name, ours in names.items() if name in fields}
    back = {ours: name for name, ours in names.items()}
    if kind == "FixedLossScale":
        return report.build(FixedLossScale, given, join(path, "config"), back)
    return report.build(DynamicLossScale, given, join(path, "config"), back)
