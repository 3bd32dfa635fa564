"""Masks: which parameters a transformation applies to, and which of their axes count layers, by their paths."""

from typing import TYPE_CHECKING

from optax_ext._core.lazy import lazy_names

__all__ = ["PathAxes", "PathMask", "path_axes", "path_mask"]

if TYPE_CHECKING:
    from optax_ext.masks._path_axes import PathAxes, path_axes
    from optax_ext.masks._path_mask import PathMask, path_mask
else:
    __getattr__, __dir__ = lazy_names(__name__, __all__, ["_path_mask", "_path_axes"])
