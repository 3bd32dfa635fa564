"""An exponential moving average of the parameters, for evaluation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import Scalar, check_flag, check_integer, check_number
from optax_ext._core.field_types import Fraction, NonNegativeInteger
from optax_ext._core.precision import apply_update, as_array, is_inexact, widen
from optax_ext._core.public import public
from optax_ext._core.synonyms import suggest_arguments
from optax_ext._core.trees import PyTree, find_nodes, is_one_parameter, join_path


@public
class ParamsEmaState(NamedTuple):
    """The state of a moving average of parameters.

    Attributes:
      count: Updates so far; int32 scalar.
      ema: The averages, in the structure of the parameters and in at least float32.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  # Optax's name; a tuple's method goes
    ema: PyTree


@public
@suggest_arguments
def params_ema(
    average_decay: Scalar = 0.99, *, start_step: Scalar = 0, dynamic_decay: bool = True, initial: str = "zeros"
) -> optax.GradientTransformationExtraArgs:
    """Keep an exponential moving average of the parameters; for the end of a chain, whose updates it returns unchanged.

    With ``p`` the parameters after step ``t`` = 1, 2, ..., which are ``params`` plus ``updates``:

    ```text
    decay = min(average_decay, (1 + t - start_step) / (10 + t - start_step))      with dynamic_decay; else average_decay
    average = average - (1 - decay) * (average - p)
    ```

    Before ``start_step`` the average equals the parameters.

    Put it last, so that it sees the updates as they are applied, and inside loss scaling, so that a skipped step
    leaves the averages bit-identical. [`ema_params`][optax_ext.ema_params] finds the averages.

    Batch statistics are not updated by an optimizer. Average them with a second ``params_ema`` over their tree, whose
    ``update`` is called once a step with zero updates and the newest statistics as ``params``.

    Args:
      average_decay: The part of the average that a step keeps, in [0, 1]; 1 never moves.
      start_step: The first step that averages, counted from 1; at least 0.
      dynamic_decay: Whether the decay grows from 0.1 up to ``average_decay``, so that the average soon forgets early
        parameters, and zeros at the start.
      initial: The first average: ``"zeros"``, as in TensorFlow, or ``"params"``. Without ``dynamic_decay``, zeros bias
        the average for about ``1 / (1 - average_decay)`` steps.

    Returns:
      A transformation that needs ``params`` and returns the updates unchanged. Its state is a
      [`ParamsEmaState`][optax_ext.ParamsEmaState]. Integer leaves and keys keep their newest value and are not
      averaged. ``init`` also takes a tree of ``jax.ShapeDtypeStruct``. Averages that start as the parameters are then
      ``jax.ShapeDtypeStruct`` as well, in at least float32, since there are no numbers to start from.

    Raises:
      ValueError: If an argument is out of its range, or ``update`` is called without ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> tx = optax.chain(optax.sgd(1.0), optax_ext.params_ema(0.5, dynamic_decay=False, initial="params"))
      >>> params = jnp.array([4.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.array([1.0]), state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> print(params, optax_ext.ema_params(state))
      [2.] [2.75]

    References:
      Polyak and Juditsky, Acceleration of stochastic approximation by averaging, SIAM Journal on Control and
      Optimization 30(4), 1992.
      ``tfm.optimization.ExponentialMovingAverage`` and ``tf.train.ExponentialMovingAverage`` of TensorFlow.

    Differs from TensorFlow:
      The averages of low-precision parameters are in float32: in bfloat16 an average with a decay of 0.9999 never
      moves. Before ``start_step`` the average equals the parameters exactly, not just up to rounding. Step counts are
      compared as integers.

    Differs from Optax:
      ``optax.ema`` averages updates, not parameters.
    """
    check_number("average_decay", average_decay, Fraction)
    start_step = check_integer("start_step", start_step, NonNegativeInteger)
    check_flag("dynamic_decay", dynamic_decay)
    if initial not in ("zeros", "params"):
        raise ValueError(f"initial must be 'zeros' or 'params', got {initial!r}")

    def init_fn(params: optax.Params) -> ParamsEmaState:
        def start(param: Any) -> Any:
            param = widen(param)
            if initial == "zeros" and is_inexact(param):
                return jnp.zeros_like(param)
            if isinstance(param, jax.ShapeDtypeStruct):
                return param
            return jnp.array(param, copy=True)  # the state and the parameters may both be donated

        return ParamsEmaState(count=jnp.zeros([], jnp.int32), ema=jax.tree.map(start, params))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, ParamsEmaState]:
        del extra_args
        if params is None:
            raise ValueError("params_ema needs the parameters: call update(updates, state, params), got None")
        count = jnp.asarray(optax.safe_increment(state.count))
        steps = jnp.maximum(count - start_step, 0).astype(jnp.float32)
        decay = jnp.asarray(average_decay, jnp.float32)
        if dynamic_decay:
            decay = jnp.minimum(decay, (1 + steps) / (10 + steps))
        # Every leaf below depends on these scalars: the barrier keeps XLA from recomputing them in each leaf's fusion.
        weight, started = jax.lax.optimization_barrier((1 - decay, count >= start_step))

        def average(old: jax.Array, param: jax.Array, update: Any) -> jax.Array:
            new = apply_update(param, update)
            if not is_inexact(new):
                return new
            new = new.astype(old.dtype)
            return jnp.where(started, old - weight.astype(old.dtype) * (old - new), new)

        return updates, ParamsEmaState(count=count, ema=jax.tree.map(average, state.ema, params, updates))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


@public
def ema_params(opt_state: "optax.OptState", params: "optax.Params | None" = None) -> "optax.Params":
    """Return the averaged parameters in an optimizer state, for evaluation.

    Args:
      opt_state: An optimizer state that holds a [`ParamsEmaState`][optax_ext.ParamsEmaState] at any depth, or several
        that average different parameters, as in the groups of ``optax.partition``. For a ``flax.nnx.Optimizer``, give
        its ``opt_state``.
      params: Parameters whose structure and dtypes the result takes, and which fill in where there is no average; with
        Flax NNX, ``nnx.state(model, nnx.Param)``. With None, averages stay in at least float32, in the boxes of NNX's
        optimizer if it made them, and ``optax.MaskedNode()`` marks parameters without an average.

    Returns:
      The averages, in the structure of the parameters. They are the arrays of the state, not copies: use them before
      the state is donated to the next step.

    Raises:
      ValueError: If the state holds no average of parameters, or several of one parameter, or if the averages do not
        have the structure of ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> tx = optax_ext.dynamic_loss_scaling(optax.chain(optax.sgd(0.1), optax_ext.params_ema(initial="params")))
      >>> params = jnp.ones(2, jnp.bfloat16)
      >>> state = tx.init(params)
      >>> optax_ext.ema_params(state).dtype, optax_ext.ema_params(state, params).dtype
      (dtype('float32'), dtype(bfloat16))

      A group that is not averaged takes the parameters as they are.

      >>> groups = {"train": optax.chain(optax.sgd(0.1), optax_ext.params_ema()), "freeze": optax.set_to_zero()}
      >>> tx = optax.partition(groups, {"head": "train", "body": "freeze"})
      >>> params = {"head": jnp.ones(2), "body": jnp.array([3.0, 3.0])}
      >>> print(optax_ext.ema_params(tx.init(params), params))
      {'body': Array([3., 3.], dtype=float32), 'head': Array([0., 0.], dtype=float32)}
    """
    states = find_nodes(opt_state, ParamsEmaState)
    if not states:
        raise ValueError("opt_state must hold one ParamsEmaState, got 0: add params_ema to the chain")
    averages = states[0].ema
    for state in states[1:]:
        averages = _fill(averages, state.ema, _refuse)
    return averages if params is None else _fill(averages, params, _cast)


# From the path of a parameter, and what the upper and the lower tree have there, to what stands there.
_Both = Callable[[tuple[Any, ...], Any, Any], Any]


def _fill(upper: Any, lower: Any, both: _Both, path: tuple[Any, ...] = ()) -> Any:
    """Return the lower tree under the upper one, whose masked nodes are holes, even for whole branches.

    Node by node, since either tree may have a hole where the other has a branch, and a box of NNX's optimizer is of
    another type than that of the parameter. What is returned has the boxes of the lower tree.
    """
    if isinstance(upper, optax.MaskedNode):
        return lower
    if isinstance(lower, optax.MaskedNode):
        return upper
    if jax.tree_util.all_leaves([upper, lower]):
        return both(path, upper, lower)
    uppers, upper_structure = _children(upper)
    lowers, structure = _children(lower)
    are_boxes = is_one_parameter(upper) and is_one_parameter(lower) and len(uppers) == len(lowers)
    if upper_structure != structure and not are_boxes:
        raise ValueError(
            f"params must have the structure of the parameters that are averaged, got {structure} at "
            f"{join_path(path)!r} where {upper_structure} is averaged"
        )
    nodes = zip(uppers, lowers, strict=True)
    return structure.unflatten(_fill(u, lo, both, (*path, *key)) for (_, u), (key, lo) in nodes)


def _children(node: Any) -> tuple[list[tuple[tuple[Any, ...], Any]], Any]:
    """Return what is one level down, with its keys, and the structure of that level."""
    return jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda child: child is not node)


def _refuse(path: tuple[Any, ...], upper: Any, lower: Any) -> Any:
    del upper, lower
    raise ValueError(
        "opt_state must hold one ParamsEmaState, or several that average different parameters, got several that "
        f"average {join_path(path)!r}: give the part of the state with the one to use"
    )


def _cast(path: tuple[Any, ...], average: Any, param: Any) -> Any:
    del path
    dtype = as_array(param).dtype
    return average if average.dtype == dtype else average.astype(dtype)
