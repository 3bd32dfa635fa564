"""Factors of the learning rate of parameters: what multiplies updates, and what it means in words."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from optax_ext import masks, transforms
from optax_ext._core.lazy import jax, np
from optax_ext.config._layer_decay import LayerDecay
from optax_ext.config._stage import Stage

NAME = "learning rate factors"
Factors = Callable[[Any], Any]  # from parameters to a tree of numbers, or of arrays for stacks of layers


class RateFactors(NamedTuple):
    """Factors of the learning rate by one field.

    Attributes:
      factors: A function from parameters to their factors.
      words: What the factors are.
      are_one: Whether every factor is 1.
      has_zero: Whether some parameters do not move.
    """

    factors: Factors
    words: str
    are_one: bool
    has_zero: bool


def by_pattern(multipliers: Mapping[str, float], allow_unmatched: bool) -> RateFactors:
    """Return the factors of the field ``learning_rate_multipliers``."""
    words = ", ".join(f"{factor:.10g} where a path has {pattern!r}" for pattern, factor in multipliers.items())
    values = {*multipliers.values()}
    return RateFactors(masks.PathFactors(multipliers, allow_unmatched), words, values == {1.0}, 0 in values)


def by_layer(layer_decay: LayerDecay, axes: Any, allow_unmatched: bool) -> RateFactors:
    """Return the factors of the field ``layer_decay``."""
    factors = layer_decay.make(stacked_axes=axes, allow_unmatched=allow_unmatched)
    return RateFactors(factors, layer_decay.in_words(), layer_decay.decay == 1, has_zero=False)


def product(parts: Sequence[RateFactors]) -> Factors | None:
    """Return the factors of several fields, multiplied; None for no fields."""
    if len(parts) < 2:
        return parts[0].factors if parts else None
    return lambda params: jax.tree.map(
        lambda *each: np.prod(np.broadcast_arrays(*each), axis=0)[()], *_each(parts, params)
    )


def _each(parts: Sequence[RateFactors], params: Any) -> list[Any]:
    return [part.factors(params) for part in parts]


def factor_stages(parts: Sequence[RateFactors]) -> list[Stage]:
    """Return the stage that multiplies updates, which comes directly after the learning rate; none for no factors."""
    factors = product(parts)
    if factors is None:
        return []
    words = f"times a factor of each parameter: {'; and '.join(part.words for part in parts)}"
    if all(part.are_one for part in parts):
        words = "nothing: every factor is 1"
    return [Stage(NAME, words, transforms.scale_by_factors(factors))]


def freezing_stages(parts: Sequence[RateFactors]) -> list[Stage]:
    """Return the last stage of a rule with factors of 0: no weight decay and no rounding error moves a parameter."""
    factors = product([part for part in parts if part.has_zero])
    if factors is None:
        return []

    def moves(params: Any) -> Any:
        return jax.tree.map(lambda factor: float(factor != 0), factors(params))

    return [Stage("freeze", "no update where the factor is 0", transforms.scale_by_factors(moves))]
