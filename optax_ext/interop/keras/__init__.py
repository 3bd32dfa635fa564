"""Configs of Keras, here and back; and its classes with their quirks, of which Model Garden's recipes are made."""

from optax_ext.interop.keras._classes import KerasClass, find_class
from optax_ext.interop.keras._from_keras import from_keras, translate_keras
from optax_ext.interop.keras._quirks import Arguments, build_optimizer, build_recipe
from optax_ext.interop.keras._to_keras import to_keras

__all__ = [
    "Arguments",
    "KerasClass",
    "build_optimizer",
    "build_recipe",
    "find_class",
    "from_keras",
    "to_keras",
    "translate_keras",
]
