"""Schedule-free learning: gradients are taken between a fast sequence of parameters and its average."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import Scalar, check_number
from optax_ext._core.field_types import PositiveFraction
from optax_ext._core.opt_states import check_opt_state, find_one
from optax_ext._core.precision import apply_update, as_array, widen
from optax_ext._core.public import public
from optax_ext._core.trees import PyTree, is_none
from optax_ext.transforms._params_ema import fill


@public
class ScheduleFreeState(NamedTuple):
    """What `schedule_free` keeps; ``optax.contrib.schedule_free_eval_params`` reads it too.

    Attributes:
      count: The number of updates so far, int32.
      b1: The weight of the average where gradients are taken, float32.
      z: The sequence of parameters that the updates move, in at least float32.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> state = transforms.schedule_free(0.9).init(jnp.ones(2))
      >>> print(state.z)
      [1. 1.]
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  # Optax's name; a tuple's method goes
    b1: jax.Array
    z: PyTree


@public
def schedule_free(b1: Scalar) -> optax.GradientTransformation:
    """Move a sequence ``z`` by the updates, average it in ``x``, and keep the parameters between the two.

    ```text
    x = (p - (1 - b1) * z) / b1         the average so far, found again from the parameters
    z = z + u
    x = x + (z - x) / t                 of z after each step up to t, with equal weights
    p = (1 - b1) * z + b1 * x
    ```

    It comes last in a chain, after the learning rate, and takes the place of momentum. Evaluate, and in the end keep,
    the average ``x``, which [`schedule_free_eval_params`][optax_ext.transforms.schedule_free_eval_params] returns.

    Args:
      b1: The weight of the average in the parameters, above 0 and at most 1.

    Returns:
      A transformation that needs ``params``. Its state is a
      [`ScheduleFreeState`][optax_ext.transforms.ScheduleFreeState].

    Raises:
      ValueError: If ``b1`` is out of its range, or if ``update`` is called without ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from optax_ext import transforms
      >>> tx = optax.chain(optax.sgd(0.5), transforms.schedule_free(0.9))
      >>> params = jnp.array([2.0])
      >>> state = tx.init(params)
      >>> for _ in range(20):
      ...     updates, state = tx.update(2 * params, state, params)  # the gradient of the square
      ...     params = optax.apply_updates(params, updates)
      >>> print(params, transforms.schedule_free_eval_params(state, params))
      [0.] [0.]

    References:
      Defazio et al., [arXiv:2405.15682](https://arxiv.org/abs/2405.15682), equations 3 to 5.

    Differs from Optax:
      ``optax.contrib.schedule_free`` weighs each step by a power of the largest learning rate so far, and is this with
      ``weight_lr_power=0``. It counts in the dtype of the parameters, which in bfloat16 stops at 256.
    """
    check_number("b1", b1, PositiveFraction)

    def init_fn(params: optax.Params) -> ScheduleFreeState:
        def start(param: Any) -> jax.Array:
            wide = widen(param)
            if isinstance(wide, jax.ShapeDtypeStruct):
                return jnp.zeros_like(wide)
            return jnp.array(wide, copy=True)  # the state and the parameters may both be donated

        return ScheduleFreeState(jnp.zeros([], jnp.int32), jnp.asarray(b1, jnp.float32), jax.tree.map(start, params))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScheduleFreeState]:
        if params is None:
            raise ValueError("schedule_free needs the parameters: call update(updates, state, params), got None")
        count = jnp.asarray(optax.safe_increment(state.count))
        weight = 1 / count.astype(jnp.float32)

        def move(update: Any, param: Any, z: jax.Array) -> jax.Array | None:
            if update is None:
                return None
            wide = widen(param).astype(z.dtype)
            new_z, of_average = apply_update(z, update), state.b1.astype(z.dtype)
            x = _average(wide, z, of_average)
            x = x + weight.astype(z.dtype) * (new_z - x)
            return ((1 - of_average) * new_z + of_average * x - wide).astype(jnp.result_type(update))

        def move_z(update: Any, z: jax.Array) -> jax.Array:
            return z if update is None else apply_update(z, update)

        moved = jax.tree.map(move, updates, params, state.z, is_leaf=is_none)
        z = jax.tree.map(move_z, updates, state.z, is_leaf=is_none)
        return moved, state._replace(count=count, z=z)

    return optax.GradientTransformation(init_fn, update_fn)


@public
def schedule_free_eval_params(opt_state: optax.OptState, params: optax.Params) -> optax.Params:
    """Return the average of the parameters that schedule-free training moves, for evaluation.

    Args:
      opt_state: An optimizer state that holds one
        [`ScheduleFreeState`][optax_ext.transforms.ScheduleFreeState] at any depth.
      params: The parameters that the last step left, which are not the average themselves.

    Returns:
      The averages in the structure and the dtypes of the parameters; a parameter that is not trained, as it is.

    Raises:
      TypeError: If ``opt_state`` is not an optimizer state.
      ValueError: If it holds no such state or several, or if ``params`` does not have its structure.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from optax_ext import config, transforms
      >>> tx = config.ScheduleFreeAdamW(0.1).make()
      >>> params = {"w": jnp.array([3.0, -3.0])}
      >>> state = tx.init(params)
      >>> for _ in range(4):
      ...     grads = {"w": 2 * params["w"]}
      ...     updates, state = tx.update(grads, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> eval_params = transforms.schedule_free_eval_params(state, params)  # give these to the model
      >>> print(params["w"].round(3), eval_params["w"].round(3))
      [ 2.739 -2.739] [ 2.753 -2.753]
    """
    check_opt_state(opt_state)
    state = find_one(opt_state, ScheduleFreeState)
    if state is None:
        raise ValueError("opt_state must hold one ScheduleFreeState, got 0: add schedule_free to the chain")
    b1 = state.b1

    def average(path: tuple[Any, ...], z: Any, param: Any) -> jax.Array:
        del path
        param = as_array(param)
        return _average(widen(param).astype(z.dtype), z, b1.astype(z.dtype)).astype(param.dtype)

    with_holes = jax.tree.map(lambda z: optax.MaskedNode() if z is None else z, state.z, is_leaf=is_none)
    return fill(with_holes, params, average)


def _average(param: jax.Array, z: jax.Array, b1: jax.Array) -> jax.Array:
    """Return `x` from parameters that are `(1 - b1) * z + b1 * x`."""
    return (param - (1 - b1) * z) / b1
