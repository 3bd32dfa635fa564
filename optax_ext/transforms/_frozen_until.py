"""Parameters that do not move before a step, while schedules go on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_ext._core.arguments import check_integer, check_transformation
from optax_ext._core.field_types import NonNegativeInteger
from optax_ext._core.opt_states import counts_for_schedules
from optax_ext._core.public import public
from optax_ext._core.trees import PyTree, is_none


@public
class FrozenUntilState(NamedTuple):
    """The state of [`frozen_until`][optax_ext.transforms.frozen_until].

    Attributes:
      steps: The count of steps so far, waiting or not, in a state of its own: so ``optax.tree.set(state, count=...)``
        sets it together with the counts of schedules in the inner state.
      inner_state: The state of the transformation that waits.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from optax_ext import transforms
      >>> transforms.frozen_until(optax.sgd(0.5), 10).init(jnp.ones(2)).steps.count.dtype
      dtype('int32')
    """

    steps: optax.ScaleByScheduleState
    inner_state: PyTree


@public
def frozen_until(inner: optax.GradientTransformation, start_step: int) -> optax.GradientTransformationExtraArgs:
    """Let a transformation wait until a step: updates before it are zero, and momentum and moments stay as they began.

    Its schedules do not wait: they count the steps of training, so that a rate that has decayed for a thousand steps is
    where it would be. The bias correction of Adam counts from the first step that moves. PyTorch does the same with
    parameters whose gradients are None until then, as SwAV keeps its prototypes in place at first.

    Args:
      inner: What waits: an optimizer, or a chain.
      start_step: The first step that moves, counted from 0; at least 0.

    Returns:
      A transformation with the state [`FrozenUntilState`][optax_ext.transforms.FrozenUntilState], for a group of
      ``optax.partition``. Of the inner state, the counts of ``optax.scale_by_schedule``, of
      ``optax.inject_hyperparams``, of schedules of weight decay and of [`ftrl`][optax_ext.transforms.ftrl] go on.

    Raises:
      ValueError: If ``start_step`` is out of its range, or if ``inner`` is not a transformation.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from optax_ext import transforms
      >>> tx = transforms.frozen_until(optax.sgd(lambda step: 1.0 + step), 2)
      >>> params = jnp.zeros(1)
      >>> state = tx.init(params)
      >>> for _ in range(4):
      ...     updates, state = tx.update(jnp.ones(1), state, params)
      ...     print(updates)
      [0.]
      [0.]
      [-3.]
      [-4.]

    References:
      Caron et al., SwAV, [arXiv:2006.09882](https://arxiv.org/abs/2006.09882), section 4.1 and appendix A.1.

    Differs from Optax:
      Inside ``optax.conditionally_mask`` schedules wait too.
    """
    check_transformation("inner", inner)
    start_step = check_integer("start_step", start_step, NonNegativeInteger)
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: optax.Params) -> FrozenUntilState:
        return FrozenUntilState(optax.ScaleByScheduleState(jnp.zeros([], jnp.int32)), inner.init(params))

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, FrozenUntilState]:
        def move() -> tuple[Any, Any]:
            return inner.update(updates, state.inner_state, params, **extra_args)

        def wait() -> tuple[Any, Any]:
            shapes, _ = jax.eval_shape(move)
            zeros = jax.tree.map(_zeros, updates, shapes, is_leaf=is_none)
            return zeros, advance_schedules(state.inner_state)

        moved, inner_state = jax.lax.cond(jnp.asarray(state.steps.count) >= start_step, move, wait)
        return moved, FrozenUntilState(advance_schedules(state.steps), inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def advance_schedules(state: Any) -> Any:
    """Return a state in which schedules have counted a step more, and all else is as it was."""

    def advance(node: Any) -> Any:
        if not counts_for_schedules(node):
            return node
        below = {name: advance_schedules(field) for name, field in node._asdict().items() if name != "count"}
        return node._replace(count=jnp.asarray(optax.safe_increment(node.count)), **below)

    return jax.tree.map(advance, state, is_leaf=counts_for_schedules)


def _zeros(update: Any, shape: Any) -> Any:
    return None if update is None else jnp.zeros_like(update, dtype=shape.dtype, shape=shape.shape)
