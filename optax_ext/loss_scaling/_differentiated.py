"""What must not be differentiated by `jax.value_and_grad`: modules that it would train wrongly, or cannot take."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax

from optax_ext._core.trees import find_nodes


def check_differentiated(transform: Callable[..., Any], argnums: Any, args: tuple[Any, ...]) -> None:
    """Raise TypeError if `jax.value_and_grad` would differentiate a module that needs a transform of its library."""
    while isinstance(transform, functools.partial):
        argnums = transform.keywords.get("argnums", 0) if isinstance(argnums, int) and argnums == 0 else argnums
        transform = transform.func
    if transform is not jax.value_and_grad:
        return
    chosen = argnums if isinstance(argnums, tuple | list) else (argnums,)
    for argnum in chosen:
        if isinstance(argnum, int) and -len(args) <= argnum < len(args):  # JAX itself says what else is wrong
            _check_argument(argnum, args[argnum])


def _check_argument(argnum: int, argument: Any) -> None:
    nnx, eqx = sys.modules.get("flax.nnx"), sys.modules.get("equinox")  # no modules without them in the process
    if nnx is not None:
        for module in find_nodes(argument, nnx.Module):
            raise TypeError(
                f"argument {argnum} is a Flax NNX module, {type(module).__name__}: jax.value_and_grad differentiates a "
                "copy of it, so batch statistics and random states never change, and shared parameters are untied. "
                "Pass transform=nnx.value_and_grad"
            )
    if eqx is not None:
        for module in find_nodes(argument, eqx.Module):
            others = [
                leaf
                for leaf in jax.tree.leaves(module)
                if not hasattr(leaf, "dtype") and not isinstance(leaf, _NUMBERS)
            ]
            if others:
                raise TypeError(
                    f"argument {argnum} is an Equinox module, {type(module).__name__}, and holds a leaf that is not an "
                    f"array ({type(others[0]).__name__}): jax.value_and_grad takes only arrays. "
                    "Pass transform=eqx.filter_value_and_grad"
                )


_NUMBERS = bool | int | float | complex
