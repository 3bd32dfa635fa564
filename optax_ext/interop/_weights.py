"""The weights of a TensorFlow LARS as the state of ours, and back, so that a run can continue."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from optax_ext._core.errors import did_you_mean, join_words
from optax_ext._core.public import public
from optax_ext._core.trees import find_nodes, join_path

_NO_COUNT = object()


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
    trace = _trace(state)
    paths = _paths(trace, order)
    if len(weights) != len(order) + 1:
        raise ValueError(
            f"weights must hold the iterations and one array for each path in order, {len(order) + 1} in "
            f"all, got {len(weights)}"
        )
    iterations, *momentum = weights
    new: dict[str, jax.Array] = {}
    for path, value in zip(order, momentum, strict=True):
        value, old = jnp.asarray(value), paths[path]
        if value.shape != jnp.shape(old):
            raise ValueError(f"weights must fit the parameters: {path!r} has shape {jnp.shape(old)}, got {value.shape}")
        new[path] = (-value if classic_momentum else value).astype(jnp.result_type(old))
    filled = jax.tree_util.tree_map_with_path(lambda path, _: new[join_path(path)], trace)
    state = jax.tree.map(
        lambda node: optax.TraceState(trace=filled) if isinstance(node, optax.TraceState) else node,
        state,
        is_leaf=_is_trace,
    )
    if _count(state) is _NO_COUNT:
        return state
    return optax.tree.set(state, _is_of_a_state, count=jnp.asarray(int(np.asarray(iterations)), jnp.int32))


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
    paths = _paths(_trace(state), order)
    count = _count(state)
    if count is _NO_COUNT and iterations is None:
        raise ValueError("iterations must be given: with a constant learning rate the state does not count them")
    steps = int(count) if iterations is None else iterations
    sign = -1 if classic_momentum else 1
    return [np.asarray(steps, np.int64), *(sign * np.asarray(paths[path]) for path in order)]


def _is_trace(node: Any) -> bool:
    return isinstance(node, optax.TraceState)


def _trace(state: optax.OptState) -> Any:
    states = find_nodes(state, optax.TraceState)
    if len(states) != 1:
        raise ValueError(f"state must hold the momentum of one optimizer, found {len(states)}")
    return states[0].trace


def _is_of_a_state(path: Any, value: Any) -> bool:
    """Return whether this is a field of a transformation's state, not a parameter of the same name."""
    del value
    return isinstance(path[-1], optax.tree_utils.NamedTupleKey)


def _count(state: optax.OptState) -> Any:
    """Return the number of steps that the state has counted for its schedules."""
    counts = optax.tree.get_all_with_path(state, "count", _is_of_a_state)
    return counts[0][1] if counts else _NO_COUNT


def _paths(trace: Any, order: Sequence[str]) -> dict[str, Any]:
    paths = {join_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(trace)}
    unknown = [path for path in order if path not in paths]
    if unknown:
        raise ValueError(f"order must name parameters, got {unknown[0]!r}{did_you_mean(unknown[0], paths)}")
    if len(set(order)) < len(order):
        raise ValueError("order must name each parameter once")
    if missing := [path for path in paths if path not in order]:
        raise ValueError(f"order must name all parameters, {join_words(missing)} is missing")
    return paths
