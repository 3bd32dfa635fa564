"""The weights of a TensorFlow LARS as the state of ours, and back, so that a run can continue."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from optax_ext._core.public import public
from optax_ext.interop.states._fill_state import (
    NO_COUNT,
    count_of,
    fill_tree,
    find_momentum,
    leaves_by_path,
    map_nodes,
    set_counts,
)


@public
def lars_state_from_weights(
    state: optax.OptState, weights: Sequence[ArrayLike], order: Sequence[str], *, classic_momentum: bool = True
) -> optax.OptState:
    """Put what ``get_weights()`` of a TensorFlow LARS returned into the state of an [`optax_ext.lars`][].

    Args:
      state: The state of a transformation with one ``lars`` in it, anywhere, such as ``tx.init(params)`` returns.
      weights: The number of iterations, then the momentum of each variable.
      order: The paths of the parameters, such as ``"conv1/kernel"``, in the order of TensorFlow's variables. A
        parameter must have the shape that the variable has: stack the weights of layers that are stacked here.
      classic_momentum: The ``classic_momentum`` of both optimizers. In the classic form the momentum has the opposite
        sign here.

    Returns:
      The state, with the momentum and, in every ``count``, the iterations. A state with a constant learning rate has
      no ``count``.

    Raises:
      ValueError: If the state does not hold the momentum of one optimizer, or paths or shapes do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax_ext
      >>> from optax_ext import interop
      >>> params = {"dense": {"kernel": jnp.ones(2), "bias": jnp.ones(1)}}
      >>> state = optax_ext.lars(optax_ext.Constant(0.1)).init(params)
      >>> state = interop.lars_state_from_weights(state, [7, [0.1, 0.2], [0.3]], ["dense/kernel", "dense/bias"])
      >>> print(state[3].trace["dense"]["kernel"], state[2].count)
      [-0.1 -0.2] 7
    """
    paths = leaves_by_path(find_momentum(state).trace, order)
    if len(weights) != len(order) + 1:
        raise ValueError(
            f"weights must hold the iterations and one array for each path in order, {len(order) + 1} in "
            f"all, got {len(weights)}"
        )
    iterations, *momentum = weights
    sign = -1 if classic_momentum else 1
    new: dict[str, np.ndarray] = {}
    for path, value in zip(order, momentum, strict=True):
        value, old = np.asarray(value), paths[path]
        if value.shape != jnp.shape(old):
            raise ValueError(f"weights must fit the parameters: {path!r} has shape {jnp.shape(old)}, got {value.shape}")
        new[path] = sign * value
    filled = map_nodes(lambda node: node._replace(trace=fill_tree(node.trace, new)), state, optax.TraceState)
    return set_counts(filled, int(np.asarray(iterations)))


@public
def lars_weights_from_state(
    state: optax.OptState, order: Sequence[str], *, classic_momentum: bool = True, iterations: int | None = None
) -> list[np.ndarray]:
    """Return what ``set_weights()`` of a TensorFlow LARS takes, from the state of an [`optax_ext.lars`][].

    Args:
      state: The state of a transformation with one ``lars`` in it, anywhere.
      order: The paths of the parameters, in the order of TensorFlow's variables.
      classic_momentum: The ``classic_momentum`` of both optimizers.
      iterations: The number of iterations; needed only with a constant learning rate, whose state does not count them.

    Returns:
      The iterations, an int64, then the momentum of each variable.

    Raises:
      ValueError: If the state does not hold the momentum of exactly one optimizer, the paths do not fit, or the
        iterations are unknown.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax_ext
      >>> from optax_ext import interop
      >>> state = optax_ext.lars(0.1).init({"kernel": jnp.ones(2)})
      >>> interop.lars_weights_from_state(state, ["kernel"], iterations=7)[0]
      array(7)
    """
    paths = leaves_by_path(find_momentum(state).trace, order)
    count = count_of(state)
    if count is NO_COUNT and iterations is None:
        raise ValueError("iterations must be given: with a constant learning rate the state does not count them")
    steps = int(count) if iterations is None else iterations
    sign = -1 if classic_momentum else 1
    return [np.asarray(steps, np.int64), *(sign * np.asarray(paths[path]) for path in order)]
