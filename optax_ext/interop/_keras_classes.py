"""The classes that Keras serializes, its own and those of other packages, and what each is here."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from optax_ext._core.errors import shorten
from optax_ext._core.schema import Schema, init_fields
from optax_ext.config import (
    LAMB,
    LARS,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Ftrl,
    Lion,
    Muon,
    Nadam,
    RMSprop,
    ScheduleFreeAdamW,
    UpdateRule,
)
from optax_ext.interop._report import Report, join
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
    StepCosineDecay,
)

Package: TypeAlias = Literal["keras", "transformers", "model_garden", "tensorflow_addons"]

# Fields that are no argument of any of these classes. What they are is a part of what a class does.
_OF_LAYERS = frozenset({"separate_norms", "min_ratio", "max_ratio", "record"})
_OF_PYTORCH = frozenset({"weight_decay_in_gradient", "learning_rate_in_momentum", "initial_mean_square"})
_OF_ARITHMETIC = frozenset(
    {
        "decoupled_weight_decay",
        "epsilon_hat",
        "epsilon_in_root",
        "round_betas",
        "start_at_zero",
        "weight_decay_times_learning_rate",
    }
)
# Fields of every rule, so that one more of them is not taken for an argument of Keras's.
_OF_RULES = frozenset(field.name for field in init_fields(UpdateRule)) - {"clipnorm", "clipvalue", "global_clipnorm"}
_ONLY_OURS = frozenset({"before_offset"}) | _OF_RULES | _OF_LAYERS | _OF_ARITHMETIC | _OF_PYTORCH
_WEIGHT_DECAYS = frozenset({"weight_decay_rate", "adam_weight_decay"})


class KerasClass(NamedTuple):
    """A class that Keras serializes, as a schema of ours.

    Args:
      schema: Our schema.
      renamed: The class's names of the fields that have another name in the schema, by ours.
      lacks: The fields of the schema that the class does not have.
      defaults: The defaults of the class where they differ from the schema's, by our names.
      scheduled: The fields that may be a schedule in the class, by our names.
    """

    schema: type[Schema]
    renamed: Mapping[str, str] = {}
    lacks: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = {}
    scheduled: frozenset[str] = frozenset({"learning_rate", "after"})

    def names(self) -> dict[str, str]:
        """Return the class's name of each field of the schema that it has."""
        names = [field.name for field in init_fields(self.schema) if field.name not in _ONLY_OURS | self.lacks]
        return {name: self.renamed.get(name, name) for name in names}

    def build(self, fields: Mapping[str, Any], path: str, report: Report) -> Any:
        """Construct the schema from fields under the class's names; return None if there is a problem."""
        theirs = self.names()
        ours = {name: our_name for our_name, name in theirs.items()}
        given = {ours[name]: value for name, value in fields.items()}
        for name, value in given.items():
            if name in _WEIGHT_DECAYS and isinstance(value, Mapping):
                text = "must be a number, since only AdamW and SGDW of tensorflow_addons take a schedule for it"
                report.problem(join(path, theirs[name]), f"{text}, got {shorten(value)}")
                given[name] = 0.0  # a placeholder, for the problems of other fields
        return report.build(self.schema, {**self.defaults, **given}, path, theirs)


_NO_OFFSET = frozenset({"offset"})
_NO_TARGET = frozenset({"warmup_target"})
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
    "LinearWarmup": KerasClass(LinearWarmup, renamed=_AFTER, lacks=_NO_TARGET),
    "PolynomialWarmUp": KerasClass(PolynomialWarmup, renamed=_AFTER, lacks=_NO_TARGET),
}

# A class of transformers and another of Model Garden, which `_warm_up` reads.
WARM_UP = "WarmUp"
WARM_UP_FIELDS = ("initial_learning_rate", "decay_schedule_fn", "warmup_steps", "power")

_PATTERNS_OF_DECAY = frozenset({"include_in_weight_decay", "exclude_from_weight_decay"})
_CLIP = frozenset({"gradient_clip_norm"})
_NO_DECAY = frozenset({"weight_decay_rate", "exclude_from_weight_decay"})
_WEIGHT_DECAY = {"weight_decay_rate": "weight_decay"}
_RATE = {"learning_rate": 0.001}
_NEVER_CLIPS = {**_RATE, "gradient_clip_norm": 0.0}
_FULLY_DECOUPLED = {"weight_decay_times_learning_rate": False}
_DECAY_SCHEDULED = frozenset({"learning_rate", "weight_decay_rate"})


def _newer(schema: type[Schema], lacks: frozenset[str] = frozenset(), **defaults: Any) -> KerasClass:
    """Return a class of Keras's newer generation: with weight decay, of all parameters, and without ``decay``."""
    lacks |= {"decay", "include_in_weight_decay", "exclude_from_weight_decay"}
    return KerasClass(schema, _WEIGHT_DECAY, lacks, {**_RATE, **defaults})


# Keras has most optimizers twice since TensorFlow 2.11: the older, "legacy", generation and a newer one, in which some
# differ. A config has one of the fields in NEWER only if it is of the newer generation.
OLDER_KERAS: dict[str, KerasClass] = {
    "SGD": KerasClass(SGD, lacks=_NO_DECAY, defaults={"learning_rate": 0.01}),
    "Adam": KerasClass(Adam, defaults=_RATE),
    "RMSprop": KerasClass(RMSprop, lacks=_NO_DECAY, defaults=_RATE),
    "Adagrad": KerasClass(Adagrad, lacks=_NO_DECAY, defaults=_RATE),
    "Adadelta": KerasClass(Adadelta, lacks=_NO_DECAY, defaults=_RATE),
    "Adamax": KerasClass(Adamax, lacks=_NO_DECAY, defaults=_RATE),
    "Nadam": KerasClass(
        Nadam,
        renamed={"momentum_decay": "schedule_decay"},
        lacks=_NO_DECAY | {"decay"},
        defaults={**_RATE, "momentum_decay": 0.004},
    ),
    "Ftrl": KerasClass(Ftrl, lacks=_NO_DECAY, defaults=_RATE),
}
NEWER_KERAS: dict[str, KerasClass] = {
    "SGD": _newer(SGD, learning_rate=0.01),
    "Adam": KerasClass(Adam, lacks=frozenset({"decay"}), defaults=_RATE),
    "AdamW": _newer(AdamW, _CLIP, gradient_clip_norm=0.0, weight_decay_rate=0.004),
    "RMSprop": _newer(RMSprop, epsilon_in_root=True),
    "Adagrad": _newer(Adagrad, epsilon_in_root=True),
    "Adadelta": _newer(Adadelta),
    "Adamax": _newer(Adamax),
    "Nadam": _newer(Nadam, frozenset({"momentum_decay"})),
    "Ftrl": _newer(Ftrl),
    "Lion": _newer(Lion),
    "Lamb": _newer(
        LAMB,
        frozenset({"exclude_from_layer_adaptation"}),
        epsilon=1e-7,
        decoupled_weight_decay=True,
        exclude_from_layer_adaptation=(),
    ),
    "Adafactor": _newer(Adafactor),
    "Muon": _newer(Muon),
    "ScheduleFreeAdamW": _newer(ScheduleFreeAdamW, learning_rate=0.0025),
}
NEWER = frozenset({"jit_compile", "use_ema", "weight_decay", "loss_scale_factor", "gradient_accumulation_steps"})

# Fields that every optimizer has beside those of its class, and those that every newer one has.
OF_OPTIMIZERS = frozenset({"learning_rate", "lr", "clipnorm", "clipvalue", "global_clipnorm"})
OF_NEWER_OPTIMIZERS = NEWER | {"ema_momentum", "ema_overwrite_frequency"}

# The optimizers of each package. Where a config does not say whose class it names, it is that of the first package
# which has a class of this name with all its fields: real files are mostly of that one.
OPTIMIZERS: dict[Package, dict[str, KerasClass]] = {
    "keras": {**NEWER_KERAS, **OLDER_KERAS},
    "transformers": {
        "AdamWeightDecay": KerasClass(AdamW, lacks=_CLIP, defaults=_NEVER_CLIPS),
    },
    "model_garden": {
        "AdamWeightDecay": KerasClass(AdamW, defaults=_RATE),
        "LAMB": KerasClass(LAMB, defaults=_RATE),
        "LARS": KerasClass(LARS, lacks=frozenset({"epsilon"}), defaults={"learning_rate": 0.01}),
    },
    "tensorflow_addons": {
        "AdamW": KerasClass(
            AdamW,
            renamed=_WEIGHT_DECAY,
            lacks=_CLIP | {"include_in_weight_decay"},
            defaults={**_NEVER_CLIPS, **_FULLY_DECOUPLED},
            scheduled=_DECAY_SCHEDULED,
        ),
        "SGDW": KerasClass(
            SGD, renamed=_WEIGHT_DECAY, defaults={**_RATE, **_FULLY_DECOUPLED}, scheduled=_DECAY_SCHEDULED
        ),
        "LAMB": KerasClass(LAMB, renamed=_WEIGHT_DECAY, defaults=_RATE),
        "LazyAdam": KerasClass(Adam, defaults=_RATE),
    },
}

EMA_OPTIMIZER = "ExponentialMovingAverage"
MOVING_AVERAGE = "MovingAverage"  # of tensorflow_addons
LOSS_SCALE_OPTIMIZERS = ("LossScaleOptimizer", "LossScaleOptimizerV3", "LossScaleOptimizerV1")
WRAPPERS = (EMA_OPTIMIZER, MOVING_AVERAGE, *LOSS_SCALE_OPTIMIZERS)

# What TensorFlow's `get_config` leaves out.
LEFT_OUT: dict[tuple[Package, str], tuple[str, ...]] = {
    ("keras", "PiecewiseConstantDecayWithOffset"): ("offset",),
    ("keras", "ExponentialDecayWithOffset"): ("offset",),
    ("keras", "PolynomialDecayWithOffset"): ("offset",),
    ("keras", "CosineDecayWithOffset"): ("offset",),
    ("model_garden", "LARS"): ("exclude_from_weight_decay", "exclude_from_layer_adaptation"),
    ("model_garden", "LAMB"): ("exclude_from_weight_decay", "exclude_from_layer_adaptation"),
    ("model_garden", "AdamWeightDecay"): (*sorted(_PATTERNS_OF_DECAY, reverse=True), "gradient_clip_norm"),
    ("transformers", "AdamWeightDecay"): tuple(sorted(_PATTERNS_OF_DECAY, reverse=True)),
    ("model_garden", EMA_OPTIMIZER): ("trainable_weights_only",),
}

# Classes that have no counterpart here, and why.
_NOT_HERE = "has no counterpart here"
NO_COUNTERPART: dict[str, str] = {
    **dict.fromkeys(("AdaBelief", "COCOB", "ConditionalGradient", "NovoGrad", "ProximalAdagrad", "Yogi"), _NOT_HERE),
    "SLIDE": _NOT_HERE,
    "Lookahead": f"{_NOT_HERE}: read its `optimizer`, and wrap what make() returns in optax.lookahead",
    "MultiOptimizer": f"{_NOT_HERE}: read each optimizer by itself, and combine what make() returns by optax.partition",
    "RectifiedAdam": f"{_NOT_HERE}: optax.radam is the same idea with other arithmetic",
    "SWA": f"{_NOT_HERE}: read its `optimizer`, and average parameters by ParamsEma or in your loop",
}

# Fields that an optimizer may have besides, and the values with which they change nothing; None: any value.
NEUTRAL: dict[str, tuple[Any, ...] | None] = {
    "name": None,
    "jit_compile": None,
    "is_legacy_optimizer": None,
    "decay": (None, 0),
    "weight_decay": (None, 0),
    "gradient_aggregator": (None,),
    "gradient_transformers": (None,),
}


def find_class(name: str) -> KerasClass:
    """Return the class of a schedule, or of an optimizer of Model Garden or of Keras's older generation.

    Args:
      name: Its name.

    Returns:
      The class, as a schema of ours; that of Keras's newer generation where the older one has none of this name.

    Raises:
      KeyError: If there is no class of this name.
    """
    return SCHEDULES[name] if name in SCHEDULES else optimizer_class(name, package_in_recipe(name), newer=False)


def package_in_recipe(name: str) -> Package:
    """Return whose optimizer a recipe of Model Garden means by a name: its own, or else Keras's."""
    return "model_garden" if name in OPTIMIZERS["model_garden"] else "keras"


def optimizer_class(name: str, package: Package, *, newer: bool) -> KerasClass:
    """Return the class of an optimizer of a package; of Keras's, that of a generation, if it has the class."""
    if package != "keras":
        return OPTIMIZERS[package][name]
    first, second = (NEWER_KERAS, OLDER_KERAS) if newer else (OLDER_KERAS, NEWER_KERAS)
    return first[name] if name in first else second[name]
