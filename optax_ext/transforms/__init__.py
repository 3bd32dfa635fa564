"""Gradient transformations that compose into `optax.chain`."""

from optax_ext.transforms._lamb import lamb
from optax_ext.transforms._lars import lars
from optax_ext.transforms._loss_scale_state import LossScaleState
from optax_ext.transforms._loss_scaling import dynamic_loss_scaling, fixed_loss_scaling
from optax_ext.transforms._masks import path_mask
from optax_ext.transforms._master_weights import MasterWeightsState, master_weights
from optax_ext.transforms._nonfinite import NonfiniteCounts, nonfinite_leaves, raise_if_stalled
from optax_ext.transforms._params_ema import ParamsEmaState, ema_params, params_ema
from optax_ext.transforms._scaled_loss import scale_loss, unscale, value_and_grad
from optax_ext.transforms._trust_ratio import scale_by_trust_ratio

__all__ = [
    "LossScaleState",
    "MasterWeightsState",
    "NonfiniteCounts",
    "ParamsEmaState",
    "dynamic_loss_scaling",
    "ema_params",
    "fixed_loss_scaling",
    "lamb",
    "lars",
    "master_weights",
    "nonfinite_leaves",
    "params_ema",
    "path_mask",
    "raise_if_stalled",
    "scale_by_trust_ratio",
    "scale_loss",
    "unscale",
    "value_and_grad",
]
