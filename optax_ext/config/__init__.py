"""Recipes as data: schemas of optimizers, schedules and loss scales, read, written and checked."""

from optax_ext._schema import ConfigError, Problem
from optax_ext.config._codec import from_dict, to_dict
from optax_ext.config._files import load, save
from optax_ext.config._json_schema import json_schema
from optax_ext.config._loss_scale import DynamicLossScale, FixedLossScale, LossScale
from optax_ext.config._optimization import OptimizationConfig
from optax_ext.config._optimizers import LARS, SGD, Optimizer

__all__ = [
    "ConfigError",
    "DynamicLossScale",
    "FixedLossScale",
    "LARS",
    "LossScale",
    "OptimizationConfig",
    "Optimizer",
    "Problem",
    "SGD",
    "from_dict",
    "json_schema",
    "load",
    "save",
    "to_dict",
]
