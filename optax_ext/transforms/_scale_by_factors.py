"""Factors on the updates of parameters: learning rates of their own, by path or by layer."""

from __future__ import annotations  # so that `help` shows types as they are written

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_ext._core.layers import StackedAxes
from optax_ext._core.precision import widen
from optax_ext._core.public import public
from optax_ext._core.synonyms import suggest_arguments
from optax_ext._core.trees import is_none
from optax_ext.masks import LayerFactors, PathFactors
from optax_ext.transforms._inexact import for_inexact

Factors = Callable[[optax.Params], Any]  # from parameters to a tree of numbers, or of arrays for stacks of layers


@public
@suggest_arguments
def scale_by_path(factors: Mapping[str, float], *, allow_unmatched: bool = False) -> optax.GradientTransformation:
    """Multiply the updates of parameters by factors, which patterns on their paths choose.

    After an optimizer it gives parameters learning rates of their own: ten times that of the others to the head, or
    none at all to what is frozen. Weight decay that is part of the update is multiplied too. An update that is not
    proportional to the learning rate, such as one of FTRL or of schedule-free learning, is no longer right.

    Args:
      factors: From regular expressions, searched for anywhere in a path, to numbers of at least 0. Other parameters
        have the factor 1. Patterns that match one parameter must have the same factor.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.

    Returns:
      A stateless transformation, whose updates keep their dtype. With a factor of 0 an update is 0, whatever it was.

    Raises:
      ValueError: If a pattern is not a regular expression or a factor is negative; of ``init`` and ``update``, if a
        pattern matches nothing, or if two patterns of one parameter have different factors.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> tx = optax.chain(optax.sgd(0.5), optax_ext.scale_by_path({"bias": 0.25}))
      >>> params = {"kernel": jnp.ones(1), "bias": jnp.ones(1)}
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> print(updates["kernel"], updates["bias"])
      [-0.5] [-0.125]
    """
    return scale_by_factors(PathFactors(factors, allow_unmatched))


@public
@suggest_arguments
def scale_by_layer_decay(
    decay: float,
    blocks: str,
    first: Sequence[str] = (),
    *,
    allow_unmatched: bool = False,
    stacked_axes: StackedAxes = None,
) -> optax.GradientTransformation:
    r"""Multiply the updates of each layer by a factor that falls from the last layer to the first.

    ```text
    factor = decay ** (n + 1 - layer)      for n blocks
    layer = 0                              of the parameters that `first` names, such as embeddings
    layer = i + 1                          of block i, counted from 0
    layer = n + 1                          of all others, such as the head
    ```

    It comes after an optimizer, as [`scale_by_path`][optax_ext.scale_by_path] does.

    Args:
      decay: Above 0 and at most 1.
      blocks: A regular expression that is found in the paths of blocks, with one group: the number of the block, as in
        ``"^blocks/(\d+)/"``. Blocks are numbered from 0 or 1, without gaps. Where a model keeps its blocks in one
        array, it has no group, as in ``"^blocks/"``, and the first of the ``stacked_axes`` counts the blocks.
      first: Regular expressions of the parameters before the blocks.
      allow_unmatched: Whether a pattern that matches no parameter is accepted.
      stacked_axes: The axes of leaves that count layers, as [`path_axes`][optax_ext.path_axes] makes them. A stack of
        blocks has a factor for each of its entries.

    Returns:
      A stateless transformation, whose updates keep their dtype.

    Raises:
      ValueError: If an argument is out of its range; of ``init`` and ``update``, if a pattern matches nothing, if a
        parameter is both of a block and of the first layer, or if blocks are not numbered without gaps.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from optax_ext import transforms
      >>> decay = transforms.scale_by_layer_decay(0.5, r"^blocks/(\d+)/", first=["^embed"])
      >>> tx = optax.chain(optax.sgd(1.0), decay)
      >>> params = {"embed": jnp.ones(1), "blocks": [{"w": jnp.ones(1)}, {"w": jnp.ones(1)}], "head": jnp.ones(1)}
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> print(updates["embed"], updates["blocks"][0]["w"], updates["blocks"][1]["w"], updates["head"])
      [-0.125] [-0.25] [-0.5] [-1.]

    References:
      Clark et al., ELECTRA, [arXiv:2003.10555](https://arxiv.org/abs/2003.10555), for the decay of rates by layer.
      Bao et al., BEiT, [arXiv:2106.08254](https://arxiv.org/abs/2106.08254), and He et al., MAE,
      [arXiv:2111.06377](https://arxiv.org/abs/2111.06377), for these layers of vision transformers.
    """
    factors = LayerFactors(decay, blocks, first, allow_unmatched=allow_unmatched, stacked_axes=stacked_axes)
    return scale_by_factors(factors)


@public
def scale_by_factors(factors: Factors) -> optax.GradientTransformation:
    """Multiply each update by a factor of its parameter, and keep its dtype.

    Args:
      factors: A function from parameters to a tree of numbers of at least 0, or a prefix of one, such as
        [`PathFactors`][optax_ext.masks.PathFactors]. An array, which must broadcast to its parameter, has a factor for
        each layer of a stack. The function is called on the updates.

    Returns:
      A stateless transformation. With the factor 1 an update stays as it is, and with 0 it is 0, whatever it was.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import masks, transforms
      >>> tx = transforms.scale_by_factors(masks.PathFactors({"bias": 0.5}))
      >>> grads = {"kernel": jnp.ones(1), "bias": jnp.ones(1)}
      >>> updates, _ = tx.update(grads, tx.init(grads))
      >>> print(updates["kernel"], updates["bias"])
      [1.] [0.5]
    """

    def init_fn(params: optax.Params) -> optax.OptState:
        factors(params)  # to find what does not fit
        return optax.EmptyState()

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        return jax.tree.map(_scale, updates, spread(factors, updates)), state

    return for_inexact(optax.GradientTransformation(init_fn, update_fn))


def spread(factors: Factors, tree: Any) -> Any:
    """Return a factor for each leaf of a tree, in its structure; None is kept where a leaf has none."""

    def same(factor: Any, below: Any) -> Any:
        return jax.tree.map(lambda leaf: None if leaf is None else factor, below, is_leaf=is_none)

    return jax.tree.map(same, factors(tree), tree)


def _scale(update: Any, factor: Any) -> Any:
    if np.ndim(factor) == 0 and factor == 1:
        return update
    if np.ndim(factor) == 0 and factor == 0:
        return jnp.zeros_like(update)  # also of what is not finite, and so that XLA need not compute it
    wide = widen(update)  # in bfloat16 the factor itself would be rounded to eight bits
    return (wide * jnp.asarray(factor, wide.dtype)).astype(update.dtype)
