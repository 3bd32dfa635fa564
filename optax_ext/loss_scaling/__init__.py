"""Loss scaling and skipped steps: what protects a run from bad gradients, around any optimizer."""

from typing import TYPE_CHECKING

from optax_ext._core.lazy import lazy_names

__all__ = [
    "LossScaleState",
    "MasterWeightsState",
    "NonfiniteCounts",
    "SkipBadStepsState",
    "dynamic_loss_scaling",
    "fixed_loss_scaling",
    "master_weights",
    "nonfinite_leaves",
    "raise_if_stalled",
    "scale_loss",
    "skip_bad_steps",
    "unscale",
    "value_and_grad",
]

if TYPE_CHECKING:
    from optax_ext.loss_scaling._diagnostics import NonfiniteCounts, nonfinite_leaves, raise_if_stalled
    from optax_ext.loss_scaling._dynamic import dynamic_loss_scaling
    from optax_ext.loss_scaling._fixed import fixed_loss_scaling
    from optax_ext.loss_scaling._master_weights import MasterWeightsState, master_weights
    from optax_ext.loss_scaling._skip_bad_steps import skip_bad_steps
    from optax_ext.loss_scaling._state import LossScaleState, SkipBadStepsState
    from optax_ext.loss_scaling._value_and_grad import scale_loss, unscale, value_and_grad
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        __all__,
        ["_diagnostics", "_dynamic", "_fixed", "_master_weights", "_skip_bad_steps", "_state", "_value_and_grad"],
    )
