"""An exponential moving average of the parameters, for evaluation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_ext._core.arguments import Scalar, check_flag, check_integer, check_rate, is_concrete
from optax_ext._core.field_types import FLOAT32_TINY, Fraction, NonNegativeInteger
from optax_ext._core.precision import apply_update, as_array, is_inexact, widen
from optax_ext._core.public import public
from optax_ext._core.synonyms import suggest_arguments
from optax_ext._core.trees import PyTree, children_of, find_nodes, is_one_parameter, join_path


@public
class ParamsEmaState(NamedTuple):
    """The state of a moving average of parameters.

    Attributes:
      count: Updates so far; int32 scalar.
      ema: The averages, in the structure of the parameters and in at least float32. With ``debias`` they are already
        divided by ``total_weight``.
      total_weight: The total weight of parameters in an average; float32 scalar. Always 1, except with ``debias``,
        where it rises from 0 towards 1 as the weight of the zeros decays.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  # Optax's name; a tuple's method goes
    ema: PyTree
    total_weight: jax.Array | np.float32 = np.float32(1)  # of the type that a step returns


@public
@suggest_arguments
def params_ema(
    average_decay: "optax.ScalarOrSchedule" = 0.99,
    *,
    start_step: Scalar = 0,
    dynamic_decay: bool = True,
    initial: str = "zeros",
    debias: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Keep an exponential moving average of the parameters; for the end of a chain, whose updates it returns unchanged.

    With ``p`` the parameters after step ``t`` = 1, 2, ..., which are ``params`` plus ``updates``:

    ```text
    decay = min(average_decay, (1 + t - start_step) / (10 + t - start_step))      with dynamic_decay; else average_decay
    average = average - (1 - decay) * (average - p)
    ```

    Before ``start_step`` the average equals the parameters.

    An average that starts at zeros is too small until their weight has decayed: at a decay of 0.99999, a constant 5.0
    is averaged to 1.1 after 25,000 steps. ``debias`` divides the average by the total weight of parameters in it, step
    by step, so that the state holds the result:

    ```text
    total_weight = total_weight + (1 - decay) * (1 - total_weight)      which starts at 0
    average = average - (1 - decay) / total_weight * (average - p)
    ```

    Put it last, so that it sees the updates as they are applied, and inside loss scaling, so that a skipped step
    leaves the averages bit-identical. [`ema_params`][optax_ext.ema_params] finds the averages.

    Batch statistics are not updated by an optimizer. Average them with a second ``params_ema`` over their tree, whose
    ``update`` is called once a step with zero updates and the newest statistics as ``params``.

    Args:
      average_decay: The part of the average that a step keeps, in [0, 1]; 1 never moves. Or a schedule, a function of
        the updates so far, 0 for the first; its values are held in [0, 1].
      start_step: The first step that averages, counted from 1; at least 0.
      dynamic_decay: Whether the decay grows from 0.1 up to ``average_decay``, so that the average soon forgets early
        parameters, and zeros at the start.
      initial: The first average: ``"zeros"``, as in TensorFlow, or ``"params"``. Without ``dynamic_decay`` and
        ``debias``, zeros bias the average for about ``1 / (1 - average_decay)`` steps.
      debias: Whether to remove the bias of an average that starts at zeros. Averages that start as the parameters, or
        that equal them before ``start_step``, have none, and stay as they are.

    Returns:
      A transformation that needs ``params`` and returns the updates unchanged. Its state is a
      [`ParamsEmaState`][optax_ext.ParamsEmaState]. Integer leaves and keys keep their newest value and are not
      averaged. ``init`` also takes a tree of ``jax.ShapeDtypeStruct``. Averages that start as the parameters are then
      ``jax.ShapeDtypeStruct`` as well, in at least float32, since there are no numbers to start from.

    Raises:
      ValueError: If an argument is out of its range, as a schedule is by its value at step 0, or ``update`` is called
        without ``params``.

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

      The target network of BYOL and MoCo v3 is an average whose decay rises from 0.996 to 1 by half a cosine.

      >>> average_decay = optax_ext.StepCosineDecay(boundaries=[0, 1000], values=[0.996, 1.0])
      >>> print(average_decay(0), average_decay(500), average_decay(1000))
      0.996 0.998 1.0
      >>> target = optax_ext.params_ema(average_decay, dynamic_decay=False, initial="params")

    References:
      Polyak and Juditsky, Acceleration of stochastic approximation by averaging, SIAM Journal on Control and
      Optimization 30(4), 1992.
      Kingma and Ba, Adam, [arXiv:1412.6980](https://arxiv.org/abs/1412.6980), section 3, for the bias.
      Grill et al., Bootstrap your own latent, [arXiv:2006.07733](https://arxiv.org/abs/2006.07733), section 3.3, for
      the schedule.
      ``tfm.optimization.ExponentialMovingAverage`` and ``tf.train.ExponentialMovingAverage`` of TensorFlow.

    Differs from TensorFlow:
      The averages of low-precision parameters are in float32: in bfloat16 an average with a decay of 0.9999 never
      moves. Before ``start_step`` the average equals the parameters exactly, not just up to rounding. Step counts are
      compared as integers. As in TensorFlow, ``1 - average_decay`` is computed in float32, where it is off by 1.6e-4
      at a decay of 0.9999; with ``debias`` and a Python number it is exact.

    Differs from Optax:
      ``optax.ema`` averages updates, not parameters. It keeps the biased average, and divides by ``1 - decay**t``,
      which is no longer right once the decay changes.
    """
    _check_decay(average_decay)
    start_step = check_integer("start_step", start_step, NonNegativeInteger)
    check_flag("dynamic_decay", dynamic_decay)
    if initial not in ("zeros", "params"):
        raise ValueError(f"initial must be 'zeros' or 'params', got {initial!r}")
    check_flag("debias", debias)
    starts_without_weight = debias and initial == "zeros"

    def init_fn(params: optax.Params) -> ParamsEmaState:
        def start(param: Any) -> Any:
            param = widen(param)
            if initial == "zeros" and is_inexact(param):
                return jnp.zeros_like(param)
            if isinstance(param, jax.ShapeDtypeStruct):
                return param
            return jnp.array(param, copy=True)  # the state and the parameters may both be donated

        total_weight = jnp.zeros([], jnp.float32) if starts_without_weight else jnp.ones([], jnp.float32)
        return ParamsEmaState(jnp.zeros([], jnp.int32), jax.tree.map(start, params), total_weight)

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, ParamsEmaState]:
        del extra_args
        if params is None:
            raise ValueError("params_ema needs the parameters: call update(updates, state, params), got None")
        count = jnp.asarray(optax.safe_increment(state.count))
        started = count >= start_step
        steps = jnp.maximum(count - start_step, 0).astype(jnp.float32)
        decay = average_decay(state.count) if callable(average_decay) else average_decay
        decay = jnp.clip(jnp.asarray(decay, jnp.float32), 0, 1)  # a cosine up to 1 may round to more than 1
        if dynamic_decay:
            decay = jnp.minimum(decay, (1 + steps) / (10 + steps))
        weight, total_weight = 1 - decay, jnp.asarray(state.total_weight, jnp.float32)
        if starts_without_weight:
            if isinstance(average_decay, int | float):  # without rounding the decay, which near 1 changes 1 - decay
                weight = jnp.float32(1 - average_decay)
                weight = jnp.maximum(weight, 9 / (10 + steps)) if dynamic_decay else weight
            total_weight = jnp.where(started, total_weight + weight * (1 - total_weight), 1)
            weight = weight / jnp.maximum(total_weight, FLOAT32_TINY)  # 0 / 0 until a decay is less than 1
        # Every leaf below depends on these scalars: the barrier keeps XLA from recomputing them in each leaf's fusion.
        weight, started = jax.lax.optimization_barrier((weight, started))

        def average(old: jax.Array, param: jax.Array, update: Any) -> jax.Array:
            new = apply_update(param, update)
            if not is_inexact(new):
                return new
            new = new.astype(old.dtype)
            return jnp.where(started, old - weight.astype(old.dtype) * (old - new), new)

        return updates, ParamsEmaState(count, jax.tree.map(average, state.ema, params, updates), total_weight)

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
        averages = fill(averages, state.ema, _refuse)
    return averages if params is None else fill(averages, params, _cast)


def _check_decay(average_decay: "optax.ScalarOrSchedule") -> None:
    """Raise ValueError unless the decay is in [0, 1]; of a schedule, the decay of the first step, if it is concrete."""
    check_rate("average_decay", average_decay, Fraction)
    if not callable(average_decay):
        return
    first = jnp.asarray(average_decay(jnp.zeros([], jnp.int32)))
    if first.ndim != 0:
        raise ValueError(f"average_decay must be a schedule of numbers, got one of arrays of shape {first.shape}")
    if is_concrete(first) and not 0 <= first <= 1 + 1e-6:  # a rounding error above 1 is held at 1
        raise ValueError(f"average_decay must be in [0, 1], got a schedule that is {float(first):g} at step 0")


# From the path of a parameter, and what the upper and the lower tree have there, to what stands there.
_Both = Callable[[tuple[Any, ...], Any, Any], Any]


def fill(upper: Any, lower: Any, both: _Both, path: tuple[Any, ...] = ()) -> Any:
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
    uppers, upper_structure = children_of(upper)
    lowers, structure = children_of(lower)
    are_boxes = is_one_parameter(upper) and is_one_parameter(lower) and len(uppers) == len(lowers)
    if upper_structure != structure and not are_boxes:
        raise ValueError(
            f"params must have the structure of the parameters that are averaged, got {structure} at "
            f"{join_path(path)!r} where {upper_structure} is averaged"
        )
    nodes = zip(uppers, lowers, strict=True)
    return structure.unflatten(fill(u, lo, both, (*path, *key)) for (_, u), (key, lo) in nodes)


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
