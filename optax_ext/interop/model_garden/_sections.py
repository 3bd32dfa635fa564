"""Model Garden's configs: the members of each section with their defaults, and which class of Keras's each is."""

from typing import Any, NamedTuple

from optax_ext.interop._keras_classes import KerasClass, find_class
from optax_ext.schedules import Constant

Block = dict[str, Any]  # the fields of a member, or of a section that has no members

CLIPPING: Block = {"clipnorm": None, "clipvalue": None, "global_clipnorm": None}
_PATTERNS: Block = {"exclude_from_weight_decay": None, "exclude_from_layer_adaptation": None}
_ADAM: Block = {"name": "Adam", "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False}
_RATE: Block = {"name": "", "initial_learning_rate": None}
_PIECES: Block = {"name": "", "boundaries": None, "values": None, "offset": 0}
_LAMB: Block = {"name": "LAMB", "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-6, "weight_decay_rate": 0.0}

# The defaults of Model Garden 2.20; None where there is none.
OPTIMIZER: dict[str, Block] = {
    "sgd": {**CLIPPING, "name": "SGD", "decay": 0.0, "nesterov": False, "momentum": 0.0},
    "sgd_experimental": {**CLIPPING, "name": "SGD", "nesterov": False, "momentum": 0.0, "jit_compile": False},
    "adam": {**CLIPPING, **_ADAM},
    "adam_experimental": {**CLIPPING, **_ADAM, "jit_compile": False},
    "adamw": {
        **CLIPPING,
        **_ADAM,
        "weight_decay_rate": 0.0,
        "include_in_weight_decay": None,
        "exclude_from_weight_decay": None,
        "gradient_clip_norm": 1.0,
    },
    "adamw_experimental": {**CLIPPING, **_ADAM, "weight_decay": 0.0, "global_clipnorm": 1.0, "jit_compile": False},
    "lamb": {**CLIPPING, **_LAMB, **_PATTERNS},
    "rmsprop": {**CLIPPING, "name": "", "rho": 0.9, "momentum": 0.0, "epsilon": 1e-7, "centered": False},
    "lars": {
        **CLIPPING,
        "name": "LARS",
        "momentum": 0.9,
        "eeta": 0.001,
        "weight_decay_rate": 0.0,
        "nesterov": False,
        "classic_momentum": True,
        **_PATTERNS,
    },
    "adagrad": {**CLIPPING, "name": "Adagrad", "initial_accumulator_value": 0.1, "epsilon": 1e-7},
    "slide": {
        **CLIPPING,
        **_LAMB,
        **_PATTERNS,
        "weight_decay_type": "inner",
        "include_in_sparse_layer_adaptation": None,
        "sparse_layer_learning_rate": 0.1,
        "do_gradient_rescaling": True,
        "norm_type": "layer",
        "ratio_clip_norm": 1e5,
    },
    "adafactor": {
        **CLIPPING,
        "name": "Adafactor",
        "factored": True,
        "multiply_by_parameter_scale": True,
        "beta1": None,
        "decay_rate": 0.8,
        "step_offset": 0,
        "clipping_threshold": 1.0,
        "min_dim_size_to_factor": 128,
        "epsilon1": 1e-30,
        "epsilon2": 1e-3,
        "weight_decay": None,
        "include_in_weight_decay": None,
    },
    "adafactor_keras": {
        **CLIPPING,
        "name": "Adafactor",
        "learning_rate": 0.001,
        "beta_2_decay": -0.8,
        "epsilon_1": 1e-30,
        "epsilon_2": 1e-3,
        "clip_threshold": 1.0,
        "relative_step": True,
    },
}
LEARNING_RATE: dict[str, Block] = {
    "constant": {"name": "Constant", "learning_rate": 0.1},
    "stepwise": _PIECES,
    "exponential": {**_RATE, "decay_steps": None, "decay_rate": None, "staircase": None, "offset": 0},
    "polynomial": {
        **_RATE,
        "decay_steps": None,
        "end_learning_rate": 0.0001,
        "power": 1.0,
        "cycle": False,
        "offset": 0,
    },
    "cosine": {**_RATE, "decay_steps": None, "alpha": 0.0, "offset": 0},
    "power": {**_RATE, "power": -0.5},
    "power_linear": {**_RATE, "total_decay_steps": None, "power": -0.5, "linear_decay_fraction": 0.1, "offset": 0},
    "power_with_offset": {**_RATE, "power": -0.5, "offset": 0, "pre_offset_learning_rate": 1e6},
    "step_cosine_with_offset": _PIECES,
}
WARMUP: dict[str, Block] = {
    "linear": {"name": "linear", "warmup_learning_rate": 0, "warmup_steps": None},
    "polynomial": {"name": "polynomial", "power": 1, "warmup_steps": None},
}
SECTIONS = {"optimizer": OPTIMIZER, "learning_rate": LEARNING_RATE, "warmup": WARMUP}
EMA: Block = {
    **CLIPPING,
    "name": "ExponentialMovingAverage",
    "trainable_weights_only": True,
    "average_decay": 0.99,
    "start_step": 0,
    "dynamic_decay": True,
}
RUNTIME: Block = {"mixed_precision_dtype": None, "loss_scale": None}


class Member(NamedTuple):
    """What the factory makes of a member: a class by its name in Keras, of the older generation or the newer one."""

    class_name: str
    newer: bool = False

    @property
    def keras_class(self) -> KerasClass:
        """The class as a schema of ours."""
        return _CONSTANT if self.class_name == "Constant" else find_class(self.class_name)


_CONSTANT = KerasClass(Constant)  # which is a number in Keras, not a class

# What each member is. Those that are not in here have no counterpart.
MEMBERS: dict[str, dict[str, Member]] = {
    "optimizer": {
        "sgd": Member("SGD"),
        "sgd_experimental": Member("SGD", newer=True),
        "adam": Member("Adam"),
        "adam_experimental": Member("Adam", newer=True),
        "adamw": Member("AdamWeightDecay"),
        "adamw_experimental": Member("AdamW", newer=True),
        "lamb": Member("LAMB"),
        "rmsprop": Member("RMSprop"),
        "lars": Member("LARS"),
        "adagrad": Member("Adagrad"),
        "adafactor_keras": Member("Adafactor", newer=True),
    },
    "learning_rate": {
        "constant": Member("Constant"),
        "stepwise": Member("PiecewiseConstantDecayWithOffset"),
        "exponential": Member("ExponentialDecayWithOffset"),
        "polynomial": Member("PolynomialDecayWithOffset"),
        "cosine": Member("CosineDecayWithOffset"),
        "power": Member("DirectPowerDecay"),
        "power_linear": Member("PowerAndLinearDecay"),
        "power_with_offset": Member("PowerDecayWithOffset"),
        "step_cosine_with_offset": Member("StepCosineDecayWithOffset"),
    },
    "warmup": {"linear": Member("LinearWarmup"), "polynomial": Member("PolynomialWarmUp")},
}
AFTER = "after_warmup_lr_sched"  # what those of a warm-up call the schedule after it
NO_NUMBERS = frozenset({"name", "jit_compile"})
