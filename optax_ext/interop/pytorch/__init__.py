"""Recipes of PyTorch: the arguments of transformers' Trainer and of timm's ``train.py``."""

from optax_ext.interop.pytorch._from_timm import from_timm, translate_timm
from optax_ext.interop.pytorch._from_training_arguments import from_training_arguments, translate_training_arguments

__all__ = [
    "from_timm",
    "from_training_arguments",
    "translate_timm",
    "translate_training_arguments",
]
