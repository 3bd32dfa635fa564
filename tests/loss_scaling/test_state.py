"""The state of loss scaling: its layout, its copies and where they lie, its structure, and counts that go on."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

import optax_ext
from optax_ext.loss_scaling._state import (
    LossScaleState,
    check_state,
    copy_strongly_typed,
    increment_counts,
    keep_structure,
    loss_scale_states,
    replicate_like,
)

STATE = optax_ext.fixed_loss_scaling(optax.sgd(0.1), 8.0).init(jnp.ones(2))


def test_states_are_found_by_their_type_at_any_depth():
    assert loss_scale_states({"a": [STATE, optax.EmptyState()], "b": STATE}) == [STATE, STATE]
    assert loss_scale_states(optax.adam(0.1).init(jnp.ones(2))) == []


@pytest.mark.parametrize(
    ("state", "outline"),
    [
        ((jnp.ones(1), None), r"tuple\(ArrayImpl, NoneType\)"),
        ({"loss_scale": 8.0, "counter": 0}, r"dict\(loss_scale, counter\)"),
        (optax.TraceState(trace=1), r"TraceState\(trace\)"),
        (None, "NoneType"),
    ],
)
def test_a_state_of_another_layout_is_outlined(state, outline):
    check_state(STATE)
    expected = (
        r"state must be a LossScaleState\(loss_scale, counter, .*inner_state, .*last_step_counted\), got " + outline
    )
    with pytest.raises(ValueError, match=expected + ": restore checkpoints into the structure of"):
        check_state(state)


def test_a_structure_is_kept_where_a_gradient_is_missing():
    old = (optax.TraceState(trace={"a": jnp.ones(2), "b": jnp.ones(3)}), optax.EmptyState())
    new = (optax.TraceState(trace={"a": None, "b": jnp.zeros(3)}), optax.EmptyState())
    kept = keep_structure(new, old)
    chex.assert_trees_all_equal(kept[0].trace, {"a": jnp.ones(2), "b": jnp.zeros(3)})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (optax.TraceState({"a": 1}), optax.TraceState({"b": 1}), r"in TraceState, init made .*'a'.* made .*'b'"),
        (
            (optax.EmptyState(), optax.TraceState(1)),
            (optax.EmptyState(), optax.TraceState((1, 1))),
            "in TraceState, init",
        ),
        ([1, 2], [1], r"in list, init made .* and update made"),
    ],
)
def test_a_structure_that_changes_is_named_where_it_does(old, new, message):
    with pytest.raises(ValueError, match="must keep its structure.*" + message):
        keep_structure(new, old)


@pytest.mark.parametrize("leaf", [1, 1.5, True, 2j, np.float16(1.5), np.arange(3), jnp.asarray(2.0)])
def test_a_copy_is_another_array_and_strongly_typed(leaf):
    copy = copy_strongly_typed(leaf)
    assert isinstance(copy, jax.Array)
    assert copy is not leaf
    assert (copy.dtype, copy.weak_type) == (jnp.result_type(leaf), False)
    np.testing.assert_array_equal(copy, leaf)


def test_a_copy_shares_no_buffer_and_what_is_no_array_is_not_copied():
    array = jnp.ones(2)
    assert copy_strongly_typed(array).unsafe_buffer_pointer() != array.unsafe_buffer_pointer()
    shape = jax.ShapeDtypeStruct((2,), jnp.float32)
    for leaf in (shape, jax.nn.relu):
        assert copy_strongly_typed(leaf) is leaf


def mesh_of(*devices):
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def test_a_state_lies_with_its_parameters_on_their_whole_mesh():
    mesh = mesh_of(*jax.devices()[:4])
    here = jax.device_put(jnp.ones(4), NamedSharding(mesh, P("data")))
    already = jax.device_put(jnp.ones(2), jax.devices()[5])
    state = replicate_like(
        {"other": jnp.ones(2), "here": here}, STATE._replace(inner_state=(already, jnp.ones(2), here))
    )
    for leaf in (state.loss_scale, state.counter, state.inner_state[1]):
        assert leaf.sharding == NamedSharding(mesh, P())
    assert state.inner_state[0].sharding == SingleDeviceSharding(jax.devices()[5])
    assert state.inner_state[2].sharding == here.sharding


@pytest.mark.parametrize("params", [jnp.ones(2), np.ones(2), 1.5, {}], ids=["free", "numpy", "number", "empty"])
def test_a_state_stays_where_parameters_are_nowhere_in_particular(params):
    assert replicate_like(params, STATE) is STATE


def test_a_state_follows_parameters_on_one_device():
    state = replicate_like(jax.device_put(jnp.ones(2), jax.devices()[3]), STATE)
    assert state.loss_scale.sharding == SingleDeviceSharding(jax.devices()[3])
    assert state.loss_scale.committed


def test_of_a_mesh_and_a_device_the_mesh_is_taken():
    mesh = mesh_of(*jax.devices()[:2])
    params = [jax.device_put(jnp.ones(2), jax.devices()[0]), jax.device_put(jnp.ones(2), NamedSharding(mesh, P()))]
    assert replicate_like(params, STATE).counter.sharding == NamedSharding(mesh, P())


def test_traced_parameters_lie_nowhere():
    assert jax.jit(lambda params: replicate_like(params, STATE))(jnp.ones(2)).loss_scale == 8


def test_scalar_integers_of_a_field_called_count_advance_and_nothing_else():
    state = (
        optax.ScaleByScheduleState(count=jnp.int32(3)),
        optax.ScaleByScheduleState(count=jnp.int32(2**31 - 1)),
        optax.ScaleByScheduleState(count=jnp.float32(3)),
        optax.ScaleByScheduleState(count=jnp.array([3])),
        {"count": jnp.int32(3)},
        optax.TraceState(trace=jnp.int32(3)),
    )
    advanced = increment_counts(state)
    expected = (state[0]._replace(count=jnp.int32(4)), *state[1:])
    chex.assert_trees_all_equal(advanced, expected)
    chex.assert_trees_all_equal_dtypes(advanced, expected)
    assert increment_counts(jnp.int32(3)) == 3


@pytest.mark.parametrize("fields", [6, 7, 8])
@pytest.mark.parametrize("x64", [False, True])
def test_fields_that_are_new_may_be_missing_and_have_the_types_of_a_step(fields, x64):
    with jax.enable_x64(x64):
        tx = optax_ext.dynamic_loss_scaling(optax.sgd(0.1, momentum=0.9), initial_scale=8.0)
        params = np.ones(2, np.float32)
        whole, traces = tx.init(params), []
        old = LossScaleState(*whole[:fields])
        chex.assert_trees_all_equal(old, whole)
        chex.assert_trees_all_equal_shapes_and_dtypes(old, whole)

        @jax.jit
        def step(state):
            traces.append(None)
            return jax.lax.cond(
                state.counter < 2, lambda state: tx.update(params, state, params)[1], lambda s: s, state
            )

        step(step(old))
        step(whole)
        assert len(traces) == 1


@pytest.mark.parametrize("device", [0, 3])
def test_compiles_once_for_parameters_that_were_put_on_a_device(device):
    tx = optax_ext.dynamic_loss_scaling(optax_ext.lars(0.1))
    params = jax.device_put({"kernel": jnp.ones((2, 2))}, jax.devices()[device])
    update, state = jax.jit(tx.update), tx.init(params)
    for _ in range(3):
        _, state = update(params, state, params)
    assert update._cache_size() == 1


def test_counts_of_skipped_steps_saturate():
    inner = optax.scale_by_schedule(optax_ext.Constant(1.0))
    tx = optax_ext.dynamic_loss_scaling(inner, initial_scale=8.0, count_skipped_steps=True)
    state = optax.tree.set(tx.init(jnp.ones(2)), count=jnp.int32(2**31 - 1))
    assert optax.tree.get(tx.update(jnp.full(2, jnp.nan), state, jnp.ones(2))[1], "count") == 2**31 - 1
