"""Diagnostics on the host: which leaves of a tree are non-finite, and whether a run is stalled."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_ext._core.arguments import check_integer, is_concrete
from optax_ext._core.field_types import PositiveInteger
from optax_ext._core.opt_states import check_opt_state, find_one
from optax_ext._core.public import public
from optax_ext._core.trees import is_one_parameter, join_path
from optax_ext.loss_scaling._state import LossScaleState, SkipBadStepsState

_MAX_LISTED = 5  # paths in an error, which a log still shows whole


@public
class NonfiniteCounts(NamedTuple):
    """How many numbers of one parameter, or of its gradient, are non-finite.

    Attributes:
      nan: How many are NaN; a complex number is NaN if either part is.
      inf: How many are infinite, of either sign, and not NaN.
      size: How many there are in all, finite ones included.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax_ext
      >>> counts = optax_ext.nonfinite_leaves({"bias": jnp.array([jnp.nan, -jnp.inf, jnp.inf, 0.0])})["bias"]
      >>> print(counts.nan, counts.inf, counts.size)
      1 2 4
    """

    nan: int
    inf: int
    size: int


@public
def nonfinite_leaves(tree: Any) -> dict[str, NonfiniteCounts]:
    """Report which leaves of a tree hold NaN or infinity.

    Use this after a skipped step, when ``state.grads_finite`` is False. A compiled step need not return its gradients
    for it: a skipped step leaves the parameters unchanged, so the same batch gives the same gradients again.

    The leaves stay on their devices: one compiled function counts there, and two integers per leaf come back. It
    compiles once for each structure of trees. Sharded leaves are counted whole; with several processes, call it in all
    of them.

    Args:
      tree: Gradients, parameters, a batch or a state. Integers, keys, float0, None, masked nodes and functions hold
        nothing to report.

    Returns:
      A mapping from the path of each leaf with non-finite numbers, as [`path_mask`][optax_ext.path_mask] writes paths,
      to its counts, in the order of the tree; empty if all numbers are finite.

    Raises:
      TypeError: If the tree is traced, since it has no values yet.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax_ext
      >>> grads = {"conv1": {"bias": jnp.zeros(2), "kernel": jnp.array([1.0, jnp.nan, jnp.inf])}}
      >>> optax_ext.nonfinite_leaves(grads)
      {'conv1/kernel': NonfiniteCounts(nan=1, inf=1, size=3)}
    """
    nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_one_parameter)
    leaves = [(join_path(path), leaf) for path, node in nodes for leaf in jax.tree.leaves(node) if _has_numbers(leaf)]
    for path, leaf in leaves:
        if not is_concrete(leaf):
            raise TypeError(
                "nonfinite_leaves must be called outside of jit, grad and vmap, on arrays that the step returned; "
                f"got a traced value at {path!r}"
            )
    if not leaves:
        return {}
    with jax.enable_x64(True):  # stacked layers may hold 2**32 numbers, and float64 of NumPy is not narrowed
        groups: dict[Any, list[int]] = {}  # one program runs on one set of devices
        for index, (_, leaf) in enumerate(leaves):
            devices = frozenset(leaf.sharding.device_set) if isinstance(leaf, jax.Array) else None
            groups.setdefault(devices, []).append(index)
        counts = np.zeros((len(leaves), 2), np.int64)
        for indices in groups.values():
            counts[indices] = _count([leaves[index][1] for index in indices])
    report: dict[str, NonfiniteCounts] = {}
    for (path, leaf), (nan, nonfinite) in zip(leaves, counts.tolist(), strict=True):
        if nonfinite:
            report[path] = NonfiniteCounts(nan, nonfinite - nan, np.size(leaf))
    return report


@public
def raise_if_stalled(opt_state: "optax.OptState", grads: Any = None, *, max_consecutive_skips: int = 50) -> None:
    """Raise an error if so many updates in a row were skipped that the run cannot recover.

    A bad batch is skipped once, and a scale that is too large shrinks within a few skips: 15 from the default of 32768
    to 1. A run whose parameters, batch statistics or data are non-finite skips every step from then on, and so does
    one under ``max_norm_ratio`` whose gradients have grown permanently.

    This reads one integer, or two, and waits for the step that computes them: call it where the loss is logged, not in
    every step.

    Args:
      opt_state: An optimizer state that holds one [`LossScaleState`][optax_ext.LossScaleState], or one
        [`SkipBadStepsState`][optax_ext.SkipBadStepsState], or one of each, at any depth; the more skips in a row count.
        A state with a leading axis, from ``pmap`` or from several runs under ``vmap``, is stalled if any of its entries
        is.
      grads: The gradients of the last step as ``tx.update`` took them, still scaled, so that the error can name those
        that are non-finite; read only if the run is stalled. A gradient that overflows only after the cast to the
        dtype of its parameter counts as finite here.
      max_consecutive_skips: How many skips in a row mean that the run is stalled, at least 1; choose more than a scale
        that is too large needs to shrink.

    Raises:
      FloatingPointError: If the run is stalled. It names the skips, the loss scale, and the first paths; or the norm
        and the average, if the last gradients were finite and rejected.
      TypeError: If ``opt_state`` is traced: call it outside of the compiled step. If it is a transformation, a model or
        parameters.
      ValueError: If ``max_consecutive_skips`` is not a positive integer, or the state holds neither, or several.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> tx = optax_ext.dynamic_loss_scaling(optax.sgd(0.1), initial_scale=4.0)
      >>> params, grads = {"kernel": jnp.ones(3)}, {"kernel": jnp.array([1.0, jnp.nan, jnp.nan])}
      >>> state = tx.init(params)
      >>> for step in range(20):
      ...     _, state = tx.update(grads, state, params)
      ...     optax_ext.raise_if_stalled(state, grads, max_consecutive_skips=10)
      Traceback (most recent call last):
      FloatingPointError: stalled: 10 updates in a row were skipped, and the loss scale is 1.0. Non-finite
      gradients: kernel (2 NaN, 0 infinite, of 3). Look at the batch, the loss, and nonfinite_leaves of parameters and
      statistics.
    """
    max_consecutive_skips = check_integer("max_consecutive_skips", max_consecutive_skips, PositiveInteger)
    scaler = find_one(opt_state, LossScaleState)
    guard = find_one(opt_state, SkipBadStepsState)
    states = [state for state in (scaler, guard) if state is not None]
    if not states:
        check_opt_state(opt_state)
        raise ValueError(
            "opt_state must hold one LossScaleState, got 0: wrap the optimizer in dynamic_loss_scaling, or without a "
            "scale in skip_bad_steps"
        )
    if not is_concrete(*(state.consecutive_skips for state in states)):
        raise TypeError("raise_if_stalled must be called outside of jit, on the state that the step returned")
    skips = np.atleast_1d(np.maximum.reduce([np.asarray(state.consecutive_skips) for state in states]))
    worst = skips.argmax()
    if skips[worst] < max_consecutive_skips:
        return
    message = f"stalled: {skips[worst]} updates in a row were skipped"
    if scaler is not None:
        message += f", and the loss scale is {np.atleast_1d(scaler.loss_scale)[worst]}"
    rejected = guard is not None and all(np.atleast_1d(state.grads_finite)[worst] for state in states)
    if guard is not None and rejected and np.atleast_1d(guard.consecutive_skips)[worst] > 0:
        norm, average = (np.atleast_1d(number)[worst] for number in (guard.grad_norm, guard.average_norm))
        raise FloatingPointError(
            f"{message}. The last gradients are finite, and skip_bad_steps rejected their norm of {norm:.6g}, with an "
            f"average of {average:.6g} over applied steps. Look at the batch and the loss; if norms are permanently "
            "larger now, give a larger max_norm_ratio."
        )
    raise FloatingPointError(
        f"{message}. {_name_offenders(grads)} "
        "Look at the batch, the loss, and nonfinite_leaves of parameters and statistics."
    )


def _name_offenders(grads: Any) -> str:
    if grads is None:
        return "Give the gradients as well to see which are non-finite."
    report = nonfinite_leaves(grads)
    if not report:
        return (
            "The gradients given are finite: they are of another step, they overflow in the dtype of their parameters, "
            "or check_updates found non-finite updates made of them."
        )
    named = [f"{path} ({c.nan} NaN, {c.inf} infinite, of {c.size})" for path, c in list(report.items())[:_MAX_LISTED]]
    rest = f" and {len(report) - _MAX_LISTED} more" if len(report) > _MAX_LISTED else ""
    return f"Non-finite gradients: {', '.join(named)}{rest}."


def _has_numbers(leaf: Any) -> bool:
    """Whether a leaf can hold NaN; an Equinox module has functions as leaves."""
    if isinstance(leaf, float | complex):
        return True
    return isinstance(leaf, jax.Array | np.ndarray | np.generic) and jnp.issubdtype(leaf.dtype, jnp.inexact)


@jax.jit
def _count(leaves: list[jax.Array]) -> jax.Array:
    """Count what is NaN and what is not finite in each leaf, in one array, which is one transfer to the host."""

    def count(flags: jax.Array) -> jax.Array:  # by rows, which CPUs add up several times as fast
        return jnp.atleast_1d(flags).sum(-1, dtype=jnp.int32).sum(dtype=jnp.int64)

    return jnp.array([(count(jnp.isnan(leaf)), count(~jnp.isfinite(leaf))) for leaf in leaves])
