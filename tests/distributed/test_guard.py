"""Eight devices skip the same steps as one does, with norms of whole gradients, however these are split."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

import optax_ext
from tests.distributed.small_training import make_params, state_specs
from tests.distributed.test_devices import PLACEMENTS, assert_copies_agree, put
from tests.marks import slow_unless

GRADS = jax.tree.map(lambda leaf: np.sin(leaf * 5), make_params())
FACTORS = [1.0, 2.0, np.nan, 50.0, 1.0]  # all finite but the third, and a spike
SKIPS = [0, 0, 1, 2, 2]
PARAMS = make_params()


def grads_of(factor):
    """Return gradients of which one number on one device alone is bad."""
    grads = jax.tree.map(np.copy, GRADS)
    grads["hidden"]["kernel"][5, 11] *= factor * 100 if factor == 50 else factor
    return grads


def make(scaled, norm_axis=None, skip_axis=None):
    inner = optax_ext.lars(0.1, trust_coefficient=0.2, axis_name=norm_axis)
    guarded = optax_ext.skip_bad_steps(inner, max_norm_ratio=5.0, warmup_steps=1, axis_name=skip_axis)
    return optax_ext.fixed_loss_scaling(guarded, 8.0, axis_name=skip_axis) if scaled else guarded


def run(tx, scaled, update, place=lambda tree: tree):
    state, outputs = tx.init(place(PARAMS)), []
    for factor in FACTORS:
        grads = jax.tree.map(lambda grad: grad * 8 if scaled else grad, grads_of(factor))
        updates, state = update(place(grads), state, place(PARAMS))
        assert_copies_agree((updates, state._replace(inner_state=None)))
        outputs.append((updates, state))
    assert [int(state.skipped_steps) for _, state in outputs] == SKIPS
    return jax.device_get(outputs)


@functools.cache
def run_on_one_device(scaled):
    tx = make(scaled)
    states = run(tx, scaled, jax.jit(tx.update))
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(GRADS)))
    np.testing.assert_allclose(states[0][1].grad_norm, norm, rtol=1e-6)
    return states


CASES = slow_unless(
    lambda name, how, scaled: (
        (name, how, scaled)
        in [
            ("kernels sharded", "shard_map", False),
            ("data x model", "jit", True),
        ]
    ),
    [(name, how, scaled) for name in PLACEMENTS for how in ("jit", "shard_map") for scaled in (False, True)],
)


@pytest.mark.parametrize(("name", "how", "scaled"), CASES)
def test_skips_norms_and_averages_are_those_of_one_device(name, how, scaled):
    placement = PLACEMENTS[name]
    mesh = placement.mesh()
    if how == "jit":
        tx = make(scaled)
        update = jax.jit(tx.update)
    else:
        tx = make(scaled, placement.norm_axis, placement.skip_axis)
        specs = state_specs(tx, placement.specs)
        update = jax.jit(
            jax.shard_map(  # with its checks, by which all that is returned as replicated is
                tx.update,
                mesh=mesh,
                in_specs=(placement.specs, specs, placement.specs),
                out_specs=(placement.specs, specs),
            )
        )
    outputs = run(tx, scaled, update, lambda tree: put(mesh, tree, placement.specs))
    assert update._cache_size() == 1
    own = [state._replace(inner_state=None) for _, state in outputs]
    expected = [state._replace(inner_state=None) for _, state in run_on_one_device(scaled)]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), own, expected)
    if how == "jit":  # else LARS counts copies as parts
        updates, expected = (jax.tree.map(np.asarray, [o[0] for o in x]) for x in (outputs, run_on_one_device(scaled)))
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), updates, expected)


@pytest.mark.parametrize("check_vma", [True, False])
def test_without_types_the_devices_agree_on_the_same_skips(check_vma):
    """Where JAX does not say which gradients are split, norms are smaller and their ratios hardly differ."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    placement = PLACEMENTS["fully sharded"]
    tx = make(False, "data", "data")
    specs = state_specs(tx, placement.specs)
    mapped = jax.shard_map(
        tx.update,
        mesh=mesh,
        in_specs=(placement.specs, specs, placement.specs),
        out_specs=(placement.specs, specs),
        check_vma=check_vma,
    )
    outputs = run(tx, False, jax.jit(mapped), lambda tree: put(mesh, tree, placement.specs))
    ratio = outputs[0][1].grad_norm / run_on_one_device(False)[0][1].grad_norm
    np.testing.assert_allclose(ratio, 1.0 if check_vma else np.sqrt(1 / 8), rtol=1e-6)


def test_an_axis_named_by_either_is_enough():
    """All of a spike is on one device of `pmap`."""
    for scale_axis, guard_axis in (("data", None), (None, "data")):
        guarded = optax_ext.skip_bad_steps(
            optax_ext.lars(0.1), max_norm_ratio=5.0, warmup_steps=1, axis_name=guard_axis
        )
        tx = optax_ext.fixed_loss_scaling(guarded, 1.0, axis_name=scale_axis)
        update = jax.pmap(tx.update, axis_name="data")
        params = np.ones((8, 4), np.float32)
        state = jax.tree.map(lambda leaf: np.stack([leaf] * 8), tx.init(params[0]))
        for row in (1.0, 1000.0):
            grads = np.ones((8, 4), np.float32)
            grads[3] = row
            _, state = update(grads, state, params)
        assert state.inner_state.skipped_steps.tolist() == [1] * 8
