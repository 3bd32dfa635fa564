"""TensorFlow Model Garden's optimization package for JAX: schedules, LARS and loss scaling for Optax."""

from optax_ext import config
from optax_ext.schedules import (
    Constant,
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
from optax_ext.transforms import (
    LossScaleState,
    dynamic_loss_scaling,
    fixed_loss_scaling,
    lamb,
    lars,
    path_mask,
    scale_by_trust_ratio,
    scale_loss,
    unscale,
    value_and_grad,
)

__version__ = "0.1.0"

__all__ = [
    "Constant",
    "CosineDecay",
    "CosineDecayRestarts",
    "DirectPowerDecay",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LinearWarmup",
    "LossScaleState",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "PolynomialWarmup",
    "PowerAndLinearDecay",
    "PowerDecay",
    "Schedule",
    "StepCosineDecay",
    "config",
    "dynamic_loss_scaling",
    "fixed_loss_scaling",
    "lamb",
    "lars",
    "path_mask",
    "scale_by_trust_ratio",
    "scale_loss",
    "unscale",
    "value_and_grad",
]
