"""Our configs as Keras writes them."""

import dataclasses
from typing import Any

from optax_ext._core.errors import ConfigError, Problem, join_words, shorten
from optax_ext._core.public import public
from optax_ext._core.regexes import is_of_ranks
from optax_ext.config import DynamicLossScale, FixedLossScale, LossScale, OptimizationConfig, Optimizer, to_dict
from optax_ext.interop._keras_classes import class_of
from optax_ext.interop._patterns import PATTERN_FIELDS
from optax_ext.interop._report import Report, join
from optax_ext.schedules import Schedule


@public
def to_keras(config: Schedule | Optimizer | OptimizationConfig) -> dict[str, Any]:
    """Write a schedule, an optimizer or a whole config as tf_keras and Model Garden serialize it.

    Args:
      config: What to write. Patterns are written as they are, even if they match JAX parameter paths only.

    Returns:
      ``{"class_name": …, "config": …}``, of plain data. A ``config`` has all arguments of its class, including those
      that TensorFlow's own ``get_config`` leaves out. [`from_keras`][optax_ext.interop.from_keras] with
      ``translate_patterns=False`` reads it as an equal config; an ``OptimizationConfig`` that has nothing but an
      optimizer comes back as that optimizer.

    Raises:
      ConfigError: If Keras cannot express something: ``before_offset="hold"``, a schedule class of your own, stacked
        axes, a pattern of ranks, a loss scale with ``hysteresis``, other limits or another multiplier, …

    Examples:
      >>> import optax_ext
      >>> from optax_ext import interop
      >>> interop.to_keras(optax_ext.PolynomialWarmup(0.1, warmup_steps=5))
      {'class_name': 'PolynomialWarmUp', 'config': {'after_warmup_lr_sched': 0.1, 'warmup_steps': 5, 'power': 1.0}}
    """
    report = Report()
    if isinstance(config, OptimizationConfig):
        written = _whole(config, report)
    elif isinstance(config, Schedule | Optimizer):
        written = _one(config, "", report)
    else:
        raise ConfigError("config", [Problem("", f"must be a schedule or an optimizer, got {shorten(config)}")])
    report.finish(type(config).__name__)
    return written


def _one(config: Schedule | Optimizer, path: str, report: Report) -> dict[str, Any]:
    known = class_of(config)
    if known is None:
        report.problem(path, f"Keras has no class for {type(config).__name__}")
        return {}
    name, keras_class = known
    names = keras_class.names()
    plain, fields = to_dict(config), {}
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for field, value in plain.items():
        place, own = join(path, field), getattr(config, field, None)
        if field == "type":
            continue
        if field not in names:  # ours alone
            if own != defaults[field]:
                report.problem(place, f"Keras's {name} has no such argument, got {shorten(value)}")
        elif field == "exclude_from_layer_adaptation" and own == ():
            text = (
                "an empty list means the same as None in TensorFlow: give a pattern that matches nothing, such as '$^'"
            )
            report.problem(place, text)
        elif field in PATTERN_FIELDS and (ranks := [pattern for pattern in own or () if is_of_ranks(pattern)]):
            report.problem(place, f"TensorFlow's patterns are of names, not of ranks, got {join_words(ranks)}")
        elif isinstance(own, Schedule):
            fields[names[field]] = _one(own, place, report)
        elif value is not None or field == "warmup_target":
            fields[names[field]] = value
    return {"class_name": name, "config": fields}


def _whole(config: OptimizationConfig, report: Report) -> dict[str, Any]:
    written = _one(config.optimizer, "optimizer", report)
    if config.ema is not None:
        fields = to_dict(config.ema)
        if fields.pop("initial") != "zeros":
            report.problem("ema.initial", f"Keras starts the average at zeros, got {shorten(config.ema.initial)}")
        if fields.pop("debias"):
            report.problem("ema.debias", "Keras keeps the bias of the zeros in the average, got True")
        if isinstance(config.ema.average_decay, Schedule):
            text = f"Keras averages with a constant decay, got {shorten(config.ema.average_decay)}"
            report.problem("ema.average_decay", text)
        written = {"class_name": "ExponentialMovingAverage", "config": {"optimizer": written, **fields}}
    if config.master_weights:
        text = "Keras has no such option: with a mixed-precision policy its parameters are float32 anyway"
        report.problem("master_weights", text)
    if config.loss_scale is not None:
        fields = _loss_scale(config.loss_scale, report)
        written = {"class_name": "LossScaleOptimizer", "config": {"inner_optimizer": written, **fields}}
    return written


def _loss_scale(loss_scale: LossScale, report: Report) -> dict[str, Any]:
    if isinstance(loss_scale, DynamicLossScale):
        carried: set[str] = {"initial_scale", "growth_steps"}
        fields = {"dynamic": True, "initial_scale": loss_scale.initial_scale}
        fields["dynamic_growth_steps"] = loss_scale.growth_steps
    elif isinstance(loss_scale, FixedLossScale):
        carried = {"scale"}
        fields = {"dynamic": False, "initial_scale": loss_scale.scale, "dynamic_growth_steps": None}
    else:
        report.problem("loss_scale", f"Keras has no class for {type(loss_scale).__name__}")
        return {}
    for field in dataclasses.fields(loss_scale):
        value = getattr(loss_scale, field.name)
        if field.name not in carried and value != field.default:
            text = (
                f"a LossScaleOptimizer has no such argument, got {shorten(value)} instead of {shorten(field.default)}"
            )
            report.problem(f"loss_scale.{field.name}", text)
    return fields
