"""Model Garden's configs: the members of each section with their defaults, and what each member is here."""

from typing import Any

from optax_ext._core.schema import Schema
from optax_ext.config import LAMB, LARS, SGD, Adagrad, Adam, AdamW, RMSprop
from optax_ext.schedules import (
    Constant,
    CosineDecay,
    DirectPowerDecay,
    ExponentialDecay,
    LinearWarmup,
    PiecewiseConstantDecay,
    PolynomialDecay,
    PolynomialWarmup,
    PowerAndLinearDecay,
    PowerDecay,
    StepCosineDecay,
)

Block = dict[str, Any]  # the fields of a member, or of a section that has none

_CLIPPING: Block = {"clipnorm": None, "clipvalue": None, "global_clipnorm": None}
_PATTERNS: Block = {"exclude_from_weight_decay": None, "exclude_from_layer_adaptation": None}
_ADAM: Block = {"name": "Adam", "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False}
_RATE: Block = {"name": "", "initial_learning_rate": None}
_PIECES: Block = {"name": "", "boundaries": None, "values": None, "offset": 0}
_LAMB: Block = {"name": "LAMB", "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-6, "weight_decay_rate": 0.0}

# The defaults of Model Garden 2.20; None where there is none.
OPTIMIZER: dict[str, Block] = {
    "sgd": {**_CLIPPING, "name": "SGD", "decay": 0.0, "nesterov": False, "momentum": 0.0},
    "sgd_experimental": {**_CLIPPING, "name": "SGD", "nesterov": False, "momentum": 0.0, "jit_compile": False},
    "adam": {**_CLIPPING, **_ADAM},
    "adam_experimental": {**_CLIPPING, **_ADAM, "jit_compile": False},
    "adamw": {
        **_CLIPPING,
        **_ADAM,
        "weight_decay_rate": 0.0,
        "include_in_weight_decay": None,
        "exclude_from_weight_decay": None,
        "gradient_clip_norm": 1.0,
    },
    "adamw_experimental": {**_CLIPPING, **_ADAM, "weight_decay": 0.0, "global_clipnorm": 1.0, "jit_compile": False},
    "lamb": {**_CLIPPING, **_LAMB, **_PATTERNS},
    "rmsprop": {**_CLIPPING, "name": "", "rho": 0.9, "momentum": 0.0, "epsilon": 1e-7, "centered": False},
    "lars": {
        **_CLIPPING,
        "name": "LARS",
        "momentum": 0.9,
        "eeta": 0.001,
        "weight_decay_rate": 0.0,
        "nesterov": False,
        "classic_momentum": True,
        **_PATTERNS,
    },
    "adagrad": {**_CLIPPING, "name": "Adagrad", "initial_accumulator_value": 0.1, "epsilon": 1e-7},
    "slide": {
        **_CLIPPING,
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
        **_CLIPPING,
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
        **_CLIPPING,
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
    **_CLIPPING,
    "name": "ExponentialMovingAverage",
    "trainable_weights_only": True,
    "average_decay": 0.99,
    "start_step": 0,
    "dynamic_decay": True,
}
RUNTIME: Block = {"mixed_precision_dtype": None, "loss_scale": None}

# What a member is here. Those of the schema that are not in here cannot be carried.
SCHEMAS: dict[str, dict[str, type[Schema]]] = {
    "optimizer": {
        "sgd": SGD,
        "sgd_experimental": SGD,
        "adam": Adam,
        "adam_experimental": Adam,
        "adamw": AdamW,
        "adamw_experimental": AdamW,
        "lamb": LAMB,
        "rmsprop": RMSprop,
        "lars": LARS,
        "adagrad": Adagrad,
    },
    "learning_rate": {
        "constant": Constant,
        "stepwise": PiecewiseConstantDecay,
        "exponential": ExponentialDecay,
        "polynomial": PolynomialDecay,
        "cosine": CosineDecay,
        "power": DirectPowerDecay,
        "power_linear": PowerAndLinearDecay,
        "power_with_offset": PowerDecay,
        "step_cosine_with_offset": StepCosineDecay,
    },
    "warmup": {"linear": LinearWarmup, "polynomial": PolynomialWarmup},
}
RENAMED = {"weight_decay": "weight_decay_rate"}  # of adamw_experimental
NO_NUMBERS = frozenset({"name", "jit_compile"})
