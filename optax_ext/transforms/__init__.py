"""Gradient transformations that compose into `optax.chain`: `lars`, `lamb`, and the pieces of these and of recipes."""

from optax_ext.transforms._adagrad import scale_by_rss
from optax_ext.transforms._adam import scale_by_adam
from optax_ext.transforms._chain import chain, stages_of
from optax_ext.transforms._clipping import clip_by_global_norm, clip_by_norm
from optax_ext.transforms._lamb import lamb
from optax_ext.transforms._lars import lars
from optax_ext.transforms._momentum import add_momentum
from optax_ext.transforms._params_ema import ParamsEmaState, ema_params, params_ema
from optax_ext.transforms._rmsprop import scale_by_rms
from optax_ext.transforms._trust_ratio import scale_by_trust_ratio

__all__ = [
    "ParamsEmaState",
    "add_momentum",
    "chain",
    "clip_by_global_norm",
    "clip_by_norm",
    "ema_params",
    "lamb",
    "lars",
    "params_ema",
    "scale_by_adam",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_trust_ratio",
    "stages_of",
]
