"""The state of an optimizer that Keras saved, as ours, and that of a LARS back."""

from optax_ext.interop.states._state_from_file import state_from_file
from optax_ext.interop.states._weights import lars_state_from_weights, lars_weights_from_state

__all__ = ["lars_state_from_weights", "lars_weights_from_state", "state_from_file"]
