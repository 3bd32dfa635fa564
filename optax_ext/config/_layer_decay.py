"""Learning rates that fall from the last layer to the first, as data."""

import dataclasses
from typing import Annotated, Any

import pydantic

from optax_ext import masks
from optax_ext._core.errors import shorten
from optax_ext._core.field_types import Pattern, Patterns, PositiveFraction
from optax_ext._core.regexes import compile_numbered
from optax_ext._core.schema import Schema, problem


def _is_numbered(pattern: str) -> str:
    try:
        compile_numbered(pattern)
    except ValueError as error:
        raise problem(f"must be a regular expression, got {shorten(pattern)}: {error}") from None
    return pattern


@dataclasses.dataclass(frozen=True)
class LayerDecay(Schema):
    r"""Factors of the learning rate that fall from the last layer to the first, as data.

    ```text
    factor = decay ** (n + 1 - layer)      for n blocks
    layer = 0                              of the parameters that `first` names, such as embeddings
    layer = i + 1                          of block i, counted from 0
    layer = n + 1                          of all others, such as the head
    ```

    The field ``layer_decay`` of an optimizer takes it, or a mapping of these arguments. A parameter that stands before
    the blocks and that ``first`` does not name has the factor of the head.

    Args:
      decay: Above 0 and at most 1.
      blocks: A regular expression that is found in the paths of blocks, with one group: the number of the block, as in
        ``"^blocks/(\d+)/"``. Blocks are numbered from 0 or 1, without gaps. Where a model keeps its blocks in one
        array, it has no group, as in ``"^blocks/"``, and the first of the ``stacked_axes`` counts the blocks.
      first: Regular expressions of the parameters before the blocks.

    Raises:
      ConfigError: If an argument is not valid.

    Examples:
      >>> from optax_ext import config
      >>> layer_decay = config.LayerDecay(0.75, r"^blocks/(\d+)/", first=["^patch_embed/", "pos_embed", "cls_token"])
      >>> tx = config.AdamW(1e-3, weight_decay_rate=0.05, layer_decay=layer_decay).make()

    References:
      Clark et al., ELECTRA, [arXiv:2003.10555](https://arxiv.org/abs/2003.10555).
      He et al., MAE, [arXiv:2111.06377](https://arxiv.org/abs/2111.06377), appendix A.1.
    """

    decay: PositiveFraction
    blocks: Annotated[Pattern, pydantic.AfterValidator(_is_numbered)]
    first: Patterns = ()

    def make(self, *, stacked_axes: Any = None, allow_unmatched: bool = False) -> "masks.LayerFactors":
        """Return the function from parameters to their factors."""
        return masks.LayerFactors(
            self.decay, self.blocks, self.first, stacked_axes=stacked_axes, allow_unmatched=allow_unmatched
        )

    def in_words(self) -> str:
        """Say what the factors are."""
        first = f", down to those with {' or '.join(map(repr, self.first))}" if self.first else ""
        return f"{self.decay:.10g} once for each layer after it, of the blocks '{self.blocks}'{first}"
