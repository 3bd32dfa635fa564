"""Factors of parameters that fall from the last layer of a model to the first."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from optax_ext._core.arguments import check_flag, check_number
from optax_ext._core.errors import join_words, shorten
from optax_ext._core.field_types import PositiveFraction, as_tuple
from optax_ext._core.layers import StackedAxes, check_stacked_axes
from optax_ext._core.public import public
from optax_ext._core.regexes import PathPattern, compile_numbered
from optax_ext._core.schema import plain_numbers
from optax_ext._core.trees import PyTree
from optax_ext.masks._parameters import Parameter, parameters_of
from optax_ext.masks._path_factors import require_all
from optax_ext.masks._path_mask import check_no_step, compile_patterns

_Layer = int | np.ndarray  # of a stack, the layer of each entry


@public
@dataclasses.dataclass(frozen=True)
class LayerFactors:
    r"""A factor of each parameter by its layer: 1 of the last, and ``decay`` times that of the next for each other.

    ```text
    factor = decay ** (n + 1 - layer)      for n blocks
    layer = 0                              of the parameters that `first` names, such as embeddings
    layer = i + 1                          of block i, counted from 0
    layer = n + 1                          of all others, such as the head
    ```

    A frozen value: picklable, equal to any other of the same patterns, and hashable unless its stacked axes are not.

    Args:
      decay: Above 0 and at most 1.
      blocks: A regular expression that is found in the paths of blocks, with one group: the number of the block, as in
        ``"^blocks/(\d+)/"``. Blocks are numbered from 0 or 1, without gaps. Where a model keeps its blocks in one
        array, it has no group, as in ``"^blocks/"``, and the first of the ``stacked_axes`` counts the blocks.
      first: Regular expressions of the parameters before the blocks.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.
      stacked_axes: The axes of leaves that count layers, as [`path_axes`][optax_ext.path_axes] makes them.

    Raises:
      ValueError: If an argument is out of its range; when it is called, if a pattern matches nothing, if a parameter is
        both of a block and of the first layer, or if blocks are not numbered without gaps.

    Examples:
      >>> from optax_ext import masks
      >>> factors = masks.LayerFactors(0.5, r"^blocks_(\d+)/", first=["^embed/"])
      >>> params = {"embed": {"w": 1.0}, "blocks_0": {"w": 1.0}, "blocks_1": {"w": 1.0}, "head": {"w": 1.0}}
      >>> factors(params)
      {'blocks_0': {'w': 0.25}, 'blocks_1': {'w': 0.5}, 'embed': {'w': 0.125}, 'head': {'w': 1.0}}
    """

    decay: float
    blocks: str
    first: Sequence[str] = ()
    allow_unmatched: bool = dataclasses.field(default=False, kw_only=True)
    stacked_axes: StackedAxes = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        decay: Any = plain_numbers(self.decay)
        check_number("decay", decay, PositiveFraction)
        object.__setattr__(self, "decay", float(decay))
        self._compile_blocks()
        first: Any = as_tuple(self.first)
        if not isinstance(first, tuple) or not all(isinstance(pattern, str) for pattern in first):
            raise ValueError(f"first must be a list of regular expressions, got {shorten(self.first)}")
        object.__setattr__(self, "first", first)
        _compile_first(first)
        check_flag("allow_unmatched", self.allow_unmatched)
        check_stacked_axes("stacked_axes", self.stacked_axes)

    def __call__(self, params: PyTree) -> PyTree:
        """Return a tree of numbers in the structure of ``params``, and of arrays where blocks are stacked."""
        check_no_step("scale_by_layer_decay", ("decay",), params)
        pattern, numbered = self._compile_blocks()
        first = _compile_first(tuple(self.first))
        parameters, structure = parameters_of(params, self.stacked_axes)
        if not self.allow_unmatched:
            require_all([pattern, *first], parameters)
        layers = [self._layer(parameter, pattern, numbered, first) for parameter in parameters]
        before, blocks = _count_blocks(layers, [p for p in parameters if pattern.matches(p.path, None)], numbered)
        factors = [self._factor(layer, before, blocks) for layer in layers]
        return structure.unflatten(factors)

    def _layer(
        self, parameter: Parameter, pattern: PathPattern, numbered: re.Pattern[str], first: Sequence[PathPattern]
    ) -> _Layer | str:
        """Return the number of a block, as it is written; "first" or "last" of all others."""
        path = parameter.path
        of_first = next((pattern.text for pattern in first if pattern.matches(path, parameter.rank)), None)
        if not pattern.matches(path, None):
            return "last" if of_first is None else "first"
        if of_first is not None and parameter.leaf is not None:
            text = f"the parameter {path!r} must be in one layer, got that of a block by {pattern.text!r}"
            raise ValueError(f"{text} and the first by {of_first!r}")
        if numbered.groups == 1:
            found = numbered.search(path)
            number = None if found is None else found[1]
            if number is None or not re.fullmatch(r"[0-9]{1,6}", number):
                text = f"the group of blocks = {pattern.text!r} must be a number in every path"
                raise ValueError(f"{text}, got {shorten(number)} in {path!r}")
            return int(number)
        if parameter.leaf is None:
            return "last"  # a hole, whose factor has no effect
        if not parameter.layers.axes:
            text = f"blocks must have a group that is the number of the block, as in '^blocks/(\\d+)/', got {path!r}"
            raise ValueError(f"{text} by {pattern.text!r}, which has none, and no axis in stacked_axes")
        axis = parameter.layers.axes[0]
        shape = [-1 if other == axis else 1 for other in range(parameter.leaf.ndim)]
        return np.arange(parameter.leaf.shape[axis]).reshape(shape)

    def _factor(self, layer: _Layer | str, before: int, blocks: int) -> Any:
        if isinstance(layer, str):
            return self.decay ** (blocks + 1) if layer == "first" else 1.0
        steps = blocks - (layer - before)
        return self.decay**steps if isinstance(steps, int) else np.power(self.decay, steps)

    def _compile_blocks(self) -> tuple[PathPattern, re.Pattern[str]]:
        if not isinstance(self.blocks, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"blocks must be a regular expression, got {shorten(self.blocks)}")
        try:
            return compile_numbered(self.blocks)
        except ValueError as error:
            raise ValueError(f"blocks must be a regular expression, got {shorten(self.blocks)}: {error}") from None


def _compile_first(first: tuple[str, ...]) -> tuple[PathPattern, ...]:
    return compile_patterns(first, "first must hold regular expressions", "first is too long a list")


def _count_blocks(
    layers: Sequence[_Layer | str], of_blocks: Sequence[Parameter], numbered: re.Pattern[str]
) -> tuple[int, int]:
    """Return the number of the first block, and how many blocks there are."""
    numbers = sorted({layer for layer in layers if isinstance(layer, int)})
    if numbers and (numbers[0] > 1 or len(numbers) != numbers[-1] - numbers[0] + 1):
        raise ValueError(
            f"blocks must be numbered from 0 or 1 without gaps, got {join_words(map(str, numbers))} by "
            f"{numbered.pattern!r}"
        )
    if numbers or not of_blocks:
        return (numbers[0], len(numbers)) if numbers else (0, 0)
    sizes = {
        parameter.leaf.shape[parameter.layers.axes[0]]: parameter.path for parameter in of_blocks if _has(parameter)
    }
    if len(sizes) > 1:
        each = ", ".join(f"{size} of {path!r}" for size, path in sizes.items())
        raise ValueError(f"every stack of blocks must have as many of them, got {each}")
    if not sizes:
        raise ValueError(
            f"blocks are stacked, but all that {numbered.pattern!r} matches is masked out, so that their number is not "
            "known: give the layer decay to what holds all groups"
        )
    return 0, next(iter(sizes))


def _has(parameter: Parameter) -> bool:
    return parameter.leaf is not None and jax.numpy.ndim(parameter.leaf) > 0
