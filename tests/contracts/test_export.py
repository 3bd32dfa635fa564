"""A training step is exported for CPUs, GPUs and TPUs, and is the same step when it comes back."""

import itertools

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from jax import export

import optax_ext
from tests.marks import slow_unless

PARAMS = {"kernel": jnp.linspace(-1, 1, 12).reshape(4, 3), "bias": jnp.ones(3)}
BATCH = jnp.linspace(0, 1, 8).reshape(2, 4)
OPTIMIZERS = {
    "lars": optax_ext.lars(0.5, weight_decay=0.1),
    "popular lars": optax_ext.lars(0.5, weight_decay=0.1, nesterov=True, classic_momentum=False),
    "lamb": optax_ext.lamb(optax_ext.CosineDecay(0.1, 100), weight_decay=0.1),
}


def make_step(tx):
    def step(params, state, batch):
        def loss_fn(params):
            return jnp.sum((batch @ params["kernel"] + params["bias"]) ** 2)

        loss, grads = optax_ext.value_and_grad(loss_fn, state)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), jax.tree.leaves(state), loss

    return step


@pytest.mark.parametrize(
    ("name", "dtype"),
    slow_unless(
        lambda name, dtype: dtype == "float32" or name == "popular lars",
        itertools.product(OPTIMIZERS, ("float32", "bfloat16")),
    ),
)
def test_export_for_every_platform(name, dtype):
    tx = optax_ext.dynamic_loss_scaling(OPTIMIZERS[name])
    params, batch = jax.tree.map(lambda leaf: leaf.astype(dtype), (PARAMS, BATCH))
    state = tx.init(params)
    step = jax.jit(make_step(tx))
    leaves, structure = jax.tree.flatten(state)

    def flat_step(params, leaves, batch):  # serialised programs know dicts and lists, and no states of Optax
        return step(params, structure.unflatten(leaves), batch)

    exported = export.export(jax.jit(flat_step), platforms=["cpu", "cuda", "tpu"])(params, leaves, batch)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert not exported.disabled_safety_checks
    call = jax.jit(exported.call)
    rtol = 1e-6 if dtype == "float32" else 2e-2
    for each in (batch, batch * jnp.inf):  # the second overflows, and its step is skipped
        chex.assert_trees_all_close(call(params, leaves, each), step(params, state, each), rtol=rtol)
