"""Checks for the arguments of transformations."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from optax_ext._core.errors import shorten
from optax_ext._core.field_types import NonNegativeNumber
from optax_ext._core.schema import explain, plain_numbers

Scalar = float | jax.Array
_Integer = TypeVar("_Integer", bound=float | jax.Array)
Mask = Any | Callable[[optax.Params], Any]


def is_concrete(*values: object) -> bool:
    """Whether no value is traced; `optax.inject_hyperparams` passes traced values, which cannot be checked."""
    return not any(isinstance(value, Tracer) for value in values)


def is_eager(*values: object) -> bool:
    """Whether neither the values nor new arrays are traced; in a branch of `lax.cond`, new arrays are."""
    return is_concrete(*values, jnp.zeros([], jnp.int32) + 0)


def check_number(name: str, value: object, accepted: Any, *, or_infinite: bool = False) -> None:
    """Raise ValueError unless `value` is traced, or what a field of the type `accepted` takes: one of `field_types`."""
    value = plain_numbers(value)
    if not is_concrete(value) or (or_infinite and value == float("inf")):
        return
    wrong = explain(accepted, value)
    if wrong is None and not isinstance(value, int | float):  # pydantic takes a Decimal too, which JAX does not
        wrong = f"must be a number, got {shorten(value)}"
    if wrong is not None:
        raise ValueError(f"{name} {wrong}")


def check_integer(name: str, value: _Integer, accepted: Any) -> _Integer:
    """Return a number that `check_number` takes for an integer; 2e3 as 2000, since counts are compared exactly."""
    check_number(name, value, accepted)
    is_float = is_concrete(value) and jnp.issubdtype(jnp.result_type(value), jnp.floating)
    return cast(_Integer, int(value)) if is_float else value


def check_rate(name: str, value: object, accepted: Any = NonNegativeNumber) -> None:
    """Raise ValueError unless `value` is a schedule or a number that a field of the type `accepted` takes.

    A class is callable too, but calling it with a step would construct a schedule rather than evaluate one.
    """
    if isinstance(value, type):
        name_of_class = value.__name__
        raise ValueError(
            f"{name} must be a schedule, got the class {name_of_class}: construct it, {name_of_class}(...)"
        )
    value = plain_numbers(value)
    if callable(value) or not is_concrete(value):
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number or a schedule, got {shorten(value)}")
    check_number(name, value, accepted)


def check_flag(name: str, value: object) -> None:
    """Raise ValueError unless `value` is a bool; text such as "no" would count as true."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def check_transformation(name: str, value: object) -> None:
    """Raise ValueError unless `value` is an Optax transformation."""
    if not isinstance(value, optax.GradientTransformation):
        method = "gradient_transformation" if isinstance(value, optax.MultiSteps) else "make"
        hint = f": call its {method}()" if hasattr(value, method) and not isinstance(value, type) else ""
        raise ValueError(f"{name} must be an optax.GradientTransformation, got {value!r}{hint}")


def check_mask(name: str, mask: Mask | None, stacked_axes: Any = None) -> Mask:
    """Return a mask, where None means every parameter; raise ValueError unless it is a function or a tree of bool.

    A mask that chooses by rank learns which axes only count layers.
    """
    with_stacked_axes = getattr(mask, "with_stacked_axes", None)  # of a PathMask
    if stacked_axes is not None and with_stacked_axes is not None:
        mask = with_stacked_axes(stacked_axes)
    if mask is None:
        return True
    if not callable(mask) and not all(isinstance(leaf, bool | np.bool_) for leaf in jax.tree.leaves(mask)):
        raise ValueError(
            f"{name} must be a tree of bool, or a function from parameters to one such as "
            f"path_mask(exclude=[...]), got {mask!r}"
        )
    return mask
