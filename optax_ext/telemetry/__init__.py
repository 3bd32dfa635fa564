"""Telemetry: what the last step did, read from the optimizer state."""

from typing import TYPE_CHECKING

from optax_ext._core.lazy import lazy_names

__all__ = ["metrics"]

if TYPE_CHECKING:
    from optax_ext.telemetry._metrics import metrics
else:
    __getattr__, __dir__ = lazy_names(__name__, __all__, ["_metrics"])
