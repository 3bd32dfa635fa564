"""Checks of the arguments of transformations."""

import jax
import numpy as np

_RANGES = {
    "at least 0": lambda x: x >= 0,
    "more than 0": lambda x: x > 0,
    "at least 1": lambda x: x >= 1,
    "more than 1": lambda x: x > 1,
    "in [0, 1]": lambda x: 0 <= x <= 1,
    "in [0, 1)": lambda x: 0 <= x < 1,
}


def check_number(name: str, value: object, accepted: str, *, integer: bool = False) -> None:
    """Raise ValueError unless `value` is a finite number in the range that the text `accepted` names.

    Traced values pass: `optax.inject_hyperparams` hands them in, and there is nothing to look at yet.
    """
    if isinstance(value, jax.core.Tracer):
        return
    number = np.asarray(value)
    kinds = (np.integer,) if integer else (np.integer, np.floating)
    # bfloat16 and its like are not NumPy's floats; JAX knows them
    is_number = any(np.issubdtype(number.dtype, kind) for kind in kinds) or (
        not integer and jax.dtypes.issubdtype(number.dtype, np.floating)
    )
    if not is_number or number.ndim or not np.isfinite(float(number)) or not _RANGES[accepted](float(number)):
        raise ValueError(f"{name} must be {'an integer' if integer else 'a finite number'}, {accepted}; got {value!r}")


def check_rate(name: str, value: object) -> None:
    """Raise ValueError unless `value` is a schedule or a finite number that is at least 0."""
    if not callable(value):
        check_number(name, value, "at least 0")
