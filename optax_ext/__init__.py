"""TensorFlow Model Garden's optimization package for JAX: schedules, LARS and loss scaling for Optax."""

from typing import TYPE_CHECKING

from optax_ext._core.lazy import lazy_names

__version__: str  # is looked up when it is first read

__all__ = [
    "Constant",
    "CosineDecay",
    "CosineDecayRestarts",
    "DirectPowerDecay",
    "ExponentialDecay",
    "InverseTimeDecay",
    "JoinedSchedules",
    "LinearWarmup",
    "LossScaleState",
    "MasterWeightsState",
    "NonfiniteCounts",
    "ParamsEmaState",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "PolynomialWarmup",
    "PowerAndLinearDecay",
    "PowerDecay",
    "Schedule",
    "SkipBadStepsState",
    "StepCosineDecay",
    "WarmupStableDecay",
    "config",
    "dynamic_loss_scaling",
    "ema_params",
    "fixed_loss_scaling",
    "interop",
    "lamb",
    "lars",
    "master_weights",
    "metrics",
    "nonfinite_leaves",
    "params_ema",
    "path_axes",
    "path_labels",
    "path_mask",
    "raise_if_stalled",
    "scale_by_path",
    "scale_by_trust_ratio",
    "scale_loss",
    "skip_bad_steps",
    "unscale",
    "value_and_grad",
]

if TYPE_CHECKING:  # at run time each name is imported when it is first used, so that `optax-ext --help` is quick
    from optax_ext import config, interop
    from optax_ext.loss_scaling import (
        LossScaleState,
        MasterWeightsState,
        NonfiniteCounts,
        SkipBadStepsState,
        dynamic_loss_scaling,
        fixed_loss_scaling,
        master_weights,
        nonfinite_leaves,
        raise_if_stalled,
        scale_loss,
        skip_bad_steps,
        unscale,
        value_and_grad,
    )
    from optax_ext.masks import path_axes, path_labels, path_mask
    from optax_ext.schedules import (
        Constant,
        CosineDecay,
        CosineDecayRestarts,
        DirectPowerDecay,
        ExponentialDecay,
        InverseTimeDecay,
        JoinedSchedules,
        LinearWarmup,
        PiecewiseConstantDecay,
        PolynomialDecay,
        PolynomialWarmup,
        PowerAndLinearDecay,
        PowerDecay,
        Schedule,
        StepCosineDecay,
        WarmupStableDecay,
    )
    from optax_ext.telemetry import metrics
    from optax_ext.transforms import (
        ParamsEmaState,
        ema_params,
        lamb,
        lars,
        params_ema,
        scale_by_path,
        scale_by_trust_ratio,
    )
else:
    _import_name, __dir__ = lazy_names(
        __name__,
        [*__all__, "__version__"],
        ["schedules", "masks", "transforms", "loss_scaling", "telemetry", "config", "interop"],
    )

    def __getattr__(name):
        if name != "__version__":
            return _import_name(name)
        from pathlib import Path

        from optax_ext._core.version import find_version

        return globals().setdefault("__version__", find_version(Path(__file__).parents[1]))
