"""Learning-rate schedules: frozen dataclasses that are pure functions of the step."""

from optax_ext._core.field_types import NonNegativeSteps, PositiveSteps, Steps
from optax_ext.schedules._cosine import CosineDecay, CosineDecayRestarts
from optax_ext.schedules._exponential import ExponentialDecay, InverseTimeDecay
from optax_ext.schedules._milestones import Milestone
from optax_ext.schedules._piecewise import Constant, PiecewiseConstantDecay, StepCosineDecay
from optax_ext.schedules._polynomial import PolynomialDecay
from optax_ext.schedules._power import DirectPowerDecay, PowerAndLinearDecay, PowerDecay
from optax_ext.schedules._rate_per_batch import Rate, RatePerBatch
from optax_ext.schedules._schedule import (
    AnyNumberOrSchedule,
    FractionOrSchedule,
    NonNegativeNumberOrSchedule,
    ScalarOrSchedule,
    Schedule,
    evaluate,
)
from optax_ext.schedules._warmup import LinearWarmup, PolynomialWarmup
from optax_ext.schedules._words import rate_in_words

__all__ = [
    "AnyNumberOrSchedule",
    "Constant",
    "CosineDecay",
    "CosineDecayRestarts",
    "DirectPowerDecay",
    "ExponentialDecay",
    "FractionOrSchedule",
    "InverseTimeDecay",
    "LinearWarmup",
    "Milestone",
    "NonNegativeNumberOrSchedule",
    "NonNegativeSteps",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "PolynomialWarmup",
    "PositiveSteps",
    "PowerAndLinearDecay",
    "PowerDecay",
    "Rate",
    "RatePerBatch",
    "ScalarOrSchedule",
    "Schedule",
    "StepCosineDecay",
    "Steps",
    "evaluate",
    "rate_in_words",
]
