"""Keras's configs of schedules, optimizers and loss-scale optimizers as ours."""

from collections.abc import Mapping
from typing import Any, cast

from optax_ext._core.errors import did_you_mean, join_words, shorten
from optax_ext._core.plain_data import plain_data
from optax_ext._core.public import public
from optax_ext._core.schema import init_fields
from optax_ext.config import OptimizationConfig, Optimizer, ParamsEma
from optax_ext.interop._keras_classes import (
    BACKEND_EPSILON,
    CLIPS,
    EMA_OPTIMIZER,
    LEFT_OUT,
    LOSS_SCALE_OPTIMIZERS,
    NEUTRAL,
    NEWER,
    NOT_CARRIED,
    OPTIMIZERS,
    PACKAGES,
    PATTERN_FIELDS,
    SCHEDULES,
    KerasClass,
    clip_as_newer,
    note_clipping,
)
from optax_ext.interop._keras_loss_scale import read_loss_scale, read_old_loss_scale
from optax_ext.interop._patterns import read_patterns
from optax_ext.interop._report import Note, Report, is_number, join
from optax_ext.schedules import Schedule

_ENVELOPE = {"class_name", "config", "module", "registered_name"}
_OPTIMIZER_NAMES = {"Sgd": "SGD", "Rmsprop": "RMSprop", "RMSProp": "RMSprop", "AdaGrad": "Adagrad"}
_BEYOND_ONE_OPTIMIZER = (EMA_OPTIMIZER, *LOSS_SCALE_OPTIMIZERS)


@public
def from_keras(
    data: Mapping[str, Any], *, class_name: str | None = None, translate_patterns: bool = True
) -> Schedule | Optimizer | OptimizationConfig:
    """Read what Keras and Model Garden write of a schedule, an optimizer or a loss-scale optimizer.

    That is what ``serialize`` returns, ``{"class_name": …, "config": …}`` with or without ``module`` and
    ``registered_name``, in the spellings of tf_keras and of Keras 3, and what ``get_config`` returns, where its class
    can be told. The ``config`` may hold any argument of the class, those too that ``get_config`` loses.

    Args:
      data: The mapping.
      class_name: The class that a bare ``get_config`` is of, where its keys do not tell.
      translate_patterns: Whether patterns that were written for TensorFlow's variable names are translated to fit
        JAX parameter paths: ``batch_normalization`` finds ``BatchNorm_0`` too, ``:0`` at the end of a name is dropped.

    Returns:
      A schedule, an optimizer's schema, or, for a loss-scale optimizer or a moving average around one, an
      [`OptimizationConfig`][optax_ext.config.OptimizationConfig].

    Raises:
      ConfigError: If there is anything that cannot be carried: a class or a field that is not known, a callable, a
        value out of range. Only ``name``, ``module`` and ``registered_name`` are dropped, which carry no numbers,
        and ``jit_compile``.

    Examples:
      >>> from optax_ext import interop
      >>> interop.from_keras({"class_name": "CosineDecay", "config": {"initial_learning_rate": 0.1, "decay_steps": 9}})
      CosineDecay(initial_learning_rate=0.1, decay_steps=9)

    Differs from TensorFlow:
      Offsets and patterns are read where they are given; TensorFlow's ``get_config`` leaves them out, and of a
      schedule that may have had an offset this warns. An empty ``exclude_from_layer_adaptation`` is None, which it
      means there. A non-finite gradient is skipped under a fixed loss scale too.
    """
    config, notes = translate_keras(data, "Keras config", class_name, translate_patterns=translate_patterns)
    Report(notes=notes).warn(stacklevel=2)
    return config


def translate_keras(
    data: Mapping[str, Any], subject: str, class_name: str | None = None, *, translate_patterns: bool = True
) -> tuple[Schedule | Optimizer | OptimizationConfig, list[Note]]:
    """Return the config, and a note for everything that reads otherwise than it was written."""
    report = Report()
    config = KerasReader(report, translate_patterns).read(plain_data(data, subject), class_name, "")
    report.finish(subject)
    return cast(Any, config), report.notes  # None only where there was a problem


class KerasReader:
    """Reads one config, and adds to a report whatever is wrong with it."""

    def __init__(self, report: Report, translate_patterns: bool):
        self.report = report
        self.translate_patterns = translate_patterns

    def read(self, data: Any, class_name: str | None, path: str) -> Schedule | Optimizer | OptimizationConfig | None:
        """Return the config of whatever class it is; None if there was a problem."""
        named = self._open(data, class_name, path)
        if named is None:
            return None
        name, fields, path = named
        if name in SCHEDULES:
            return self._schedule(name, fields, path)
        if name in OPTIMIZERS:
            return self._optimizer(name, fields, path)
        if name == EMA_OPTIMIZER:
            return self._ema(fields, path)
        return self._loss_scale_optimizer(name, fields, path)

    def _open(self, data: Any, class_name: str | None, path: str) -> tuple[str, dict[str, Any], str] | None:
        """Return the class, its fields and their path."""
        if not isinstance(data, Mapping):
            self.report.problem(path, f"must be a mapping with a 'class_name' and a 'config', got {shorten(data)}")
            return None
        known = [*SCHEDULES, *OPTIMIZERS, *_BEYOND_ONE_OPTIMIZER]
        if "class_name" not in data:
            config, name = data, class_name or self._tell_class(data, path)
        else:
            config, name = data.get("config"), data["class_name"]
            config, path_of_config = ({} if config is None else config), join(path, "config")
            for key in data:
                if key not in _ENVELOPE:
                    self.report.problem(join(path, str(key)), f"unknown field{did_you_mean(key, _ENVELOPE)}")
            if not isinstance(config, Mapping):
                self.report.problem(path_of_config, f"must be a mapping, got {shorten(config)}")
                return None
            path = path_of_config
        if name is None:
            return None
        for written in (name, data.get("registered_name")):
            package = written.rpartition(">")[0] if isinstance(written, str) else ""
            if package and package not in PACKAGES:
                text = f"{written!r} is a class of another package, whose meaning is not known here"
                self.report.problem(join(path.removesuffix("config").removesuffix("."), "class_name"), text)
                return None
        name = name.rpartition(">")[2] if isinstance(name, str) else name  # "Addons>LAMB"
        name = _OPTIMIZER_NAMES.get(name, name) if isinstance(name, str) else name
        if name not in known if isinstance(name, str) else True:
            place = join(path.removesuffix("config").removesuffix("."), "class_name")
            if isinstance(name, str) and name in NOT_CARRIED:
                self.report.problem(place, f"there is no {name} here; there are {join_words(OPTIMIZERS)}")
            else:
                hint = did_you_mean(name, known)
                self.report.problem(place, f"unknown class {shorten(name)}{hint}, accepted: {join_words(known)}")
            return None
        fields: dict[str, Any] = {}
        for key, value in config.items():
            if isinstance(key, str):
                fields[key] = _unwrap(value)
            else:
                self.report.problem(path, f"must have text for keys, got {shorten(key)}")
        return name, fields, path

    def _tell_class(self, data: Mapping[Any, Any], path: str) -> str | None:
        """Return the one class that has all these fields, and whose `get_config` has none besides."""
        if "inner_optimizer" in data or "loss_scale" in data:
            return "LossScaleOptimizer"
        if "optimizer" in data and "average_decay" in data:
            return EMA_OPTIMIZER
        shared = {"learning_rate", "decay", "clipnorm", "clipvalue", "global_clipnorm"}
        keys = {key for key in data if isinstance(key, str)} - NEUTRAL.keys() - shared
        fits: list[str] = []
        for name, known in {**SCHEDULES, **OPTIMIZERS}.items():
            names = set(known.names().values()) - shared - NEUTRAL.keys()
            if names - {"warmup_target", *LEFT_OUT.get(name, ())} <= keys <= names:
                fits.append(name)
        if "AdamW" in fits:  # a newer Keras's: what tells it from Adam is that there is a weight decay
            fits = ["AdamW" if is_number(data.get("weight_decay")) else "Adam"]
        if not path and len(fits) == 2 and fits[1] == f"{fits[0]}WithOffset" and "offset" not in data:
            fits = fits[1:]  # the same but for the offset, of which there will be a warning
        if data.get("name") in fits:
            fits = [data["name"]]
        if len(fits) == 1:
            return fits[0]
        which = f"its keys fit {join_words(fits)}" if fits else f"its keys fit none, got {shorten(sorted(keys))}"
        text = f"the class cannot be told from a bare get_config: {which}; give it as"
        self.report.problem(path, f"{text} {{'class_name': …, 'config': …}}")
        return None

    def _note_what_is_left_out(self, name: str, fields: Mapping[str, Any], path: str) -> None:
        """Say that a `get_config`, which has a name, lacks what the class may have been given."""
        lost = LEFT_OUT.get(name, ())
        if lost and "name" in fields and not fields.keys() & set(lost):
            are = "is" if len(lost) == 1 else "are"
            text = f"{' and '.join(lost)} {are} left out of TensorFlow's get_config, and taken to be {name}'s default"
            self.report.note(path, text, surprising=True)

    def _schedule(self, name: str, fields: dict[str, Any], path: str) -> Schedule | None:
        self._note_what_is_left_out(name, fields, path)
        schedule = self._fields(SCHEDULES[name], fields, path)
        return schedule if isinstance(schedule, Schedule) else None

    def _optimizer(self, name: str, fields: dict[str, Any], path: str) -> Optimizer | None:
        self._note_what_is_left_out(name, fields, path)
        known = OPTIMIZERS[name]
        if NEWER & fields.keys():
            clip_as_newer(fields, path, self.report)
            if name in ("RMSprop", "Adagrad"):
                known = known._replace(defaults={**known.defaults, "epsilon_in_root": True})
        elif "epsilon" in fields and (
            fields["epsilon"] is None or (is_number(fields["epsilon"]) and not fields["epsilon"])
        ):
            text = f"{shorten(fields['epsilon'])} means {BACKEND_EPSILON}, as in TensorFlow"
            self.report.note(join(path, "epsilon"), text)
            fields["epsilon"] = BACKEND_EPSILON
        if "lr" in fields and "learning_rate" not in fields:
            fields["learning_rate"] = fields.pop("lr")
        adapting = fields.get("exclude_from_layer_adaptation")
        if isinstance(adapting, list) and not adapting:
            fields["exclude_from_layer_adaptation"] = None  # an empty list falls back like None
        if fields.get("exclude_from_weight_decay", ()) is None and name in ("LARS", "LAMB"):
            del fields["exclude_from_weight_decay"]
        optimizer = self._fields(known, fields, path)
        return optimizer if isinstance(optimizer, Optimizer) else None

    def _fields(self, known: KerasClass, fields: dict[str, Any], path: str) -> Any:
        """Build the schema of a class from its fields, each under its name there."""
        theirs = known.names()
        ours = {name: our_name for our_name, name in theirs.items()}
        given = dict(known.defaults)
        for key, value in fields.items():
            place = join(path, key)
            if key not in ours:
                self._neutral(key, value, place, ours)
            elif ours[key] in ("learning_rate", "after") and isinstance(value, Mapping):
                given[ours[key]] = self._nested_schedule(value, place)
            elif ours[key] in PATTERN_FIELDS:
                given[ours[key]] = read_patterns(value, place, self.report, translate=self.translate_patterns)
            else:
                given[ours[key]] = value
        return self.report.build(known.schema, given, path, theirs)

    def _neutral(self, key: str, value: Any, place: str, accepted: Mapping[str, str]) -> None:
        """Refuse a field that is not known, or that would change something."""
        if key not in NEUTRAL:
            names = [name for name in accepted if name != "name"]
            self.report.problem(place, f"unknown field{did_you_mean(key, names)}, accepted: {', '.join(names)}")
            return
        neutral = NEUTRAL[key]
        if neutral is not None and not any(value is one or _same_number(value, one) for one in neutral):
            hint = {"use_ema": ": give the config to ParamsEma", "weight_decay": ": that is AdamW's"}.get(key, "")
            self.report.problem(place, f"cannot be carried, got {shorten(value)}{hint}")

    def _nested_schedule(self, value: Any, path: str) -> Any:
        schedule = self.read(value, None, path)
        if schedule is not None and not isinstance(schedule, Schedule):
            self.report.problem(join(path, "class_name"), f"must be a schedule, got {type(schedule).__name__}")
        return schedule if isinstance(schedule, Schedule) else 0.0  # there is a problem then

    def _ema(self, fields: dict[str, Any], path: str) -> OptimizationConfig | None:
        self._note_what_is_left_out(EMA_OPTIMIZER, fields, path)
        inner = self._inner_optimizer(fields.pop("optimizer", None), join(path, "optimizer"))
        names = [field.name for field in init_fields(ParamsEma) if field.name != "initial"]
        base = {"learning_rate", "decay"}  # of the class's own base, which it does not use
        for key in fields.keys() - base - set(names):
            self._neutral(key, fields[key], join(path, key), dict.fromkeys(["optimizer", *names], ""))
        given = {key: fields[key] for key in names if key in fields}
        ema = self.report.build(ParamsEma, given, path, {})
        if inner is None or ema is None:
            return None
        if inner.ema is not None or inner.loss_scale is not None:
            self.report.problem(join(path, "optimizer"), "must be one optimizer, with nothing around it")
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
        accepted = dict.fromkeys(["inner_optimizer", "dynamic", "initial_scale", "dynamic_growth_steps"], "")
        for field in accepted.keys() & fields.keys():  # left there beside a loss_scale
            self.report.problem(join(path, field), "must not be given with loss_scale")
            del fields[field]
        for field, value in fields.items():
            if field in CLIPS and value is None:
                continue  # Keras 3's base class has them
            self._neutral(field, value, join(path, field), accepted)
        if inner is None or scale is None:
            return None
        if inner.loss_scale is not None:
            self.report.problem(path, f"a {name} must not be around another")
            return None
        config = OptimizationConfig(optimizer=inner.optimizer, loss_scale=scale, ema=inner.ema)
        note_clipping(config, join(path, key), self.report)
        return config

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


def _unwrap(value: Any) -> Any:
    """Open what Keras 3 puts around a number that is a tensor or of NumPy, and around a tuple."""
    kind = value.get("class_name") if isinstance(value, Mapping) else None
    if kind in ("__tensor__", "__numpy__") and isinstance(value.get("config"), Mapping):
        return value["config"].get("value")
    if kind == "__tuple__" and isinstance(value.get("items"), list | tuple):
        return [_unwrap(item) for item in value["items"]]
    return value
