"""Optimizers leave parameters alone that are not floating-point or complex numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.overwritten import refuse_overwritten
from optax_ext._core.precision import as_array, is_inexact
from optax_ext._core.trees import is_none


def for_inexact(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Run a transformation on floating-point and complex parameters only, and leave integers and keys unchanged.

    The inner transformation sees None in place of every other parameter and of its gradient, so that no weight decay,
    no norm and no state includes it. The update of such a parameter is zero, in its own dtype. Its gradient may be
    float0, as ``jax.grad(..., allow_int=True)`` returns it. Python numbers become arrays.

    Where all parameters are inexact arrays, the inner transformation sees exactly what it would see by itself, and its
    state is the same.
    """
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: optax.Params) -> optax.OptState:
        refuse_overwritten(params)
        return inner.init(_none_unless_trained(params))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        like = updates if params is None else params  # what tells which updates are of floating numbers

        def show(update: Any, param: Any) -> Any:
            if update is None or not _is_trained(param) or _dtype(update) == jax.dtypes.float0:
                return None
            return as_array(update if is_inexact(update) else jnp.asarray(update, _dtype(param)))

        def fill(update: Any, param: Any, shown: Any, new: Any) -> Any:
            if update is None or shown is not None:
                return new
            # Without its parameter, a gradient of type float0 is all that there is, and it is a zero already.
            return param if _dtype(param) == jax.dtypes.float0 else jnp.zeros_like(param)

        shown = jax.tree.map(show, updates, like, is_leaf=is_none)
        new, new_state = inner.update(
            shown, state, None if params is None else _none_unless_trained(params), **extra_args
        )
        return jax.tree.map(fill, updates, like, shown, new, is_leaf=is_none), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _none_unless_trained(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda param: as_array(param) if _is_trained(param) else None, params)


def _is_trained(param: Any) -> bool:
    """Whether a parameter is of floating or complex numbers; an Equinox module has functions as leaves."""
    return isinstance(param, float | complex) or (hasattr(param, "dtype") and is_inexact(param))


def _dtype(leaf: Any) -> Any:
    return jnp.result_type(leaf) if not hasattr(leaf, "dtype") else leaf.dtype
