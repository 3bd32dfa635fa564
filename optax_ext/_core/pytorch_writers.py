"""Told by its keys: whether a mapping is of transformers' Trainer or of timm's ``train.py``."""

from collections.abc import Mapping
from typing import Any, Literal

_TRAINER = frozenset(
    {"lr_scheduler_type", "per_device_train_batch_size", "num_train_epochs", "adam_beta1", "warmup_ratio", "optim"}
)


def pytorch_writer(data: Mapping[Any, Any]) -> Literal["training_arguments", "timm"] | None:
    """Return who wrote a mapping, or None if neither of the two did.

    Args:
      data: The mapping.

    Returns:
      ``"timm"`` where ``opt`` and ``sched`` are text, ``"training_arguments"`` for a key that only those have, unless a
      mapping is under it, as under a misspelled ``optimizer`` of ours.
    """
    if isinstance(data.get("opt"), str) and isinstance(data.get("sched"), str):
        return "timm"
    is_trainer = any(not isinstance(data[key], Mapping) for key in _TRAINER & data.keys())
    return "training_arguments" if is_trainer else None
