"""One small training with two faults, written once, that every placement on devices has to repeat."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

import optax_ext

STEPS = 7
BAD_BATCH, BAD_GRADIENT = 1, 3  # the steps with an infinity in one example, and in one entry of the gradient
FINITE = [step not in (BAD_BATCH, BAD_GRADIENT) for step in range(STEPS)]
SCALES = [8.0, 4.0, 4.0, 2.0, 2.0, 4.0, 4.0]  # after each step: halved by each fault, doubled by two good steps

_MASK = optax_ext.path_mask(exclude=["bias"])
# A rate that moves the parameters by a tenth or so in each step: a wrong norm cannot hide behind the tolerance.
_OPTIMIZERS = {
    "lars": functools.partial(optax_ext.lars, 0.5, trust_coefficient=0.2, weight_decay=0.1),
    "popular lars": functools.partial(
        optax_ext.lars,
        optax_ext.CosineDecay(0.5, 10),
        trust_coefficient=0.2,
        weight_decay=0.1,
        classic_momentum=False,
        nesterov=True,
        weight_decay_mask=_MASK,
        trust_ratio_mask=_MASK,
    ),
    "lamb": functools.partial(optax_ext.lamb, 0.1, weight_decay=0.1),
}
OPTIMIZERS = tuple(_OPTIMIZERS)


def make(name: str, norm_axis: Any = None, skip_axis: Any = None) -> optax.GradientTransformationExtraArgs:
    inner = _OPTIMIZERS[name](axis_name=norm_axis)
    return optax_ext.dynamic_loss_scaling(inner, initial_scale=8.0, growth_steps=2, axis_name=skip_axis)


def make_params() -> Any:
    shapes = {"hidden": {"kernel": (8, 16), "bias": (16,)}, "head": {"kernel": (16, 8), "bias": (8,)}}
    random = np.random.default_rng(0)
    draw = lambda shape: random.uniform(-1, 1, shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=lambda node: isinstance(node, tuple))


def make_batch(step: int) -> Any:
    """Return 16 examples, one with an infinity in the step of that fault."""
    random = np.random.default_rng(step + 1)
    inputs, targets = random.uniform(-1, 1, (2, 16, 8)).astype(np.float32)
    if step == BAD_BATCH:
        inputs[11, 3] = np.inf
    return inputs, targets


def make_fault(step: int) -> Any:
    """Return what is added to the gradients: nothing, or one infinity in a leaf that placements split."""
    fault = jax.tree.map(np.zeros_like, make_params())
    if step == BAD_GRADIENT:
        fault["hidden"]["kernel"][5, 11] = np.inf
    return fault


def mean_squared_error(params: Any, batch: Any, sum_parts: Callable[[jax.Array], jax.Array] = lambda x: x) -> jax.Array:
    """Return the loss of a network with one hidden layer; `sum_parts` adds what a split hidden layer gives."""
    inputs, targets = batch
    hidden = jnp.tanh(inputs @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    outputs = sum_parts(hidden @ params["head"]["kernel"]) + params["head"]["bias"]
    return jnp.mean((outputs - targets) ** 2)


def make_step(
    tx: optax.GradientTransformation,
    loss_fn: Callable[[Any, Any], jax.Array],
    traces: list,
    average: Callable[[Any, Any], Any] = lambda *loss_and_grads: loss_and_grads,
) -> Callable:
    """Make a step that notes in `traces` each time Python runs it; `average` is over devices, where JAX does not."""

    def step(params: Any, state: Any, batch: Any, fault: Any) -> Any:
        traces.append(None)
        loss, grads = average(*optax_ext.value_and_grad(loss_fn, state)(params, batch))
        updates, state = tx.update(jax.tree.map(jnp.add, grads, fault), state, params)
        return optax.apply_updates(params, updates), state, loss

    return step


def state_specs(tx: optax.GradientTransformation, specs: Any) -> Any:
    """Return the partition of the state: the parameters' for what is like them, and replicated scalars."""
    state = tx.init(make_params())
    return optax.tree.map_params(tx, lambda _, spec: spec, state, specs, transform_non_params=lambda _: P())


class Run(NamedTuple):
    """What a training went through; the state without `inner_state`, after each step, is `history`."""

    params: Any
    state: Any
    history: list[Any]
    losses: list[float]


def train(
    step: Callable,
    params: Any,
    state: Any,
    put: Callable[[Any, Any], Any] = lambda batch, fault: (batch, fault),
    to_host: Callable[[Any], Any] = jax.device_get,
    look: Callable[[Any, Any], None] = lambda params, state: None,
) -> Run:
    """Train for `STEPS` steps and make sure that those with a fault leave everything but the scale as it was."""
    history, losses = [], []
    before = to_host((params, state))
    for index in range(STEPS):
        params, state, loss = step(params, state, *put(make_batch(index), make_fault(index)))
        look(params, state)
        after = to_host((params, state))
        if not FINITE[index]:
            kept = lambda run: (run[0], run[1].inner_state)  # noqa: E731
            jax.tree.map(np.testing.assert_array_equal, kept(after), kept(before))
        history.append(after[1]._replace(inner_state=()))
        losses.append(float(to_host(loss)))
        before = after
    return Run(*before, history, losses)


@functools.cache
def train_on_one_device(name: str) -> Run:
    tx, params = make(name), make_params()
    run = train(jax.jit(make_step(tx, mean_squared_error, [])), params, tx.init(params))
    assert [bool(state.grads_finite) for state in run.history] == FINITE
    assert [float(state.loss_scale) for state in run.history] == SCALES
    return run


def assert_same_training(run: Run, expected: Run, norm_factor: float = 1.0) -> None:
    """Compare everything of two runs: scales, counters and skips exactly, the rest to 1e-6."""
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    for state, other in zip(run.history, expected.history, strict=True):
        close(state.grad_norm, other.grad_norm * norm_factor)
        jax.tree.map(np.testing.assert_array_equal, state._replace(grad_norm=0), other._replace(grad_norm=0))
    jax.tree.map(close, run.params, expected.params)
    state = run.state._replace(grad_norm=expected.state.grad_norm)  # compared above
    jax.tree.map(close, state, expected.state)
    finite = np.array(FINITE)
    close(np.array(run.losses)[finite], np.array(expected.losses)[finite])
