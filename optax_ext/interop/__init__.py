"""Recipes of TensorFlow's: configs of Keras, recipes of Model Garden and weights of its LARS, here and back."""

from typing import TYPE_CHECKING

from optax_ext._core.lazy import lazy_names

__all__ = [
    "TranslationWarning",
    "from_keras",
    "from_model_garden",
    "lars_state_from_weights",
    "lars_weights_from_state",
    "to_keras",
]

if TYPE_CHECKING:
    from optax_ext.interop._from_keras import from_keras
    from optax_ext.interop._model_garden import from_model_garden
    from optax_ext.interop._report import TranslationWarning
    from optax_ext.interop._to_keras import to_keras
    from optax_ext.interop._weights import lars_state_from_weights, lars_weights_from_state
else:
    __getattr__, __dir__ = lazy_names(
        __name__, __all__, ["_report", "_from_keras", "_model_garden", "_to_keras", "_weights"]
    )
