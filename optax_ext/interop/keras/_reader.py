"""Reads configs of Keras: a schedule, an optimizer, and what wraps one."""

from collections.abc import Iterable, Mapping
from typing import Any

from optax_ext._core.errors import did_you_mean, shorten
from optax_ext.config import OptimizationConfig, Optimizer, ParamsEma
from optax_ext.interop._keras_classes import (
    EMA_OPTIMIZER,
    LEFT_OUT,
    LOSS_SCALE_OPTIMIZERS,
    MOVING_AVERAGE,
    NEUTRAL,
    SCHEDULES,
    WARM_UP,
    WARM_UP_FIELDS,
    KerasClass,
    Package,
    optimizer_class,
)
from optax_ext.interop._keras_quirks import Arguments, build_optimizer, build_recipe
from optax_ext.interop._report import PLACEHOLDER_RATE, Report, is_number, join
from optax_ext.interop.keras._envelope import open_envelope
from optax_ext.interop.keras._loss_scale import read_loss_scale, read_old_loss_scale
from optax_ext.interop.keras._packages import Origin
from optax_ext.interop.keras._warm_up import build_warm_up
from optax_ext.interop.keras._wrapping import DEFAULTS, Wrapping, take_wrapping, without_clipping
from optax_ext.schedules import Schedule

_BASE_CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")  # which the base class of Keras 3's optimizers has
_NADAM_DECAY = 0.004


class KerasReader:
    """Reads one config, and adds to a report whatever is wrong with it."""

    def __init__(self, report: Report, translate_patterns: bool, written_by: Package | None = None):
        self.report = report
        self.translate_patterns = translate_patterns
        self.written_by: Package | None = written_by
        self.packages: list[Package] = []  # whose optimizers it met
        self._after_warm_ups: set[str] = set()  # the paths of schedules that take over from a warm-up of some steps

    def read(self, data: Any, class_name: str | None, path: str) -> Any:
        """Return the config of whatever class it is, a constant rate as a number; None if there was a problem."""
        opened = open_envelope(data, class_name, self.written_by, path, self.report)
        if opened is None:
            return None
        origin, fields, path = opened
        name = origin.class_name
        self._note_what_is_left_out(origin, fields, path)
        if name == WARM_UP:
            return self._warm_up(origin, fields, path)
        if name in SCHEDULES:
            return self._schedule(name, fields, path)
        if name in (EMA_OPTIMIZER, MOVING_AVERAGE):
            return self._average(origin, fields, path)
        if name in LOSS_SCALE_OPTIMIZERS:
            return self._loss_scale_optimizer(name, fields, path)
        return self._optimizer(origin, fields, path)

    def _note_what_is_left_out(self, origin: Origin, fields: Mapping[str, Any], path: str) -> None:
        """Say that a `get_config`, which has a name, lacks what the class may have been given."""
        name, package, _ = origin
        lost = LEFT_OUT.get((package, name), ())
        if package == "transformers" and fields.get("weight_decay_rate", 0) == 0:
            return  # which parameters do not decay makes no difference
        if lost and "name" in fields and not fields.keys() & set(lost):
            are, s = ("is", "") if len(lost) == 1 else ("are", "s")
            text = f"{' and '.join(lost)} {are} left out of TensorFlow's get_config: {name} is read with the default{s}"
            if package == "transformers":
                text += ", where create_optimizer excludes ['LayerNorm', 'layer_norm', 'bias']: if that made this one,"
                text += " add them to exclude_from_weight_decay"
            self.report.note(path, text, surprising=True)

    def _schedule(self, name: str, fields: dict[str, Any], path: str) -> float | Schedule | None:
        known = SCHEDULES[name]
        values = self._known_fields(known, fields, path)
        steps: Any = values.get("decay_steps")
        if not name.startswith("PolynomialDecay") or not is_number(steps) or values.get("cycle"):
            return known.build(values, path, self.report)
        if steps < 0:
            text = f"is negative ({shorten(steps)}), for which TensorFlow returns end_learning_rate at every step"
        elif steps == 0 and path.removesuffix(".config") in self._after_warm_ups:
            text = "is 0, for which TensorFlow returns NaN after the warm-up: it is read as end_learning_rate"
        else:
            return known.build(values, path, self.report)
        decay = known.build({**values, "decay_steps": 1}, path, self.report)  # for the problems of other fields
        self.report.note(join(path, "decay_steps"), text, surprising=True)
        return None if decay is None else decay.end_learning_rate

    def _warm_up(self, origin: Origin, fields: dict[str, Any], path: str) -> float | Schedule | None:
        for key, value in fields.items():
            if key not in WARM_UP_FIELDS:
                self._neutral(key, value, join(path, key), WARM_UP_FIELDS)
        if "decay_schedule_fn" not in fields:
            self.report.problem(join(path, "decay_schedule_fn"), "is required")
            return None
        place = join(path, "decay_schedule_fn")
        steps: Any = fields.get("warmup_steps")
        if is_number(steps) and steps > 0:
            self._after_warm_ups.add(place)
        decay = self._nested_schedule(fields.pop("decay_schedule_fn"), place)
        return build_warm_up(fields, decay, origin.package, path, self.report)

    def _optimizer(self, origin: Origin, fields: dict[str, Any], path: str) -> Optimizer | OptimizationConfig | None:
        name, package, newer = origin
        self.packages.append(package)
        if "lr" in fields:
            rate = fields.pop("lr")
            if fields.setdefault("learning_rate", rate) != rate:
                self.report.problem(join(path, "lr"), "is another name of learning_rate: give one of them")
        if name == "Nadam" and not newer:
            self._decay_of_nadam(fields, path)
        wrapping = take_wrapping(fields, path, self.report)
        if (package, name) == ("keras", "Adam") and newer and is_number(decay := fields.get("weight_decay")) and decay:
            name = "AdamW"  # which is Adam of the newer generation, with weight decay
        known = optimizer_class(name, package, newer=newer)
        values = self._known_fields(known, fields, path)
        arguments = Arguments(
            name, package, values, path, self.report, newer=newer, translate_patterns=self.translate_patterns
        )
        optimizer = build_optimizer(arguments)
        if optimizer is None:
            return None
        if wrapping.accumulate_steps > 1 and isinstance(optimizer.learning_rate, Schedule):
            text = (
                "cannot be carried over with a schedule, which Keras evaluates at the number of calls, not of updates"
            )
            hint = "read it without, and give the schedule steps that count updates and the recipe accumulate_steps"
            self.report.problem(join(path, "gradient_accumulation_steps"), f"{text}: {hint}")
        return wrapping.around(optimizer)

    def _decay_of_nadam(self, fields: dict[str, Any], path: str) -> None:
        """Take the decay that the older Nadam writes for its momentum, and reads only as ``schedule_decay``."""
        decay = fields.pop("decay", _NADAM_DECAY)
        if decay != _NADAM_DECAY and "schedule_decay" not in fields:
            text = f"{shorten(decay)} is ignored, as in TensorFlow, whose Nadam reads schedule_decay, {_NADAM_DECAY}"
            self.report.note(join(path, "decay"), text, surprising=True)

    def _known_fields(self, known: KerasClass, fields: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Return the fields that the class has, with schedules read; refuse others that would change something."""
        ours = {theirs: name for name, theirs in known.names().items()}
        found: dict[str, Any] = {}
        for key, value in fields.items():
            place = join(path, key)
            if key not in ours:
                self._neutral(key, value, place, ours)
            elif ours[key] in known.scheduled and isinstance(value, Mapping):
                found[key] = self._nested_schedule(value, place)
            else:
                found[key] = value
        return found

    def _neutral(self, key: str, value: Any, place: str, accepted: Iterable[str]) -> None:
        """Refuse a field that is not known, or that would change something."""
        if key not in NEUTRAL:
            self.report.problem(place, f"unknown field{did_you_mean(key, accepted)}, accepted: {', '.join(accepted)}")
            return
        neutral = NEUTRAL[key]
        if neutral is not None and not any(value is one or _same_number(value, one) for one in neutral):
            self.report.problem(place, f"cannot be carried over, got {shorten(value)}")

    def _nested_schedule(self, value: Any, path: str) -> Any:
        schedule = self.read(value, None, path)
        if isinstance(schedule, Schedule) or is_number(schedule):
            return schedule
        if schedule is not None:
            self.report.problem(join(path, "class_name"), f"must be a schedule, got {type(schedule).__name__}")
        return PLACEHOLDER_RATE

    def _average(self, origin: Origin, fields: dict[str, Any], path: str) -> OptimizationConfig | None:
        """Return an optimizer with the average that is around it: Model Garden's, or that of tensorflow_addons."""
        is_addons = origin.class_name == MOVING_AVERAGE
        inner = self._inner_optimizer(fields.pop("optimizer", None), join(path, "optimizer"))
        names = ["average_decay", "start_step", "dynamic_decay"] + ([] if is_addons else ["trainable_weights_only"])
        if is_addons and fields.pop("num_updates", None) is not None:
            self.report.problem(join(path, "num_updates"), "cannot be carried over: give a smaller average_decay")
        for key, value in fields.items():
            if key not in (*names, "learning_rate", "decay"):  # the last two are the base class's, which it ignores
                self._neutral(key, value, join(path, key), ["optimizer", *names])
        given: dict[str, Any] = {key: fields[key] for key in names if key in fields}
        if is_addons:
            if inner is not None:
                inner = without_clipping(inner, join(path, "optimizer.config"), self.report)
            start = fields.get("start_step", 0)  # of updates that it counts from 0, and the average here from 1
            start = start + 1 if is_number(start) and start >= 0 else start
            given = {"dynamic_decay": False, **given, "initial": "params", "start_step": start}
        ema = self.report.build(ParamsEma, given, path, {})
        if inner is None or ema is None:
            return None
        if inner.ema is not None or inner.loss_scale is not None:
            text = "must be an optimizer by itself, not one with a loss scale or another average"
            self.report.problem(join(path, "optimizer"), text)
            return None
        return OptimizationConfig(inner.optimizer, ema=ema)

    def _loss_scale_optimizer(self, name: str, fields: dict[str, Any], path: str) -> OptimizationConfig | None:
        key = "optimizer" if "optimizer" in fields and "inner_optimizer" not in fields else "inner_optimizer"
        inner = self._inner_optimizer(fields.pop(key, None), join(path, key))
        scale = (
            read_old_loss_scale(fields.pop("loss_scale"), join(path, "loss_scale"), self.report)
            if "loss_scale" in fields
            else read_loss_scale(fields, path, self.report)
        )
        if take_wrapping(fields, path, self.report) != Wrapping():
            self.report.problem(path, f"{', '.join(DEFAULTS)} are for the inner optimizer, as in Keras")
        accepted = ["inner_optimizer", "dynamic", "initial_scale", "dynamic_growth_steps"]
        for field, value in fields.items():
            if field in accepted:  # left there beside a loss_scale
                self.report.problem(join(path, field), "must not be given with loss_scale")
            elif field not in _BASE_CLIPS or value is not None:
                self._neutral(field, value, join(path, field), accepted)
        if inner is None or scale is None:
            return None
        if inner.loss_scale is not None:
            self.report.problem(path, f"a {name} must not wrap another one")
            return None
        return build_recipe(
            inner.optimizer, scale, inner.ema, join(path, key), self.report, accumulate_steps=inner.accumulate_steps
        )

    def _inner_optimizer(self, value: Any, path: str) -> OptimizationConfig | None:
        if value is None:
            self.report.problem(path, "is required")
            return None
        inner = self.read(value, None, path)
        if isinstance(inner, Schedule) or is_number(inner):
            self.report.problem(join(path, "class_name"), f"must be an optimizer, got {type(inner).__name__}")
            return None
        return OptimizationConfig(inner) if isinstance(inner, Optimizer) else inner


def _same_number(value: Any, other: Any) -> bool:
    return is_number(value) and is_number(other) and value == other
