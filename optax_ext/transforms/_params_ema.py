"""An exponential moving average of the parameters, for evaluation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_ext.transforms._arguments import Scalar, check_flag, check_number
from optax_ext.transforms._precision import is_inexact, widen
from optax_ext.transforms._trees import find_nodes


class ParamsEmaState(NamedTuple):
    """The state of a moving average of parameters.

    Attributes:
      count: Updates so far; int32 scalar.
      ema: The averages, in the structure of the parameters and in at least float32.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  # Optax's name; a tuple's method goes
    ema: optax.Params


def params_ema(
    average_decay: Scalar = 0.99, *, start_step: Scalar = 0, dynamic_decay: bool = True, initial: str = "zeros"
) -> optax.GradientTransformationExtraArgs:
    r"""Average the parameters over the steps, exponentially; for the end of a chain, which it leaves as it is.

    With $p_t$ the parameters after step $t = 1, 2, \ldots$, which are ``params`` plus ``updates``,

    $$a_t = a_{t-1} - (1 - d_t)(a_{t-1} - p_t), \qquad
      d_t = \min\left(\mathrm{average\_decay}, \frac{1 + t - s}{10 + t - s}\right)$$

    where $s$ is ``start_step``. Until then the average is the newest parameters: $a_t = p_t$ for $t < s$. Without
    ``dynamic_decay``, $d_t$ is ``average_decay``.

    Put it last, so that it sees the updates as they are applied, and inside loss scaling, so that a skipped step
    leaves the averages bit by bit as they were. [`ema_params`][optax_ext.ema_params] finds the averages.

    Batch statistics are not updated by an optimizer. Average them with a second ``params_ema`` over their tree, whose
    ``update`` is called once a step with zero updates and the newest statistics as ``params``.

    Args:
      average_decay: The part of the average that a step keeps, in [0, 1]; 1 never moves.
      start_step: $s$, the first step that averages, counted from 1; at least 0.
      dynamic_decay: Whether the decay grows from 0.1 up to ``average_decay``, so that early parameters, and zeros
        at the start, are soon forgotten.
      initial: The first average: ``"zeros"``, TensorFlow's, or ``"params"``. Without ``dynamic_decay``, zeros bias the
        average for some ``1 / (1 - average_decay)`` steps.

    Returns:
      A transformation that needs ``params`` and returns the updates as they are; its state is a
      [`ParamsEmaState`][optax_ext.ParamsEmaState]. Integer leaves and keys are kept at their newest, not averaged.

    Raises:
      ValueError: If an argument is out of its range, or ``update`` is called without ``params``.

    Example:
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
      moves. Before ``start_step`` the average is the parameters exactly, rather than up to rounding. Step counts
      are compared as integers.

    Differs from Optax:
      ``optax.ema`` averages updates, not parameters.
    """
    check_number("average_decay", average_decay, "in [0, 1]")
    check_number("start_step", start_step, "at least 0", integer=True)
    check_flag("dynamic_decay", dynamic_decay)
    if initial not in ("zeros", "params"):
        raise ValueError(f"initial must be 'zeros' or 'params', got {initial!r}")

    def init_fn(params: optax.Params) -> ParamsEmaState:
        def start(param: Any) -> jax.Array:
            param = jnp.asarray(param)
            if initial == "zeros" and is_inexact(param):
                return jnp.zeros_like(widen(param))
            return jnp.array(widen(param), copy=True)  # the state and the parameters may both be donated

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
        # One scalar that every leaf below depends on: the barrier keeps XLA from computing it anew in each of them.
        weight, started = jax.lax.optimization_barrier((1 - decay, count >= start_step))

        def average(old: jax.Array, param: jax.Array, update: Any) -> jax.Array:
            new = _apply(param, update)
            if not is_inexact(new):
                return new
            new = new.astype(old.dtype)
            return jnp.where(started, old - weight.astype(old.dtype) * (old - new), new)

        return updates, ParamsEmaState(count=count, ema=jax.tree.map(average, state.ema, params, updates))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def ema_params(opt_state: optax.OptState, params: optax.Params | None = None) -> optax.Params:
    """Return the averaged parameters in an optimizer state, to evaluate with.

    Args:
      opt_state: An optimizer state that holds one [`ParamsEmaState`][optax_ext.ParamsEmaState], at any depth.
      params: Parameters whose dtypes the averages are cast to; None leaves them in at least float32.

    Returns:
      The averages, in the structure of the parameters. They are the arrays of the state, not copies: use them before
      the state is donated to the next step.

    Raises:
      ValueError: If the state holds no average of parameters, or several.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import optax_ext
      >>> tx = optax_ext.dynamic_loss_scaling(optax.chain(optax.sgd(0.1), optax_ext.params_ema(initial="params")))
      >>> params = jnp.ones(2, jnp.bfloat16)
      >>> state = tx.init(params)
      >>> optax_ext.ema_params(state).dtype, optax_ext.ema_params(state, params).dtype
      (dtype('float32'), dtype(bfloat16))
    """
    states = find_nodes(opt_state, ParamsEmaState)
    if len(states) != 1:
        advice = "add params_ema to the chain" if not states else "give the part of the state that holds the one meant"
        raise ValueError(f"opt_state must hold one ParamsEmaState, got {len(states)}: {advice}")
    averages = states[0].ema
    if params is None:
        return averages
    return jax.tree.map(lambda average, param: average.astype(jnp.asarray(param).dtype), averages, params)


def _apply(param: Any, update: Any) -> jax.Array:
    """Return the parameter that `optax.apply_updates` makes; without an update, the parameter."""
    param = jnp.asarray(param)
    is_key = jnp.issubdtype(param.dtype, jax.dtypes.prng_key)
    if update is None or is_key or jnp.result_type(update) == jax.dtypes.float0:
        return param
    return jnp.asarray(param + update).astype(param.dtype)
