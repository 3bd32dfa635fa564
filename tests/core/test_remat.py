"""What is computed again is the same, and is not kept in memory instead."""

import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import optax_ext
from optax_ext._core.remat import remat_scope, rematerializable, rematerialize
from tests.marks import slow_unless

PARAMS = {f"layer{i}": {"kernel": jnp.full((128, 64), 0.1 * i), "bias": jnp.ones(64)} for i in range(1, 7)}
GRADS = jax.tree.map(lambda p: jnp.sin(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), PARAMS)
FEW = ("layer1", "layer2")  # which are enough wherever memory is not counted
FEW_PARAMS, FEW_GRADS = ({name: tree[name] for name in FEW} for tree in (PARAMS, GRADS))
BYTES = sum(leaf.nbytes for leaf in jax.tree.leaves(PARAMS))


def is_kernel(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def make(scaled, weight_decay=1e-4, **options):
    masks = {"weight_decay_mask": is_kernel, "trust_ratio_mask": is_kernel}
    tx = optax_ext.lars(0.1, weight_decay=weight_decay, **masks, **options)
    return optax_ext.dynamic_loss_scaling(tx) if scaled else tx


def compile_step(tx, params=PARAMS, dtype="float32"):
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params).compile()


def count_copies(tx, dtype):
    """Return what a step needs besides its arguments and results, in copies of the parameters."""
    return compile_step(tx, dtype=dtype).memory_analysis().temp_size_in_bytes / (BYTES * jnp.dtype(dtype).itemsize / 4)


fuses_sums = pytest.mark.skipif(jax.__version_info__ < (0, 10), reason="older XLA fuses no sum with anything on a CPU")


@fuses_sums
@pytest.mark.parametrize(
    ("scaled", "weight_decay", "dtype"),
    slow_unless(
        lambda scaled, weight_decay, dtype: scaled or weight_decay,
        itertools.product((False, True), (0, 1e-4), ("float32", "bfloat16")),
    ),
)
def test_a_step_keeps_no_copy_of_the_parameters(scaled, weight_decay, dtype):
    assert count_copies(make(scaled, weight_decay), dtype) < 0.25


@fuses_sums
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("options", [{"nesterov": True}, {"classic_momentum": False}])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_other_forms_keep_at_most_one(options, scaled, dtype):
    keeps_both = scaled and dtype == "bfloat16" and "nesterov" in options  # the momentum and the update
    assert count_copies(make(scaled, **options), dtype) <= (2.05 if keeps_both else 1.05)


def test_the_program_grows_with_the_leaves_and_not_with_their_square():
    def instructions(layers):
        params = {f"layer{i}": jnp.ones((4, 4)) for i in range(layers)}
        return compile_step(make(True), params).as_text().count(" = ")

    few, many = instructions(10), instructions(40)
    assert many < 4.5 * few


@pytest.mark.parametrize("constants", [(), (jnp.float32(2.0),)])
def test_a_remembered_value_is_computed_anew_from_what_it_was_made_of(constants):
    def program(x, y):
        with remat_scope():
            double = rematerializable(lambda x: 2 * x, x)
            total = rematerializable(lambda double, y: double + y, double, y)
            again, *beside = rematerialize(total, *constants)
            assert again is not total
            for constant in beside:
                again = constant * again
            assert rematerialize(x)[0] is x
        assert rematerialize(total)[0] is total  # forgotten with the block
        return total, again

    x, y = jnp.full(2, 3.0), jnp.float32(4.0)
    total, again = jax.jit(program)(x, y)
    assert (total[0], again[0]) == (10.0, 20.0 if constants else 10.0)
    elsewhere = len(constants) * ["tensor<f32>"] * 2  # y and the constant
    for platform, hidden in {"cpu": ["tensor<2xf32>"], "cuda": elsewhere, "tpu": elsewhere}.items():
        lowered = jax.jit(program).trace(x, y).lower(lowering_platforms=(platform,))
        found = re.findall(r"optimization_barrier .* : (\S+)", lowered.as_text().replace(",", ""))
        assert found == hidden


def test_nothing_is_remembered_outside_of_a_trace():
    with remat_scope():
        double = rematerializable(lambda x: 2 * x, jnp.ones(3))
        assert rematerialize(double)[0] is double


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("weight_decay", [0.1, lambda step: 0.1 / (1 + step), optax_ext.Constant(0.1)])
def test_jitted_steps_are_the_steps(dtype, weight_decay):
    tx = optax_ext.lars(0.5, weight_decay=weight_decay, trust_coefficient=0.1)
    params, grads = jax.tree.map(lambda leaf: leaf.astype(dtype), (FEW_PARAMS, FEW_GRADS))
    state = tx.init(params)
    expected, compiled = tx.update(grads, state, params), jax.jit(tx.update)(grads, state, params)
    chex.assert_trees_all_equal_dtypes(compiled, expected)
    chex.assert_trees_all_close(compiled, expected, rtol=2e-6 if dtype == "float32" else 2e-2)


def through_vmap(update, state):
    mapped = jax.vmap(update, in_axes=(0, None, None), out_axes=0)
    return lambda grads, params: jax.tree.map(
        lambda leaf: leaf[1], mapped(jax.tree.map(lambda leaf: jnp.stack([0 * leaf, leaf]), grads), state, params)
    )


def through_shard_map(update, state, *axes):
    spec = P(*axes)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    specs = jax.tree.map(lambda leaf: spec if leaf.ndim else P(), state)
    mapped = jax.shard_map(update, mesh=mesh, in_specs=(spec, specs, spec), out_specs=(spec, specs))  # checks are on
    return lambda grads, params: mapped(grads, state, params)


def through_shard_map_in_parts(update, state):
    return through_shard_map(update, state, "data")


@pytest.mark.parametrize(
    ("through", "dtype"),
    slow_unless(
        lambda through, dtype: dtype == "float32" or through is through_shard_map_in_parts,
        itertools.product((through_vmap, through_shard_map, through_shard_map_in_parts), ("float32", "bfloat16")),
    ),
)
def test_mapped_steps_are_the_steps(through, dtype):
    axis = "data" if through is through_shard_map_in_parts else None
    tx = optax_ext.dynamic_loss_scaling(make(False, axis_name=axis), axis_name=axis)
    whole = make(True)
    params, grads = jax.tree.map(lambda leaf: leaf.astype(dtype), (FEW_PARAMS, FEW_GRADS))
    state = tx.init(params)
    mapped, plain = through(tx.update, state), jax.jit(whole.update)
    rtol = 1e-5 if dtype == "float32" else 2e-2
    chex.assert_trees_all_close(jax.jit(mapped)(grads, params), plain(grads, state, params), rtol=rtol)


def test_the_trust_ratio_at_a_stationary_point_is_one():
    # g + wd p is 0 but for its rounding, so the norm must be of that sum: not the root of |g|^2 + 2 wd gp + wd^2 |p|^2.
    tx = optax_ext.lars(0.5, weight_decay=0.1, trust_coefficient=0.001)
    params = jnp.asarray(np.random.default_rng(0).normal(size=(512, 512)), jnp.float32)
    for form in (tx.update, jax.jit(tx.update)):
        updates, _ = form(-0.1 * params, tx.init(params), params)
        assert jnp.linalg.norm(updates) <= 0.5 * 0.001 * jnp.linalg.norm(params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_can_be_differentiated(dtype):
    params, grads = jax.tree.map(lambda leaf: leaf.astype(dtype), (FEW_PARAMS, FEW_GRADS))
    tx = make(True)
    state = tx.init(params)

    def loss(grads):
        updates, _ = tx.update(grads, state, params)
        return optax.tree.norm(updates)

    derivative = jax.jit(jax.grad(loss))(jax.tree.map(lambda g: 2.0**15 * g, grads))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(derivative))
