"""Learning-rate schedules: frozen dataclasses that are pure functions of the step."""

from optax_ext._core.field_types import NonNegativeSteps, PositiveSteps, Steps
from optax_ext.schedules._cosine import CosineDecay, CosineDecayRestarts
from optax_ext.schedules._exponential import ExponentialDecay, InverseTimeDecay
from optax_ext.schedules._joined import JoinedSchedules
from optax_ext.schedules._milestones import Milestone
from optax_ext.schedules._piecewise import Constant, PiecewiseConstantDecay, StepCosineDecay
from optax_ext.schedules._polynomial import PolynomialDecay
from optax_ext.schedules._power import DirectPowerDecay, PowerAndLinearDecay, PowerDecay
from optax_ext.schedules._rate_per_batch import Rate, RatePerBatch
from optax_ext.schedules._schedule import (
    AnyNumberOrSchedule,
    FractionOrSchedule,
    NonNegativeOrSchedule,
    ScalarOrSchedule,
    Schedule,
    evaluate,
    is_zero,
)
from optax_ext.schedules._warmup import LinearWarmup, PolynomialWarmup
from optax_ext.schedules._warmup_stable_decay import WarmupStableDecay
from optax_ext.schedules._words import rate_in_words, values_in_words

__all__ = [
    "AnyNumberOrSchedule",
    "Constant",
    "CosineDecay",
    "CosineDecayRestarts",
    "DirectPowerDecay",
    "ExponentialDecay",
    "FractionOrSchedule",
    "InverseTimeDecay",
    "JoinedSchedules",
    "LinearWarmup",
    "Milestone",
    "NonNegativeOrSchedule",
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
    "WarmupStableDecay",
    "evaluate",
    "is_zero",
    "rate_in_words",
    "values_in_words",
]
