"""Checks of the arguments of transformations."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from optax_ext._schema import FLOAT32_MAX

Scalar = float | jax.Array

_RANGES = {
    "at least 0": lambda x: x >= 0,
    "more than 0": lambda x: x > 0,
    "at least 1": lambda x: x >= 1,
    "more than 1": lambda x: x > 1,
    "in [0, 1]": lambda x: 0 <= x <= 1,
    "in [0, 1)": lambda x: 0 <= x < 1,
}


def is_concrete(*values: object) -> bool:
    """Whether no value is traced; `optax.inject_hyperparams` hands in traced ones, which have nothing to look at."""
    return not any(isinstance(value, Tracer) for value in values)


def check_number(name: str, value: object, accepted: str, *, integer: bool = False) -> None:
    """Raise ValueError unless `value` is traced, or a finite float32 number in the range that `accepted` names."""
    if not is_concrete(value):
        return
    number = np.asarray(value)
    is_number = jnp.issubdtype(number.dtype, jnp.integer) or (
        not integer and jnp.issubdtype(number.dtype, jnp.floating)
    )
    if not is_number or number.ndim or not abs(float(number)) <= FLOAT32_MAX or not _RANGES[accepted](float(number)):
        raise ValueError(
            f"{name} must be {'an integer' if integer else 'a finite float32 number'}, {accepted}; got {value!r}"
        )


def check_rate(name: str, value: object) -> None:
    """Raise ValueError unless `value` is a schedule or a finite float32 number that is at least 0."""
    if not callable(value):
        check_number(name, value, "at least 0")
