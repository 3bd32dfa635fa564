"""Masks: which parameters a transformation applies to, by their paths."""

from typing import TYPE_CHECKING

from optax_ext._core.lazy import lazy_names

__all__ = ["PathMask", "path_mask"]

if TYPE_CHECKING:
    from optax_ext.masks._path_mask import PathMask, path_mask
else:
    __getattr__, __dir__ = lazy_names(__name__, __all__, ["_path_mask"])
