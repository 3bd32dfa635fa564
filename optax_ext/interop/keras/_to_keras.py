"""Our configs as Keras writes them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

from optax_ext._core.errors import ConfigError, Problem, join_words, shorten
from optax_ext._core.public import public
from optax_ext._core.regexes import is_of_ranks
from optax_ext._core.relative import resolved
from optax_ext.config import (
    Adam,
    AdamW,
    DynamicLossScale,
    FixedLossScale,
    LossScale,
    OptimizationConfig,
    Optimizer,
    ParamsEma,
    UpdateRule,
    resolve,
    to_dict,
)
from optax_ext.interop._betas import rounding_is_seen
from optax_ext.interop._keras_classes import NEWER_KERAS, OLDER_KERAS, OPTIMIZERS, SCHEDULES, KerasClass
from optax_ext.interop._patterns import PATTERN_FIELDS
from optax_ext.interop._report import Report, join
from optax_ext.interop.keras._wrapping import DEFAULTS, OF_KERAS_3
from optax_ext.schedules import Schedule

Generation: TypeAlias = Literal["older", "newer"]
_Classes: TypeAlias = Sequence[tuple[str, KerasClass]]

_OLDER: _Classes = [
    *OLDER_KERAS.items(),
    *OPTIMIZERS["model_garden"].items(),
    *((name, known) for name, known in OPTIMIZERS["tensorflow_addons"].items() if name.endswith("W")),
]
_NEWER: _Classes = list(NEWER_KERAS.items())
# What an optimizer of the newer generation has before its own arguments, in its order.
_BASE = ("learning_rate", "weight_decay", "clipnorm", "global_clipnorm", "clipvalue")


@public
def to_keras(
    config: Schedule | Optimizer | OptimizationConfig, *, generation: Generation | None = None
) -> dict[str, Any]:
    """Write a schedule, an optimizer or a whole config as Keras serializes it, its own classes and those of others.

    Args:
      config: What to write. Patterns are written as they are, even if they match JAX parameter paths only.
      generation: ``"newer"`` for the optimizers of Keras 3, which tf_keras has had since 2.11; ``"older"`` for the
        legacy optimizers before them, and for those of Model Garden and tensorflow_addons. None for the older one if it
        can express the config, else the newer one; an ``AdamW`` that clips nothing is that of the newer one.

    Returns:
      ``{"class_name": …, "config": …}``, of plain data. A ``config`` has all arguments of its class, including those
      that TensorFlow's own ``get_config`` leaves out, but no ``name``. [`from_keras`][optax_ext.interop.from_keras]
      with ``translate_patterns=False`` reads it as an equal config; an ``OptimizationConfig`` that has nothing but an
      optimizer comes back as that optimizer.

    Raises:
      ConfigError: If Keras cannot express something: ``before_offset="hold"``, a schedule class of your own, stacked
        axes, a pattern of ranks, a loss scale with ``hysteresis``, other limits or another multiplier, …
      ValueError: If ``generation`` is something else.

    Examples:
      >>> import optax_ext
      >>> from optax_ext import config, interop
      >>> interop.to_keras(optax_ext.PolynomialWarmup(0.1, warmup_steps=5))
      {'class_name': 'PolynomialWarmUp', 'config': {'after_warmup_lr_sched': 0.1, 'warmup_steps': 5, 'power': 1.0}}
      >>> lion = interop.to_keras(config.Lion(1e-4, weight_decay_rate=0.1))
      >>> lion["module"], lion["class_name"], lion["config"]["weight_decay"]
      ('keras.optimizers', 'Lion', 0.1)
    """
    if generation not in (None, *get_args(Generation)):
        raise ValueError(f"generation must be 'older', 'newer' or None, got {shorten(generation)}")
    if not isinstance(config, Schedule | UpdateRule | OptimizationConfig):
        raise ConfigError("config", [Problem("", f"must be a schedule or an optimizer, got {shorten(config)}")])
    config = resolve(config)  # Keras knows steps only
    optimizer = config.optimizer if isinstance(config, OptimizationConfig) else config
    tried: list[Generation] = ["newer", "older"] if isinstance(optimizer, AdamW) else ["older", "newer"]
    writers: dict[Generation, _Writer] = {}
    if generation is not None:
        tried = [generation]
    for one in tried:
        writers[one] = _Writer(one, Report())
        written = writers[one].write(config)
        if not writers[one].report.problems:
            return written
    # The problems of the older generation, if the newer one has as many: most recipes are of that one.
    best = min(
        writers.values(), key=lambda one: (one.has_no_class, len(one.report.problems), one.generation == "newer")
    )
    raise ConfigError(type(config).__name__, best.report.problems)


@dataclasses.dataclass
class _Writer:
    """Writes configs in the words of one generation, and adds to a report what it cannot express."""

    generation: Generation
    report: Report
    has_no_class: bool = False  # for the optimizer or one of its schedules

    def write(self, config: Schedule | UpdateRule | OptimizationConfig) -> dict[str, Any]:
        if isinstance(config, OptimizationConfig):
            return self._whole(config)
        return self._one(config, "")

    def _one(self, config: Schedule | UpdateRule, path: str) -> dict[str, Any]:
        """Write a schedule or an optimizer as the class that can express it."""
        optimizers = _NEWER if self.generation == "newer" else _OLDER
        classes = SCHEDULES.items() if isinstance(config, Schedule) else optimizers
        tried: list[tuple[Report, dict[str, Any]]] = []
        for name, known in classes:
            if known.schema is type(config):
                report = Report()
                tried.append((report, self._as_class(config, name, known, path, report)))
        if not tried:
            self.has_no_class = True
            self.report.problem(path, f"Keras has no class for {type(config).__name__}")
            return {}
        report, written = min(tried, key=lambda one: len(one[0].problems))  # the first of the best
        for problem in report.problems:
            self.report.problem(*problem)
        return written

    def _as_class(
        self, config: Schedule | UpdateRule, name: str, known: KerasClass, path: str, report: Report
    ) -> dict[str, Any]:
        names, fields = known.names(), dict[str, Any]()
        defaults = {field.name: known.defaults.get(field.name, field.default) for field in dataclasses.fields(config)}
        if isinstance(config, Adam | AdamW) and self.generation == "newer":
            defaults["round_betas"] = not rounding_is_seen(config.beta_1, config.beta_2)
        for field, value in to_dict(config).items():
            place, own = join(path, field), getattr(config, field, None)
            if field == "type":
                continue
            if field not in names:  # ours alone, or something that the class does not vary
                if own != defaults[field]:
                    report.problem(place, f"Keras's {name} has no such argument, got {shorten(value)}")
            elif field == "exclude_from_layer_adaptation" and own == ():
                text = (
                    "an empty list means the same as None in TensorFlow: give a pattern that matches nothing, such as"
                )
                report.problem(place, f"{text} '$^'")
            elif field in PATTERN_FIELDS and (ranks := [pattern for pattern in own or () if is_of_ranks(pattern)]):
                report.problem(place, f"TensorFlow's patterns are of names, not of ranks, got {join_words(ranks)}")
            elif isinstance(own, Schedule) and field not in known.scheduled:
                report.problem(place, f"Keras's {name} takes no schedule for it, got {shorten(own)}")
            elif isinstance(own, Schedule):
                fields[names[field]] = self._one(own, place)
            elif value is not None or defaults[field] is not None or field == "warmup_target":
                fields[names[field]] = value
        if self.generation == "older":
            return {"class_name": name, "config": fields}
        if isinstance(config, Schedule):
            return _envelope("keras.optimizers.schedules", name, fields)
        if fields.get("weight_decay") == 0 and "weight_decay_rate" not in known.defaults:
            del fields["weight_decay"]  # it is None in Keras, unless the class has a default
        base = {key: fields.pop(key, None) for key in _BASE}
        return _envelope("keras.optimizers", name, base | DEFAULTS | fields)

    def _whole(self, config: OptimizationConfig) -> dict[str, Any]:
        written = self._one(config.optimizer, "optimizer")
        if config.master_weights:
            text = "Keras has no such option: with a mixed-precision policy its parameters are float32 anyway"
            self.report.problem("master_weights", text)
        if self.generation == "older":
            return self._around_older(config, written)
        if not written:
            return written
        return self._around_newer(config, written)

    def _around_older(self, config: OptimizationConfig, written: dict[str, Any]) -> dict[str, Any]:
        if config.accumulate_steps > 1:
            text = f"Keras's older optimizers do not accumulate gradients, got {config.accumulate_steps}"
            self.report.problem("accumulate_steps", text)
        if config.ema is not None:
            fields = to_dict(config.ema)
            if fields.pop("initial") != "zeros":
                text = f"Keras starts the average at zeros, got {shorten(config.ema.initial)}"
                self.report.problem("ema.initial", text)
            if fields.pop("debias"):
                self.report.problem("ema.debias", "Keras keeps the bias of the zeros in the average, got True")
            if isinstance(config.ema.average_decay, Schedule):
                text = f"Keras averages with a constant decay, got {shorten(config.ema.average_decay)}"
                self.report.problem("ema.average_decay", text)
            written = {"class_name": "ExponentialMovingAverage", "config": {"optimizer": written, **fields}}
        if config.loss_scale is None:
            return written
        fields = _loss_scale(config.loss_scale, self.report)
        return {"class_name": "LossScaleOptimizer", "config": {"inner_optimizer": written, **fields}}

    def _around_newer(self, config: OptimizationConfig, written: dict[str, Any]) -> dict[str, Any]:
        fields, scale = written["config"], config.loss_scale
        if (ema := config.ema) is not None:
            if ema != ParamsEma(ema.average_decay, **OF_KERAS_3):
                text = "Keras 3 averages from the second update on with one decay: start_step 2, dynamic_decay false"
                self.report.problem("ema", f"{text}, got {ema}")
            fields |= {"use_ema": True, "ema_momentum": to_dict(ema)["average_decay"]}
            if config.accumulate_steps > 1:
                text = "Keras 3 averages at each step where it accumulates gradients, and here once parameters move"
                self.report.problem("accumulate_steps", text)
        if config.accumulate_steps > 1:
            fields["gradient_accumulation_steps"] = config.accumulate_steps
            if isinstance(getattr(config.optimizer, "learning_rate", None), Schedule):
                text = "Keras 3 evaluates a schedule at the number of calls where it accumulates, and here of updates"
                self.report.problem("accumulate_steps", text)
        if scale is None:
            return written
        of_scale = _loss_scale(scale, self.report)
        if isinstance(scale, FixedLossScale):
            fields["loss_scale_factor"] = scale.scale
            return written
        of_scale.pop("dynamic", None)
        return _envelope("keras.optimizers", "LossScaleOptimizer", {"inner_optimizer": written, **of_scale})


def _envelope(module: str, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return what Keras 3 writes around the fields of a class of its own."""
    return {"module": module, "class_name": name, "config": fields, "registered_name": None}


def _loss_scale(loss_scale: LossScale, report: Report) -> dict[str, Any]:
    if isinstance(loss_scale, DynamicLossScale):
        carried: set[str] = {"initial_scale", "growth_steps"}
        fields = {"dynamic": True, "initial_scale": loss_scale.initial_scale}
        fields["dynamic_growth_steps"] = resolved(loss_scale.growth_steps)
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
