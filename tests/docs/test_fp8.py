"""docs/fp8.md: its steps run, and what it says of Flax's fp8 state and of loss scaling holds for Flax's own layers."""

import functools
import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.linen import fp8_ops
from flax.training.train_state import TrainState

import optax_ext
from optax_ext import config
from tests.marks import slow_unless

PAGE = Path(__file__).parents[2] / "docs" / "fp8.md"
LINEN, AVERAGED, NNX = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
FP8 = fp8_ops.OVERWRITE_WITH_GRADIENT
INPUTS = jax.random.normal(jax.random.key(0), (16, 16))

pytestmark = pytest.mark.filterwarnings("ignore:The Fp8DotGeneralOp is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def namespace():
    names = {}
    exec(compile(LINEN, PAGE.name, "exec"), names)
    return names


class Network(nn.Module):
    operation: type[nn.Module]

    @nn.compact
    def __call__(self, inputs):
        operation = functools.partial(self.operation, amax_history_length=4)
        dense = functools.partial(nn.Dense, dot_general_cls=operation, use_bias=False)  # a bias would see the overflow
        hidden = nn.relu(dense(32)(inputs))
        return dense(16)(hidden)


OPERATIONS = slow_unless(
    lambda operation: operation is fp8_ops.Fp8DirectDotGeneralOp,
    [fp8_ops.Fp8DotGeneralOp, fp8_ops.Fp8DirectDotGeneralOp],
)


@functools.cache
def made(operation):
    network = Network(operation)
    return network, jax.jit(network.init)(jax.random.key(1), INPUTS)


@functools.partial(jax.jit, static_argnames="network")
def scaled_grads(network, variables, scale, factor=1.0, inputs=INPUTS):
    def loss_fn(variables):
        return factor * jnp.mean((network.apply(variables, inputs) - jnp.sin(INPUTS)) ** 2)

    opt_state = optax_ext.fixed_loss_scaling(optax.identity(), scale).init({})
    return optax_ext.value_and_grad(loss_fn, opt_state)(variables)[1]


def of_layer(variables, layer):
    (found,) = variables[FP8][layer].values()
    return found


def test_the_steps_skip_the_bad_batch_and_leave_nothing_non_finite(namespace, capsys):
    exec(compile(AVERAGED, PAGE.name, "exec"), namespace)
    assert capsys.readouterr().out == "1 True\n"
    state = namespace["state"]
    chex.assert_tree_all_finite(state.params)
    first = of_layer(namespace["variables"], "Dense_0")
    last = of_layer(state.params, "Dense_0")
    assert all((first[name] != last[name]).any() for name in first)  # they are overwritten, in the other steps
    assert namespace["loss"] < 0.2


@pytest.mark.parametrize(
    ("operation", "optimizer"),
    [(fp8_ops.Fp8DotGeneralOp, "adamw"), pytest.param(fp8_ops.Fp8DirectDotGeneralOp, "lars", marks=pytest.mark.slow)],
)
def test_overwritten_values_are_flaxs_own_and_stay_in_a_skipped_step(namespace, operation, optimizer):
    network, variables = made(operation)
    inner = optax_ext.lars(0.1) if optimizer == "lars" else optax.adamw(1e-2)
    tx = optax_ext.dynamic_loss_scaling(inner, initial_scale=8.0)
    make = functools.partial(namespace["Fp8TrainState"].create, apply_fn=network.apply, tx=tx)
    train_step = namespace["train_step"]
    healthy = state = make(params=variables)
    assert jax.tree.structure(optax.tree.get(state.opt_state, "mu" if optimizer == "adamw" else "trace")) == (
        jax.tree.structure(variables["params"])
    )
    for step in range(6):
        if step == 3:
            before = state
            state, _ = train_step(state, INPUTS.at[0, 0].set(jnp.nan), jnp.sin(INPUTS))
            chex.assert_trees_all_equal(state.params, before.params)
            assert state.opt_state.skipped_steps == 1
            state = state.replace(opt_state=before.opt_state)  # but for the scale, the step never was
            continue
        grads = scaled_grads(network, state.params, state.opt_state.loss_scale)
        state, _ = train_step(state, INPUTS, jnp.sin(INPUTS))
        chex.assert_trees_all_close(state.params[FP8], grads[FP8], rtol=1e-5)
        healthy, _ = train_step(healthy, INPUTS, jnp.sin(INPUTS))
    chex.assert_trees_all_equal(state.params, healthy.params)


def test_flaxs_own_train_state_keeps_a_nan_in_the_history_and_so_its_scale():
    network, variables = made(fp8_ops.Fp8DirectDotGeneralOp)
    tx = optax_ext.dynamic_loss_scaling(optax.sgd(0.1), initial_scale=8.0)
    state = TrainState.create(apply_fn=network.apply, params=variables, tx=tx)
    step = jax.jit(lambda state, grads: state.apply_gradients(grads=grads))
    for inputs in (INPUTS, INPUTS.at[0, 0].set(jnp.nan), 4 * INPUTS, INPUTS):
        state = step(state, scaled_grads(network, state.params, state.opt_state.loss_scale, inputs=inputs))
    fp8 = of_layer(state.params, "Dense_0")
    assert np.isnan(fp8["input_amax_history"]).sum() == 1
    np.testing.assert_allclose(fp8["input_scale"], jnp.abs(INPUTS).max() / 448, rtol=1e-6)  # 4 times that is right


@pytest.mark.parametrize("operation", OPERATIONS)
def test_fp8_clips_an_overflow_which_only_a_history_shows(namespace, operation):
    network, variables = made(operation)
    tx = optax_ext.fixed_loss_scaling(optax.sgd(0.1), 2.0**26)
    state = namespace["Fp8TrainState"].create(apply_fn=network.apply, params=variables, tx=tx)
    grads = scaled_grads(network, variables, 2.0**26, factor=1e35)
    chex.assert_tree_all_finite(grads["params"])
    assert np.isinf(of_layer(grads, "Dense_1")["output_grad_amax_history"][0])
    _, alone = jax.jit(tx.update)(grads["params"], state.opt_state, variables["params"])
    assert alone.grads_finite
    skipped = jax.jit(lambda state, grads: state.apply_gradients(grads=grads))(state, grads)
    assert not skipped.opt_state.grads_finite
    chex.assert_trees_all_equal(skipped.params, variables)


SPIKE_RULE = {"max_norm_ratio": 4.0, "warmup_steps": 0}
WITH_A_GUARD = {
    "alone": lambda: optax_ext.skip_bad_steps(optax.sgd(0.1), **SPIKE_RULE),
    "in a scale": lambda: optax_ext.fixed_loss_scaling(WITH_A_GUARD["alone"](), 1.0),
    "in a chain in a scale": lambda: optax_ext.fixed_loss_scaling(optax.chain(WITH_A_GUARD["alone"]()), 1.0),
}


@pytest.mark.parametrize("place", WITH_A_GUARD)
def test_a_rejected_spike_leaves_what_is_overwritten(namespace, place):
    network, variables = made(fp8_ops.Fp8DirectDotGeneralOp)
    state = namespace["Fp8TrainState"].create(apply_fn=network.apply, params=variables, tx=WITH_A_GUARD[place]())
    grads = scaled_grads(network, variables, 1.0)
    step = jax.jit(lambda state, grads: state.apply_gradients(grads=grads))
    state = step(state, grads)
    chex.assert_trees_all_equal(state.params[FP8], grads[FP8])
    spike = {"params": jax.tree.map(lambda leaf: 100 * leaf, grads["params"])}
    spike[FP8] = jax.tree.map(lambda leaf: 2 * leaf, grads[FP8])
    chex.assert_trees_all_equal(step(state, spike).params, state.params)
    again = step(step(state, spike), grads)
    chex.assert_trees_all_equal(again.params[FP8], grads[FP8])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_loss_scale_reaches_only_what_is_known_of_output_gradients(operation):
    network, variables = made(operation)
    found = {}
    for scale in (1.0, 1024.0):
        fp8 = variables[FP8]
        for _ in range(3):
            fp8 = scaled_grads(network, {"params": variables["params"], FP8: fp8}, scale)[FP8]
        found[scale] = {FP8: fp8}
    for layer in ("Dense_0", "Dense_1"):
        plain, scaled = (of_layer(found[scale], layer) for scale in found)
        for name in plain:
            factor = 1024 if name.startswith("output_grad") else 1
            rtol = 0 if layer == "Dense_1" else 0.1  # its gradients come through fp8, which clips and rounds them
            np.testing.assert_allclose(scaled[name], factor * plain[name], rtol=rtol, err_msg=name)


def test_gradients_are_clipped_in_the_first_step_and_after_the_scale_grew():
    network, variables = made(fp8_ops.Fp8DirectDotGeneralOp)

    def norm(scale, fp8=variables[FP8]):
        grads = scaled_grads(network, {"params": variables["params"], FP8: fp8}, scale)
        return jnp.linalg.norm(grads["params"]["Dense_1"]["kernel"]) / scale, grads[FP8]

    right, fp8 = norm(1024.0)
    assert norm(2.0**26)[0] < 0.5 * right
    for scale, clips in [(1024.0, False), (4096.0, True), (4096.0, False)]:
        found, fp8 = norm(scale, fp8)
        assert (found < 0.8 * right) == clips, scale
    assert jnp.finfo(jnp.float8_e5m2).max == 57344


@pytest.mark.parametrize(
    "wrapper",
    [
        optax_ext.dynamic_loss_scaling,
        lambda tx: optax_ext.fixed_loss_scaling(tx, 8.0),
        optax_ext.skip_bad_steps,
        lambda tx: optax_ext.lars(0.1),
        lambda tx: config.AdamW(0.1).make(),
    ],
)
def test_all_variables_are_an_error_that_says_what_to_give(wrapper):
    _, variables = made(fp8_ops.Fp8DirectDotGeneralOp)
    for params in (variables, {"model": variables}, jax.eval_shape(lambda: variables)):
        with pytest.raises(
            ValueError, match=r"'.*_overwrite_with_gradient/Dense_0/.*': give only variables\['params'\]"
        ):
            wrapper(optax.sgd(0.1)).init(params)
    wrapper(optax.sgd(0.1)).init(variables["params"])
    wrapper(optax.sgd(0.1)).init({"kept": {"_overwrite_with_gradients": jnp.ones(2)}})


def test_flax_nnx(namespace):
    exec(compile(NNX, PAGE.name, "exec"), namespace)
    model, optimizer = namespace["model"], namespace["optimizer"]
    overwritten = nnx.state(model, namespace["Overwritten"])
    chex.assert_tree_all_finite(overwritten)
    assert len(jax.tree.leaves(overwritten)) == 12
    assert all((leaf != 1).all() for leaf in jax.tree.leaves(overwritten) if leaf.shape == (1,))
    assert optimizer.opt_state.skipped_steps[...] == 1
    assert namespace["loss"] < 0.2
    with pytest.raises(ValueError, match="or with NNX wrt=nnx.Param, and overwrite the rest"):
        nnx.Optimizer(model, optax_ext.dynamic_loss_scaling(optax.sgd(0.1)), wrt=nnx.Variable)


def test_the_page_is_linked():
    assert "(fp8.md)" in (PAGE.parent / "misuse.md").read_text()


def test_an_optimizer_may_see_holes_where_the_fp8_state_was():
    _, variables = made(fp8_ops.Fp8DirectDotGeneralOp)
    groups = {"train": optax_ext.lars(0.1), "keep": optax.set_to_zero()}
    optax.partition(groups, {"params": "train", FP8: "keep"}).init(variables)
