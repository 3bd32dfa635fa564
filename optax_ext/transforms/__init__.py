"""Gradient transformations that compose into `optax.chain`: `lars`, `lamb`, and the pieces of these and of recipes."""

from typing import TYPE_CHECKING

from optax_ext._core.lazy import lazy_names

__all__ = [
    "FrozenUntilState",
    "FtrlState",
    "NadamState",
    "ParamsEmaState",
    "ScheduleFreeState",
    "TrustRatioState",
    "accumulate_gradients",
    "add_decayed_weights",
    "add_momentum",
    "after_weight_decay",
    "chain",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_rms",
    "ema_params",
    "frozen_until",
    "ftrl",
    "lamb",
    "lars",
    "params_ema",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_factored_rms",
    "scale_by_factors",
    "scale_by_layer_decay",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_muon",
    "scale_by_nadam",
    "scale_by_param_rms",
    "scale_by_path",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_trust_ratio",
    "schedule_free",
    "schedule_free_eval_params",
    "stages_of",
    "subtract_decayed_weights",
]

if TYPE_CHECKING:
    from optax_ext.transforms._accumulation import accumulate_gradients
    from optax_ext.transforms._adadelta import scale_by_adadelta
    from optax_ext.transforms._adagrad import scale_by_rss
    from optax_ext.transforms._adam import scale_by_adam
    from optax_ext.transforms._adamax import scale_by_adamax
    from optax_ext.transforms._chain import chain, stages_of
    from optax_ext.transforms._clipping import clip_by_global_norm, clip_by_norm
    from optax_ext.transforms._factored_rms import scale_by_factored_rms
    from optax_ext.transforms._frozen_until import FrozenUntilState, frozen_until
    from optax_ext.transforms._ftrl import FtrlState, ftrl
    from optax_ext.transforms._lamb import lamb
    from optax_ext.transforms._lars import lars
    from optax_ext.transforms._learning_rate import scale_by_learning_rate
    from optax_ext.transforms._lion import scale_by_lion
    from optax_ext.transforms._momentum import add_momentum
    from optax_ext.transforms._muon import scale_by_muon
    from optax_ext.transforms._nadam import NadamState, scale_by_nadam
    from optax_ext.transforms._params_ema import ParamsEmaState, ema_params, params_ema
    from optax_ext.transforms._rmsprop import scale_by_rms
    from optax_ext.transforms._root_mean_square import clip_by_rms, scale_by_param_rms
    from optax_ext.transforms._scale_by_factors import scale_by_factors, scale_by_layer_decay, scale_by_path
    from optax_ext.transforms._schedule_free import ScheduleFreeState, schedule_free, schedule_free_eval_params
    from optax_ext.transforms._trust_ratio import TrustRatioState, scale_by_trust_ratio
    from optax_ext.transforms._weight_decay import add_decayed_weights, after_weight_decay, subtract_decayed_weights
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        __all__,
        [
            "_accumulation",
            "_adadelta",
            "_adagrad",
            "_adam",
            "_adamax",
            "_chain",
            "_clipping",
            "_factored_rms",
            "_frozen_until",
            "_ftrl",
            "_lamb",
            "_lars",
            "_learning_rate",
            "_lion",
            "_momentum",
            "_muon",
            "_nadam",
            "_params_ema",
            "_rmsprop",
            "_root_mean_square",
            "_scale_by_factors",
            "_schedule_free",
            "_trust_ratio",
            "_weight_decay",
        ],
    )
