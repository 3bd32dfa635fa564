"""The field `stacked_axes`: what transformations take for it, and what it means in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from optax_ext import masks
from optax_ext._core.lazy import optax
from optax_ext.config._stage import Stage

FieldOfAxes = int | Sequence[int] | Mapping[str, int | Sequence[int] | None] | None


def make_axes(stacked_axes: FieldOfAxes, allow_unmatched: bool) -> Any:
    """Return the axes as transformations take them: a function from parameters to a tree where patterns choose."""
    if isinstance(stacked_axes, Mapping):
        axes: Any = stacked_axes
        return masks.path_axes(axes, allow_unmatched=allow_unmatched)
    return stacked_axes


def checking_stage(axes: Any) -> Stage:
    """Return the stage of an optimizer that takes no norm of a layer: it finds at `init` what does not fit."""
    from optax_ext._core.layers import layers_of  # here, since it imports JAX, for which reading a recipe does not wait

    def init_fn(params: Any) -> Any:
        layers_of(axes, params)
        return optax.EmptyState()

    effect = "nothing: stacked_axes is checked, but no stage takes the norm of a layer"
    return Stage("stacked axes", effect, optax.GradientTransformation(init_fn, optax.identity().update))


def layers_in_words(stacked_axes: FieldOfAxes) -> str:
    """Say what a layer is, as the end of a sentence; nothing where each parameter is one layer."""
    if stacked_axes is None:
        return ""
    if not isinstance(stacked_axes, Mapping):
        return f"; a layer is an entry of {_axes_in_words(stacked_axes)}"
    by_axes: dict[str, list[str]] = {}
    for pattern, axes in stacked_axes.items():
        if axes is not None:
            by_axes.setdefault(_axes_in_words(axes), []).append(repr(pattern))
    kinds = [f"of {axes} where a path has {' or '.join(patterns)}" for axes, patterns in by_axes.items()]
    return f"; a layer is an entry {', '.join(kinds)}" if kinds else ""


def _axes_in_words(axes: int | Sequence[int]) -> str:
    if isinstance(axes, int):
        return f"axis {axes}"
    return f"{'axes' if len(axes) > 1 else 'axis'} {' and '.join(map(str, axes))}"
