"""Masks: which parameters a transformation applies to, by their paths."""

from optax_ext.masks._path_mask import PathMask, path_mask

__all__ = ["PathMask", "path_mask"]
