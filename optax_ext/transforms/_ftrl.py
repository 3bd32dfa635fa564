"""FTRL-proximal, as TensorFlow computes it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.norms import root
from optax_ext._core.precision import widen
from optax_ext._core.public import public
from optax_ext._core.trees import PyTree, is_none
from optax_ext.transforms._moments import clip_to_finite, square
from optax_ext.transforms._scale_by_factors import Factors, spread


@public
class FtrlState(NamedTuple):
    """The state of [`ftrl`][optax_ext.transforms.ftrl].

    Attributes:
      count: How many updates came before, int32.
      accumulator: The sum of squared gradients, a tree like the parameters in at least float32.
      linear: The linear term, another.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> state = transforms.ftrl(0.1, initial_accumulator_value=0.5).init(jnp.zeros(2))
      >>> print(state.count, state.accumulator, state.linear)
      0 [0.5 0.5] [0. 0.]
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  # Optax's name; a tuple's method goes
    accumulator: PyTree
    linear: PyTree
    counts_for_schedules = True  # no field: the rate is all that the count is for


@public
def ftrl(
    learning_rate: optax.ScalarOrSchedule,
    *,
    learning_rate_power: float = -0.5,
    initial_accumulator_value: float = 0.1,
    l1_regularization_strength: float = 0.0,
    l2_regularization_strength: float = 0.0,
    l2_shrinkage_regularization_strength: float = 0.0,
    beta: float = 0.0,
    rate_factors: Factors | None = None,
) -> optax.GradientTransformation:
    """Set each parameter to the minimum of what the gradients so far say of it: "follow the regularized leader".

    ```text
    n' = n + g**2
    z = z + g + 2 * l2_shrinkage * p - (n'**-power - n**-power) / learning_rate * p
    p = -sign(z) * max(|z| - l1, 0) / ((n'**-power + beta) / learning_rate + 2 * l2)
    n = n'
    ```

    The first step forgets where a parameter began, in so far as ``initial_accumulator_value`` outweighs its gradient:
    a parameter whose gradient is 0 becomes 0.

    Args:
      learning_rate: At least 0, or a schedule of the step.
      learning_rate_power: At most 0; 0 for a rate that gradients do not reduce.
      initial_accumulator_value: The first ``n``, at least 0.
      l1_regularization_strength: At least 0; makes parameters exactly 0.
      l2_regularization_strength: At least 0.
      l2_shrinkage_regularization_strength: At least 0; a penalty on the parameters as they are, not on where they go.
      beta: At least 0.
      rate_factors: A function from parameters to a tree of numbers, by which the learning rate of each is multiplied,
        such as [`PathFactors`][optax_ext.masks.PathFactors]; None for the same rate everywhere.

    Returns:
      A transformation that needs ``params``, with the state [`FtrlState`][optax_ext.transforms.FtrlState]. Its updates
      contain the learning rate, and have the dtype of the gradients.

    Raises:
      ValueError: If ``update`` is called without ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_ext import transforms
      >>> tx = transforms.ftrl(0.5, initial_accumulator_value=0.0)
      >>> params, grads = jnp.array([1.0, 1.0]), jnp.array([2.0, -3.0])
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> print(updates)  # the first step is of the size of the rate
      [-0.5  0.5]

    References:
      McMahan et al., Ad click prediction: a view from the trenches, KDD 2013, algorithm 1.

    Differs from TensorFlow:
      A step with a learning rate of 0, where TensorFlow returns NaN, changes neither parameters nor sums. A parameter
      without regularization whose gradient has always been 0 stays as it is, where TensorFlow's newer class returns NaN
      with an ``initial_accumulator_value`` of 0. Of complex numbers the magnitude is regularized.
    """

    def init_fn(params: optax.Params) -> FtrlState:
        wide = jax.tree.map(widen, params)
        if rate_factors is not None:
            rate_factors(params)  # to find what does not fit
        first = jax.tree.map(lambda param: jnp.full_like(param, initial_accumulator_value), wide)
        return FtrlState(jnp.zeros([], jnp.int32), first, optax.tree.zeros_like(wide))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        if params is None:
            raise ValueError("FTRL needs the parameters: call update(updates, state, params), got None")
        rate: Any = learning_rate(state.count) if callable(learning_rate) else learning_rate

        def step(
            grad: Any, param: Any, accumulator: jax.Array, linear: jax.Array, factor: Any
        ) -> tuple[Any, jax.Array, jax.Array]:
            if grad is None:
                return None, accumulator, linear
            dtype, real = linear.dtype, linear.real.dtype
            wide, param, of_step = (
                grad.astype(dtype),
                jnp.asarray(param).astype(dtype),
                jnp.asarray(rate, real) * jnp.asarray(factor, real),
            )
            moves = of_step > 0
            positive = jnp.where(moves, of_step, 1)
            total = clip_to_finite(accumulator + square(wide))
            now, before = (_power(squares.real, -learning_rate_power) for squares in (total, accumulator))
            pull = jnp.asarray(2 * l2_shrinkage_regularization_strength, real) - (now - before) / positive
            new = linear + wide + pull.astype(dtype) * param
            curvature = (now + jnp.asarray(beta, real)) / positive
            curvature = curvature + jnp.asarray(2 * l2_regularization_strength, real)
            moves = moves & (curvature > 0)
            target = -_shrink(new, l1_regularization_strength) / jnp.where(moves, curvature, 1).astype(dtype)
            update = jnp.where(moves, target - param, jnp.zeros_like(param))
            return update.astype(grad.dtype), jnp.where(moves, total, accumulator), jnp.where(moves, new, linear)

        grads, structure = jax.tree.flatten(updates, is_leaf=is_none)
        factors = jax.tree.map(lambda _: 1.0, updates) if rate_factors is None else spread(rate_factors, updates)
        trees = (params, state.accumulator, state.linear, factors)
        others = [jax.tree.leaves(tree, is_leaf=is_none) for tree in trees]
        steps = [step(*leaves) for leaves in zip(grads, *others, strict=True)]
        moved, accumulator, linear = (structure.unflatten([of_leaf[part] for of_leaf in steps]) for part in range(3))
        return moved, FtrlState(jnp.asarray(optax.safe_increment(state.count)), accumulator, linear)

    return optax.GradientTransformation(init_fn, update_fn)


def _power(squares: jax.Array, exponent: float) -> jax.Array:
    """Return a power of sums of squares, with a finite derivative at 0."""
    if exponent == 0.5:
        return root(squares)
    if exponent == 0:
        return jnp.ones_like(squares)
    is_zero = squares == 0
    return jnp.where(is_zero, 0, jnp.where(is_zero, 1, squares) ** jnp.asarray(exponent, squares.dtype))


def _shrink(numbers: jax.Array, limit: float) -> jax.Array:
    """Return numbers with their magnitudes less a limit, and 0 where they are below it."""
    if limit == 0:
        return numbers
    magnitude = jnp.abs(numbers)
    left = jnp.maximum(magnitude - jnp.asarray(limit, magnitude.dtype), 0)
    return (left / jnp.where(left > 0, magnitude, 1)).astype(numbers.dtype) * numbers
