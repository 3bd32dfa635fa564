"""Reads configs of Keras: a schedule, an optimizer, and what wraps one."""

from collections.abc import Iterable, Mapping
from typing import Any

from optax_ext._core.errors import did_you_mean, shorten
from optax_ext._core.schema import init_fields
from optax_ext.config import OptimizationConfig, Optimizer, ParamsEma
from optax_ext.interop._keras_classes import (
    EMA_OPTIMIZER,
    LEFT_OUT,
    NEUTRAL,
    NEWER,
    OPTIMIZERS,
    SCHEDULES,
    KerasClass,
)
from optax_ext.interop._keras_quirks import Arguments, build_optimizer, build_recipe
from optax_ext.interop._report import PLACEHOLDER_RATE, Report, is_number, join
from optax_ext.interop.keras._envelope import open_envelope
from optax_ext.interop.keras._loss_scale import read_loss_scale, read_old_loss_scale
from optax_ext.schedules import Schedule

_BASE_CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")  # which the base class of Keras 3's optimizers has


class KerasReader:
    """Reads one config, and adds to a report whatever is wrong with it."""

    def __init__(self, report: Report, translate_patterns: bool):
        self.report = report
        self.translate_patterns = translate_patterns

    def read(self, data: Any, class_name: str | None, path: str) -> Schedule | Optimizer | OptimizationConfig | None:
        """Return the config of whatever class it is; None if there was a problem."""
        opened = open_envelope(data, class_name, path, self.report)
        if opened is None:
            return None
        name, fields, path = opened
        self._note_what_is_left_out(name, fields, path)
        if name in SCHEDULES:
            return self._schedule(name, fields, path)
        if name in OPTIMIZERS:
            return self._optimizer(name, fields, path)
        if name == EMA_OPTIMIZER:
            return self._ema(fields, path)
        return self._loss_scale_optimizer(name, fields, path)

    def _note_what_is_left_out(self, name: str, fields: Mapping[str, Any], path: str) -> None:
        """Say that a `get_config`, which has a name, lacks what the class may have been given."""
        lost = LEFT_OUT.get(name, ())
        if lost and "name" in fields and not fields.keys() & set(lost):
            are = "is" if len(lost) == 1 else "are"
            text = f"{' and '.join(lost)} {are} left out of TensorFlow's get_config: {name} is read with the default"
            self.report.note(path, text + "s" * (len(lost) > 1), surprising=True)

    def _schedule(self, name: str, fields: dict[str, Any], path: str) -> Schedule | None:
        known = SCHEDULES[name]
        return known.build(self._known_fields(known, fields, path), path, self.report)

    def _optimizer(self, name: str, fields: dict[str, Any], path: str) -> Optimizer | None:
        newer = bool(NEWER & fields.keys())
        if "lr" in fields and "learning_rate" not in fields:
            fields["learning_rate"] = fields.pop("lr")
        values = self._known_fields(OPTIMIZERS[name], fields, path)
        arguments = Arguments(name, values, path, self.report, newer=newer, translate_patterns=self.translate_patterns)
        return build_optimizer(arguments)

    def _known_fields(self, known: KerasClass, fields: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Return the fields that the class has, with schedules read; refuse others that would change something."""
        ours = {theirs: name for name, theirs in known.names().items()}
        found: dict[str, Any] = {}
        for key, value in fields.items():
            place = join(path, key)
            if key not in ours:
                self._neutral(key, value, place, ours)
            elif ours[key] in ("learning_rate", "after") and isinstance(value, Mapping):
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
            hint = {"use_ema": ": use ParamsEma", "weight_decay": ": only AdamW's is"}.get(key, "")
            self.report.problem(place, f"cannot be carried over, got {shorten(value)}{hint}")

    def _nested_schedule(self, value: Any, path: str) -> Any:
        schedule = self.read(value, None, path)
        if schedule is not None and not isinstance(schedule, Schedule):
            self.report.problem(join(path, "class_name"), f"must be a schedule, got {type(schedule).__name__}")
        return schedule if isinstance(schedule, Schedule) else PLACEHOLDER_RATE

    def _ema(self, fields: dict[str, Any], path: str) -> OptimizationConfig | None:
        inner = self._inner_optimizer(fields.pop("optimizer", None), join(path, "optimizer"))
        names = [field.name for field in init_fields(ParamsEma) if field.name not in ("initial", "debias")]
        for key, value in fields.items():
            if key not in (*names, "learning_rate", "decay"):  # the last two are the base class's, which it ignores
                self._neutral(key, value, join(path, key), ["optimizer", *names])
        given = {key: fields[key] for key in names if key in fields}
        ema = self.report.build(ParamsEma, given, path, {})
        if inner is None or ema is None:
            return None
        if inner.ema is not None or inner.loss_scale is not None:
            text = "must be an optimizer by itself, not one with a loss scale or another average"
            self.report.problem(join(path, "optimizer"), text)
            return None
        return OptimizationConfig(optimizer=inner.optimizer, ema=ema)

    def _loss_scale_optimizer(self, name: str, fields: dict[str, Any], path: str) -> OptimizationConfig | None:
        key = "optimizer" if "optimizer" in fields and "inner_optimizer" not in fields else "inner_optimizer"
        inner = self._inner_optimizer(fields.pop(key, None), join(path, key))
        scale = (
            read_old_loss_scale(fields.pop("loss_scale"), join(path, "loss_scale"), self.report)
            if "loss_scale" in fields
            else read_loss_scale(fields, path, self.report)
        )
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
        return build_recipe(inner.optimizer, scale, inner.ema, join(path, key), self.report)

    def _inner_optimizer(self, value: Any, path: str) -> OptimizationConfig | None:
        if value is None:
            self.report.problem(path, "is required")
            return None
        inner = self.read(value, None, path)
        if isinstance(inner, Schedule):
            self.report.problem(join(path, "class_name"), f"must be an optimizer, got {type(inner).__name__}")
            return None
        return OptimizationConfig(inner) if isinstance(inner, Optimizer) else inner


def _same_number(value: Any, other: Any) -> bool:
    return is_number(value) and is_number(other) and value == other
