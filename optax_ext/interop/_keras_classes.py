"""The classes of Keras and Model Garden, and what each is here."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from optax_ext._core.errors import shorten
from optax_ext._core.schema import Schema, init_fields
from optax_ext.config import LAMB, LARS, SGD, Adagrad, Adam, AdamW, OptimizationConfig, Optimizer, RMSprop
from optax_ext.interop._report import Report, is_number, join
from optax_ext.schedules import (
    CosineDecay,
    CosineDecayRestarts,
    DirectPowerDecay,
    ExponentialDecay,
    InverseTimeDecay,
    LinearWarmup,
    PiecewiseConstantDecay,
    PolynomialDecay,
    PolynomialWarmup,
    PowerAndLinearDecay,
    PowerDecay,
    Schedule,
    StepCosineDecay,
)


class KerasClass(NamedTuple):
    """A class of Keras: our schema, the fields it has another name for, lacks, or has another default for."""

    schema: type[Schema]
    renamed: Mapping[str, str] = {}  # theirs by ours
    lacks: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = {}

    def names(self) -> dict[str, str]:
        """Return Keras's name of each of our fields that it has."""
        only_ours = {"before_offset", "allow_unmatched", "epsilon_in_root"} | self.lacks
        names = [field.name for field in init_fields(self.schema) if field.name not in only_ours]
        return {name: self.renamed.get(name, name) for name in names}


_NO_OFFSET = frozenset({"offset"})
_AFTER = {"after": "after_warmup_lr_sched"}

SCHEDULES: dict[str, KerasClass] = {
    "PiecewiseConstantDecay": KerasClass(PiecewiseConstantDecay, lacks=_NO_OFFSET),
    "ExponentialDecay": KerasClass(ExponentialDecay, lacks=_NO_OFFSET),
    "PolynomialDecay": KerasClass(PolynomialDecay, lacks=_NO_OFFSET),
    "CosineDecay": KerasClass(CosineDecay, lacks=_NO_OFFSET),
    "CosineDecayRestarts": KerasClass(CosineDecayRestarts, lacks=_NO_OFFSET),
    "InverseTimeDecay": KerasClass(InverseTimeDecay, lacks=_NO_OFFSET),
    "PiecewiseConstantDecayWithOffset": KerasClass(PiecewiseConstantDecay),
    "ExponentialDecayWithOffset": KerasClass(ExponentialDecay),
    "PolynomialDecayWithOffset": KerasClass(PolynomialDecay),
    "CosineDecayWithOffset": KerasClass(CosineDecay),
    "DirectPowerDecay": KerasClass(DirectPowerDecay),
    "PowerAndLinearDecay": KerasClass(PowerAndLinearDecay),
    "PowerDecayWithOffset": KerasClass(PowerDecay),
    "StepCosineDecayWithOffset": KerasClass(StepCosineDecay),
    "LinearWarmup": KerasClass(LinearWarmup, renamed=_AFTER),
    "PolynomialWarmUp": KerasClass(PolynomialWarmup, renamed=_AFTER),
}

_KERAS_ADAMW = frozenset({"include_in_weight_decay", "exclude_from_weight_decay", "gradient_clip_norm"})

OPTIMIZERS: dict[str, KerasClass] = {
    "SGD": KerasClass(SGD, defaults={"learning_rate": 0.01}),
    "Adam": KerasClass(Adam, defaults={"learning_rate": 0.001}),
    "AdamWeightDecay": KerasClass(AdamW, defaults={"learning_rate": 0.001}),
    "AdamW": KerasClass(
        AdamW,
        renamed={"weight_decay_rate": "weight_decay"},
        lacks=_KERAS_ADAMW,
        defaults={"learning_rate": 0.001, "weight_decay_rate": 0.004, "gradient_clip_norm": 0.0},
    ),
    "LAMB": KerasClass(LAMB, defaults={"learning_rate": 0.001}),
    "LARS": KerasClass(LARS, defaults={"learning_rate": 0.01}),
    "RMSprop": KerasClass(RMSprop, defaults={"learning_rate": 0.001}),
    "Adagrad": KerasClass(Adagrad, defaults={"learning_rate": 0.001}),
}

BACKEND_EPSILON = 1e-7  # what an optimizer takes in place of an epsilon of None or 0

PACKAGES = frozenset({"Addons", "Keras", "Text", "keras", "builtins"})  # whose names stand before a ">"

EMA_OPTIMIZER = "ExponentialMovingAverage"
LOSS_SCALE_OPTIMIZERS = ("LossScaleOptimizer", "LossScaleOptimizerV3", "LossScaleOptimizerV1")

# What `get_config` leaves out, of the classes that have such.
LEFT_OUT: dict[str, tuple[str, ...]] = {
    "PiecewiseConstantDecayWithOffset": ("offset",),
    "ExponentialDecayWithOffset": ("offset",),
    "PolynomialDecayWithOffset": ("offset",),
    "CosineDecayWithOffset": ("offset",),
    "LARS": ("exclude_from_weight_decay", "exclude_from_layer_adaptation"),
    "LAMB": ("exclude_from_weight_decay", "exclude_from_layer_adaptation"),
    "AdamWeightDecay": ("include_in_weight_decay", "exclude_from_weight_decay", "gradient_clip_norm"),
    EMA_OPTIMIZER: ("trainable_weights_only",),
}

# Classes there is nothing for here.
NOT_CARRIED = frozenset({"Adadelta", "Adafactor", "Adamax", "Ftrl", "Lamb", "Lion", "Muon", "Nadam", "SLIDE"})

PATTERN_FIELDS = frozenset({"include_in_weight_decay", "exclude_from_weight_decay", "exclude_from_layer_adaptation"})

# What Keras's newer optimizers have in their configs besides, and with which values it changes nothing; None: with any.
NEUTRAL: dict[str, tuple[Any, ...] | None] = {
    "name": None,
    "jit_compile": None,
    "is_legacy_optimizer": None,
    "ema_momentum": None,  # of `use_ema`
    "ema_overwrite_frequency": None,
    "use_ema": (False, None),
    "weight_decay": (None, 0, 0.0),
    "loss_scale_factor": (None,),
    "gradient_accumulation_steps": (None,),
    "gradient_aggregator": (None,),
    "gradient_transformers": (None,),
}
CLIPS = (
    "clipnorm",
    "global_clipnorm",
    "clipvalue",
)  # the newer optimizers apply the first of these that is more than 0
NEWER = frozenset({"jit_compile", "use_ema", "weight_decay", "loss_scale_factor"})  # which tell a newer optimizer


def clip_as_newer(fields: dict[str, Any], path: str, report: Report) -> None:
    """Leave of the clips the one that a newer optimizer applies; two norms are for the schema to refuse."""
    for key in CLIPS:
        if is_number(fields.get(key)) and fields[key] <= 0:
            report.note(join(path, key), f"{shorten(fields[key])} means no clipping")
            fields[key] = None
    norm = next((key for key in CLIPS[:2] if fields.get(key) is not None), None)
    if norm and fields.get("clipvalue") is not None:
        text = f"is ignored beside {norm}, as newer optimizers of TensorFlow do"
        report.note(join(path, "clipvalue"), text, surprising=True)
        fields["clipvalue"] = None


def note_clipping(config: OptimizationConfig, path: str, report: Report) -> None:
    """Say that AdamW clips inside a loss scale too, where TensorFlow forgets to."""
    if (
        config.loss_scale is not None
        and isinstance(config.optimizer, AdamW)
        and config.optimizer.gradient_clip_norm > 0
    ):
        text = "clips inside the loss scale too, where TensorFlow forgets to; 0 gives its numbers"
        report.note(join(path, "gradient_clip_norm"), text, surprising=True)


def class_of(config: Schedule | Optimizer) -> tuple[str, KerasClass] | None:
    """Return the class to write a config as, with or without an offset as it needs; None where Keras has none."""
    table = SCHEDULES if isinstance(config, Schedule) else OPTIMIZERS
    fits = [(name, known) for name, known in table.items() if known.schema is type(config) and name != "AdamW"]
    if len(fits) > 1 and getattr(config, "offset", 0) != 0:
        return fits[-1]
    return fits[0] if fits else None
