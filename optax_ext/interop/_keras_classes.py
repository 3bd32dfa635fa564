"""The classes of Keras and Model Garden, and what each is here."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from optax_ext._core.schema import Schema, init_fields
from optax_ext.config import LAMB, LARS, SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from optax_ext.interop._report import Report
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

# Fields that no class of Keras or Model Garden has.
_OF_LAYERS = frozenset({"stacked_axes", "separate_norms", "min_ratio", "max_ratio", "record"})
_OF_PYTORCH = frozenset({"weight_decay_in_gradient", "learning_rate_in_momentum"})
_OF_DECAY = frozenset({"epsilon_hat", "weight_decay_times_learning_rate"}) | _OF_PYTORCH
_ONLY_OURS = frozenset({"before_offset", "allow_unmatched", "epsilon_in_root"}) | _OF_LAYERS | _OF_DECAY


class KerasClass(NamedTuple):
    """A class of Keras or Model Garden, as a schema of ours.

    Args:
      schema: Our schema.
      renamed: The class's names of the fields that have another name in the schema, by ours.
      lacks: The fields of the schema that the class does not have.
      defaults: The defaults of the class where they differ from the schema's, by our names.
    """

    schema: type[Schema]
    renamed: Mapping[str, str] = {}
    lacks: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = {}

    def names(self) -> dict[str, str]:
        """Return the class's name of each field of the schema that it has."""
        names = [field.name for field in init_fields(self.schema) if field.name not in _ONLY_OURS | self.lacks]
        return {name: self.renamed.get(name, name) for name in names}

    def build(self, fields: Mapping[str, Any], path: str, report: Report) -> Any:
        """Construct the schema from fields under the class's names; return None if there is a problem."""
        theirs = self.names()
        ours = {name: our_name for our_name, name in theirs.items()}
        given = {ours[name]: value for name, value in fields.items()}
        return report.build(self.schema, {**self.defaults, **given}, path, theirs)


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

_ONLY_MODEL_GARDEN = frozenset({"include_in_weight_decay", "exclude_from_weight_decay", "gradient_clip_norm"})

_NO_DECAY = frozenset({"weight_decay_rate", "exclude_from_weight_decay"})

OPTIMIZERS: dict[str, KerasClass] = {
    "SGD": KerasClass(SGD, lacks=_NO_DECAY, defaults={"learning_rate": 0.01}),
    "Adam": KerasClass(Adam, defaults={"learning_rate": 0.001}),
    "AdamWeightDecay": KerasClass(AdamW, defaults={"learning_rate": 0.001}),
    "AdamW": KerasClass(
        AdamW,
        renamed={"weight_decay_rate": "weight_decay"},
        lacks=_ONLY_MODEL_GARDEN,
        defaults={"learning_rate": 0.001, "weight_decay_rate": 0.004, "gradient_clip_norm": 0.0},
    ),
    "LAMB": KerasClass(LAMB, defaults={"learning_rate": 0.001}),
    "LARS": KerasClass(LARS, defaults={"learning_rate": 0.01}),
    "RMSprop": KerasClass(RMSprop, lacks=_NO_DECAY, defaults={"learning_rate": 0.001}),
    "Adagrad": KerasClass(Adagrad, lacks=_NO_DECAY, defaults={"learning_rate": 0.001}),
}

# Keras has each optimizer twice since TensorFlow 2.11: the older, "legacy", generation and a newer one, in which these
# differ. A config has one of the fields in NEWER only if it is of the newer generation.
NEWER_OPTIMIZERS: dict[str, KerasClass] = {
    "RMSprop": KerasClass(RMSprop, lacks=_NO_DECAY, defaults={"learning_rate": 0.001, "epsilon_in_root": True}),
    "Adagrad": KerasClass(Adagrad, lacks=_NO_DECAY, defaults={"learning_rate": 0.001, "epsilon_in_root": True}),
}
NEWER = frozenset({"jit_compile", "use_ema", "weight_decay", "loss_scale_factor"})

EMA_OPTIMIZER = "ExponentialMovingAverage"
LOSS_SCALE_OPTIMIZERS = ("LossScaleOptimizer", "LossScaleOptimizerV3", "LossScaleOptimizerV1")
WRAPPERS = (EMA_OPTIMIZER, *LOSS_SCALE_OPTIMIZERS)

# What TensorFlow's `get_config` leaves out.
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

# Classes that have no counterpart here.
NO_COUNTERPART = frozenset({"Adadelta", "Adafactor", "Adamax", "Ftrl", "Lamb", "Lion", "Muon", "Nadam", "SLIDE"})

# Fields that Keras's newer optimizers have besides, and the values with which they change nothing; None: any value.
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


def find_class(name: str) -> KerasClass:
    """Return the class of a schedule, or of an optimizer of the older generation.

    Args:
      name: Its name in Keras or Model Garden.

    Returns:
      The class, as a schema of ours.

    Raises:
      KeyError: If there is no class of this name.
    """
    return SCHEDULES[name] if name in SCHEDULES else OPTIMIZERS[name]


def optimizer_class(name: str, *, newer: bool) -> KerasClass:
    """Return the class of an optimizer, of the newer generation or the older one."""
    return NEWER_OPTIMIZERS.get(name, OPTIMIZERS[name]) if newer else OPTIMIZERS[name]


def class_of(config: Schedule | Optimizer) -> tuple[str, KerasClass] | None:
    """Return the class to write a config as, with or without an offset as it needs; None where Keras has none."""
    table = SCHEDULES if isinstance(config, Schedule) else OPTIMIZERS
    fits = [(name, known) for name, known in table.items() if known.schema is type(config) and name != "AdamW"]
    if len(fits) > 1 and getattr(config, "offset", 0) != 0:
        return fits[-1]
    return fits[0] if fits else None
