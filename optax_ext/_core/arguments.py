"""Checks for the arguments of transformations."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from optax_ext._core.field_types import FLOAT32_MAX, FLOAT32_TINY

Scalar = float | jax.Array
Mask = Any | Callable[[optax.Params], Any]

_RANGES = {
    "at least 0": lambda x: x >= 0,
    "more than 0": lambda x: x > 0,
    "at least 1": lambda x: x >= 1,
    "more than 1": lambda x: x > 1,
    "in [0, 1]": lambda x: 0 <= x <= 1,
    "in [0, 1)": lambda x: 0 <= x < 1,
}


def is_concrete(*values: object) -> bool:
    """Whether no value is traced; `optax.inject_hyperparams` passes traced values, which cannot be checked."""
    return not any(isinstance(value, Tracer) for value in values)


def is_eager(*values: object) -> bool:
    """Whether neither the values nor new arrays are traced; in a branch of `lax.cond`, new arrays are."""
    return is_concrete(*values, jnp.zeros([], jnp.int32) + 0)


def check_number(name: str, value: object, accepted: str, *, integer: bool = False, or_infinite: bool = False) -> None:
    """Raise ValueError unless `value` is traced, or a number in the range named by `accepted` that fits float32."""
    if not is_concrete(value) or (or_infinite and isinstance(value, float | jax.Array) and np.isposinf(value)):
        return
    kind = "an integer" if integer else "a finite, normal float32 number"
    if not _is_number(value, integer) or not _RANGES[accepted](float(value)):  # pyright: ignore[reportArgumentType]
        raise ValueError(f"{name} must be {kind}, {accepted}; got {value!r}")


def _is_number(value: object, integer: bool) -> bool:
    if not isinstance(value, int | float | np.generic | np.ndarray | jax.Array) or np.ndim(value):
        return False
    dtype = np.asarray(value).dtype
    if not (jnp.issubdtype(dtype, jnp.integer) or (not integer and jnp.issubdtype(dtype, jnp.floating))):
        return False
    magnitude = abs(float(value))
    return magnitude == 0 or FLOAT32_TINY <= magnitude <= FLOAT32_MAX


def check_rate(name: str, value: object) -> None:
    """Raise ValueError unless `value` is a schedule or a finite float32 number that is at least 0.

    A class is callable too, but calling it with a step would construct a schedule rather than evaluate one.
    """
    if isinstance(value, type):
        name_of_class = value.__name__
        raise ValueError(
            f"{name} must be a schedule, got the class {name_of_class}: construct it, {name_of_class}(...)"
        )
    if not callable(value):
        check_number(name, value, "at least 0")


def check_flag(name: str, value: object) -> None:
    """Raise ValueError unless `value` is a bool; text such as "no" would count as true."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def check_transformation(name: str, value: object) -> None:
    """Raise ValueError unless `value` is an Optax transformation."""
    if not isinstance(value, optax.GradientTransformation):
        hint = ": call its gradient_transformation()" if isinstance(value, optax.MultiSteps) else ""
        raise ValueError(f"{name} must be an optax.GradientTransformation, got {value!r}{hint}")


def check_mask(name: str, mask: Mask | None) -> Mask:
    """Return a mask, where None means every parameter; raise ValueError unless it is a function or a tree of bool."""
    if mask is None:
        return True
    if not callable(mask) and not all(isinstance(leaf, bool | np.bool_) for leaf in jax.tree.leaves(mask)):
        raise ValueError(
            f"{name} must be a tree of bool, or a function from parameters to one such as "
            f"path_mask(exclude=[...]), got {mask!r}"
        )
    return mask
