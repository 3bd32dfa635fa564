"""Learning-rate schedules: frozen dataclasses that are pure functions of the step."""

from optax_ext.schedules._cosine import CosineDecay, CosineDecayRestarts
from optax_ext.schedules._exponential import ExponentialDecay, InverseTimeDecay
from optax_ext.schedules._joined import JoinedSchedules
from optax_ext.schedules._milestones import Milestone
from optax_ext.schedules._piecewise import Constant, PiecewiseConstantDecay, StepCosineDecay
from optax_ext.schedules._polynomial import PolynomialDecay
from optax_ext.schedules._power import DirectPowerDecay, PowerAndLinearDecay, PowerDecay
from optax_ext.schedules._schedule import FractionOrSchedule, ScalarOrSchedule, Schedule, evaluate
from optax_ext.schedules._warmup import LinearWarmup, PolynomialWarmup
from optax_ext.schedules._warmup_stable_decay import DecayType, WarmupStableDecay
from optax_ext.schedules._words import rate_in_words, values_in_words

__all__ = [
    "Constant",
    "CosineDecay",
    "CosineDecayRestarts",
    "DecayType",
    "DirectPowerDecay",
    "ExponentialDecay",
    "FractionOrSchedule",
    "InverseTimeDecay",
    "JoinedSchedules",
    "LinearWarmup",
    "Milestone",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "PolynomialWarmup",
    "PowerAndLinearDecay",
    "PowerDecay",
    "ScalarOrSchedule",
    "Schedule",
    "StepCosineDecay",
    "WarmupStableDecay",
    "evaluate",
    "rate_in_words",
    "values_in_words",
]
