"""Recipes of TensorFlow Model Garden."""

from optax_ext.interop.model_garden._from_model_garden import from_model_garden, translate_model_garden

__all__ = ["from_model_garden", "translate_model_garden"]
