"""The fp8 state of Flax, which is overwritten with its gradients and must not reach an optimizer."""

from typing import Any

import jax

from optax_ext._core.trees import is_one_parameter, join_path

_OVERWRITTEN = "_overwrite_with_gradient"  # Flax's collection, and its type of variable in NNX


def refuse_overwritten(params: Any) -> None:
    """Raise ValueError if there is state among the parameters whose gradients are its new values.

    To unscale them would divide them by the loss scale, and an optimizer would subtract them.
    """
    for path, leaf in jax.tree.leaves_with_path(params, is_leaf=is_one_parameter):
        names = {type(leaf).__name__, *(join_path((key,)) for key in path)}
        if _OVERWRITTEN in names and jax.tree.leaves(leaf):  # a hole is left alone
            raise ValueError(
                f"params must not hold what Flax overwrites with its gradients ({_OVERWRITTEN}), got "
                f"{join_path(path)!r}: give only variables['params'], or with NNX wrt=nnx.Param, and overwrite the "
                "rest unless the step is skipped, as docs/fp8.md shows"
            )
