"""Masks, labels, axes and factors of parameters, by their paths."""

from typing import TYPE_CHECKING

from optax_ext._core.lazy import lazy_names

__all__ = [
    "LayerFactors",
    "PathAxes",
    "PathFactors",
    "PathLabels",
    "PathMask",
    "path_axes",
    "path_labels",
    "path_mask",
]

if TYPE_CHECKING:
    from optax_ext.masks._layer_factors import LayerFactors
    from optax_ext.masks._path_axes import PathAxes, path_axes
    from optax_ext.masks._path_factors import PathFactors
    from optax_ext.masks._path_labels import PathLabels, path_labels
    from optax_ext.masks._path_mask import PathMask, path_mask
else:
    __getattr__, __dir__ = lazy_names(
        __name__, __all__, ["_path_mask", "_path_axes", "_path_labels", "_path_factors", "_layer_factors"]
    )
