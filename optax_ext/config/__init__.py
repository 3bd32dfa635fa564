"""Recipes as data: schemas of optimizers, schedules and loss scales, read, written and checked."""

from optax_ext._core.errors import ConfigError, Problem
from optax_ext.config._adadelta import Adadelta
from optax_ext.config._adafactor import Adafactor
from optax_ext.config._adagrad import Adagrad
from optax_ext.config._adam import Adam
from optax_ext.config._adamax import Adamax
from optax_ext.config._adamw import AdamW
from optax_ext.config._carry_over import carry_over
from optax_ext.config._codec import from_dict, to_dict
from optax_ext.config._files import load, save
from optax_ext.config._frozen import Frozen
from optax_ext.config._ftrl import Ftrl
from optax_ext.config._group import Group
from optax_ext.config._json_schema import json_schema
from optax_ext.config._lamb import LAMB
from optax_ext.config._lars import LARS
from optax_ext.config._layer_decay import LayerDecay
from optax_ext.config._lion import Lion
from optax_ext.config._loss_scale import DynamicLossScale, FixedLossScale, LossScale
from optax_ext.config._muon import Muon
from optax_ext.config._nadam import Nadam
from optax_ext.config._optax import Optax
from optax_ext.config._optimizer import Optimizer
from optax_ext.config._override import override
from optax_ext.config._params_ema import ParamsEma
from optax_ext.config._partition import Partition
from optax_ext.config._patterns import PatternField
from optax_ext.config._recipe import OptimizationConfig
from optax_ext.config._rmsprop import RMSprop
from optax_ext.config._run import Run, resolve
from optax_ext.config._schedule_free_adamw import ScheduleFreeAdamW
from optax_ext.config._sgd import SGD
from optax_ext.config._stage import Stage
from optax_ext.config._update_rule import UpdateRule

__all__ = [
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "ConfigError",
    "DynamicLossScale",
    "FixedLossScale",
    "Frozen",
    "Ftrl",
    "Group",
    "LAMB",
    "LARS",
    "LayerDecay",
    "Lion",
    "LossScale",
    "Muon",
    "Nadam",
    "Optax",
    "OptimizationConfig",
    "Optimizer",
    "ParamsEma",
    "Partition",
    "PatternField",
    "Problem",
    "RMSprop",
    "Run",
    "SGD",
    "ScheduleFreeAdamW",
    "Stage",
    "UpdateRule",
    "carry_over",
    "from_dict",
    "json_schema",
    "load",
    "override",
    "resolve",
    "save",
    "to_dict",
]
