"""Configs of Keras, here and back."""

from optax_ext.interop.keras._from_keras import from_keras, translate_keras
from optax_ext.interop.keras._to_keras import to_keras

__all__ = ["from_keras", "to_keras", "translate_keras"]
