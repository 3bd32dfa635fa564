"""TensorFlow Model Garden's optimization package for JAX: schedules, LARS and loss scaling for Optax."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # at run time `__getattr__` imports each name when it is first used
    from optax_ext import config, interop
    from optax_ext.loss_scaling import (
        LossScaleState,
        MasterWeightsState,
        NonfiniteCounts,
        dynamic_loss_scaling,
        fixed_loss_scaling,
        master_weights,
        nonfinite_leaves,
        raise_if_stalled,
        scale_loss,
        unscale,
        value_and_grad,
    )
    from optax_ext.masks import path_mask
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
    from optax_ext.transforms import ParamsEmaState, ema_params, lamb, lars, params_ema, scale_by_trust_ratio

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
    "MasterWeightsState",
    "NonfiniteCounts",
    "ParamsEmaState",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "PolynomialWarmup",
    "PowerAndLinearDecay",
    "PowerDecay",
    "Schedule",
    "StepCosineDecay",
    "config",
    "dynamic_loss_scaling",
    "ema_params",
    "fixed_loss_scaling",
    "interop",
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

_ROOMS = ("schedules", "masks", "transforms", "loss_scaling")  # where the other names are, least to import first


def __getattr__(name: str) -> Any:
    """Import a public name from its room when it is first used, so that ``optax-ext --help`` need not wait for JAX."""
    if name in (*_ROOMS, "config", "interop"):
        return importlib.import_module(f"{__name__}.{name}")
    if name in __all__:
        for room in _ROOMS:
            module = importlib.import_module(f"{__name__}.{room}")
            if name in module.__all__:
                return globals().setdefault(name, getattr(module, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
