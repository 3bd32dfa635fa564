"""Recipes of TensorFlow and PyTorch: of Keras, with a way back, Model Garden, transformers' Trainer and timm.

[`from_file`][optax_ext.interop.from_file] reads them from whatever they were saved in, and
[`state_from_file`][optax_ext.interop.state_from_file] the state of an optimizer that Keras saved.
"""

from typing import TYPE_CHECKING

from optax_ext._core.lazy import lazy_names

__all__ = [
    "Note",
    "Translation",
    "TranslationWarning",
    "from_file",
    "from_keras",
    "from_model_garden",
    "from_timm",
    "from_training_arguments",
    "identify_writer",
    "lars_state_from_weights",
    "lars_weights_from_state",
    "state_from_file",
    "to_keras",
    "translate",
    "translate_timm",
    "translate_training_arguments",
]

if TYPE_CHECKING:
    from optax_ext.interop._from_file import from_file
    from optax_ext.interop._translate import identify_writer, translate
    from optax_ext.interop._translation import Note, Translation, TranslationWarning
    from optax_ext.interop.keras import from_keras, to_keras
    from optax_ext.interop.model_garden import from_model_garden
    from optax_ext.interop.pytorch import (
        from_timm,
        from_training_arguments,
        translate_timm,
        translate_training_arguments,
    )
    from optax_ext.interop.states import lars_state_from_weights, lars_weights_from_state, state_from_file
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        __all__,
        [
            "_translation",
            "keras",
            "model_garden",
            "pytorch",
            "_translate",
            "_from_file",
            "states",
        ],
    )
