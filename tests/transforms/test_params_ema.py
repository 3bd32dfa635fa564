"""The moving average of parameters: its formula, its start, and what it keeps clear of."""

import functools

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optax_ext

PARAMS = {"kernel": jnp.array([[3.0, 4.0]]), "bias": jnp.array([1.0, -2.0])}


def run(tx, steps, params=PARAMS, update=None):
    """Return the parameters and the averages after each step of subtracting the cosine of the parameters."""
    update, state, series = update or jax.jit(tx.update), tx.init(params), []
    for _ in range(steps):
        updates, state = update(jax.tree.map(jnp.cos, params), state, params)
        params = optax.apply_updates(params, updates)
        series.append((params, optax_ext.ema_params(state)))
    return series


def expected_averages(series, average, average_decay, start_step, dynamic_decay):
    average_decay = float(np.float32(average_decay))  # 1 - float32(0.9999) is off by 1.6e-4, in TensorFlow too
    for step, (params, _) in enumerate(series, 1):
        decay = 0.0
        if step >= start_step:
            decay = average_decay
            if dynamic_decay:
                decay = min(average_decay, (1 + step - start_step) / (10 + step - start_step))
        average = decay * average + (1 - decay) * np.float64(params["bias"])
        yield average


@pytest.mark.parametrize("average_decay", [0.0, 0.3, 0.9999, 1.0])
@pytest.mark.parametrize("start_step", [0, 1, 4])
@pytest.mark.parametrize("dynamic_decay", [True, False])
@pytest.mark.parametrize("initial", ["zeros", "params"])
def test_formula(average_decay, start_step, dynamic_decay, initial):
    ema = optax_ext.params_ema(average_decay, start_step=start_step, dynamic_decay=dynamic_decay, initial=initial)
    series = run(optax.chain(optax.sgd(0.5), ema), 8)
    first = np.zeros(2) if initial == "zeros" else np.float64(PARAMS["bias"])
    expected = expected_averages(series, first, average_decay, start_step, dynamic_decay)
    for (_, averages), average in zip(series, expected, strict=True):
        np.testing.assert_allclose(averages["bias"], average, rtol=1e-5, atol=1e-7)


def test_before_the_start_the_average_is_the_newest_parameters_exactly():
    series = run(optax.chain(optax.sgd(0.5), optax_ext.params_ema(0.9, start_step=6)), 6)
    for params, averages in series[:5]:
        chex.assert_trees_all_equal(averages, params)
    assert (series[5][0]["bias"] != series[5][1]["bias"]).all()


@pytest.mark.parametrize("initial", ["zeros", "params"])
def test_the_first_average(initial):
    first = optax_ext.ema_params(optax_ext.params_ema(initial=initial).init(PARAMS))
    chex.assert_trees_all_equal(first, PARAMS if initial == "params" else jax.tree.map(jnp.zeros_like, PARAMS))


def test_updates_pass_through_untouched_and_other_arguments_are_accepted():
    tx, updates = optax_ext.params_ema(), {"kernel": jnp.ones((1, 2)), "bias": None}
    passed, _ = tx.update(updates, tx.init(PARAMS), PARAMS, value=1.0)
    assert passed is updates


@pytest.mark.parametrize("scaling", ["dynamic", "fixed"])
def test_a_skipped_step_inside_loss_scaling_leaves_the_averages_bit_by_bit(scaling):
    inner = optax.chain(optax.sgd(0.5, momentum=0.9), optax_ext.params_ema(0.9, start_step=2))
    tx = (
        optax_ext.dynamic_loss_scaling(inner, initial_scale=8.0)
        if scaling == "dynamic"
        else optax_ext.fixed_loss_scaling(inner, 8.0)
    )
    update, state, params, healthy = jax.jit(tx.update), tx.init(PARAMS), PARAMS, tx.init(PARAMS)
    for step in range(6):
        grads = jax.tree.map(lambda p: 8 * jnp.cos(p), params)
        if step in (0, 3):
            bad = grads | {"bias": jnp.array([jnp.nan, 1.0])}
            before = state
            updates, state = update(bad, state, params)
            chex.assert_trees_all_equal(state.inner_state, before.inner_state)
            chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
            continue
        if scaling == "dynamic":  # the scale has shrunk
            grads = jax.tree.map(lambda g, scale=state.loss_scale: g * (scale / 8), grads)
        updates, state = update(grads, state, params)
        grads = jax.tree.map(lambda p, scale=healthy.loss_scale: scale * jnp.cos(p), params)
        plain, healthy = update(grads, healthy, params)
        chex.assert_trees_all_equal(updates, plain)
        params = optax.apply_updates(params, updates)
    assert optax.tree.get(state, "count") == 4
    chex.assert_trees_all_equal(optax_ext.ema_params(state), optax_ext.ema_params(healthy))


def test_counting_skipped_steps_counts_those_of_the_average_as_tensorflow_does():
    tx = optax_ext.fixed_loss_scaling(optax_ext.params_ema(), 8.0, count_skipped_steps=True)
    state = tx.init(PARAMS)
    _, after = jax.jit(tx.update)(jax.tree.map(lambda p: p * jnp.inf, PARAMS), state, PARAMS)
    assert optax.tree.get(after, "count") == 1
    chex.assert_trees_all_equal(optax_ext.ema_params(after), optax_ext.ema_params(state))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("initial", ["zeros", "params"])
def test_averages_of_low_precision_are_in_float32_and_move(dtype, initial):
    params = {"w": jnp.full(3, 2.0, dtype)}
    tx = optax_ext.params_ema(0.9999, dynamic_decay=False, initial=initial)
    state, traces = tx.init(params), []
    types = jax.tree.map(lambda leaf: (leaf.dtype, leaf.weak_type), state)

    @jax.jit
    def update(updates, state, params):
        traces.append(None)
        return tx.update(updates, state, params)

    for _ in range(200):
        _, state = update({"w": jnp.full(3, 1.0, dtype)}, state, params)
    assert jax.tree.map(lambda leaf: (leaf.dtype, leaf.weak_type), state) == types
    assert len(traces) == 1
    first = 2.0 if initial == "params" else 0.0
    np.testing.assert_allclose(optax_ext.ema_params(state)["w"], 3 + (first - 3) * np.float32(0.9999) ** 200, rtol=1e-4)
    assert optax_ext.ema_params(state)["w"].dtype == jnp.float32
    assert optax_ext.ema_params(state, params)["w"].dtype == dtype


def test_the_new_parameters_are_rounded_as_they_are_applied():
    params, updates = jnp.ones(1, jnp.bfloat16), jnp.full(1, 1e-3, jnp.float32)
    tx = optax_ext.params_ema(0.0, dynamic_decay=False)
    _, state = tx.update(updates, tx.init(params), params)
    assert float(optax_ext.ema_params(state)[0]) == float(optax.apply_updates(params, updates)[0]) == 1.0


def test_state_and_parameters_can_both_be_donated_from_the_start():
    tx = optax.chain(optax.sgd(0.5), optax_ext.params_ema(initial="params"))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        updates, state = tx.update(jax.tree.map(jnp.cos, params), state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.array, PARAMS)
    state = tx.init(params)
    leaves = jax.tree.leaves((params, state))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    for _ in range(3):
        params, state = step(params, state)
    chex.assert_tree_all_finite((params, state))


def test_a_parameter_without_a_gradient_is_averaged_as_it_is():
    tx = optax.chain(optax.sgd(1.0), optax_ext.params_ema(0.5, dynamic_decay=False))
    state = tx.init(PARAMS)
    _, state = jax.jit(tx.update)({"kernel": jnp.ones((1, 2)), "bias": None}, state, PARAMS)
    np.testing.assert_array_equal(optax_ext.ema_params(state)["bias"], PARAMS["bias"] / 2)
    np.testing.assert_array_equal(optax_ext.ema_params(state)["kernel"], [[1.0, 1.5]])


def test_what_is_no_real_number_is_kept_at_its_newest():
    params = {"steps": jnp.array(7), "key": jax.random.key(1), "w": jnp.ones(2)}
    updates = {"steps": jnp.array(0), "key": np.zeros((), jax.dtypes.float0), "w": jnp.zeros(2)}
    tx = optax_ext.params_ema(0.5, dynamic_decay=False)
    _, state = jax.jit(tx.update)(updates, tx.init(params), params | {"steps": jnp.array(8)})
    averages = optax_ext.ema_params(state)
    assert averages["steps"] == 8
    assert averages["steps"].dtype == jnp.int32
    assert averages["key"] == params["key"]
    np.testing.assert_array_equal(averages["w"], 0.5)


def test_batch_statistics_are_averaged_by_a_second_one_with_zero_updates():
    tx = optax_ext.params_ema(0.9, dynamic_decay=False)
    state, update, expected = tx.init({"mean": jnp.zeros(2)}), jax.jit(tx.update), 0.0
    for step in range(5):
        stats = {"mean": jnp.array([step, -step], jnp.float32)}
        _, state = update(jax.tree.map(jnp.zeros_like, stats), state, stats)
        expected = 0.9 * expected + 0.1 * step
    np.testing.assert_allclose(optax_ext.ema_params(state)["mean"], [expected, -expected], rtol=1e-6)


def test_works_inside_inject_hyperparams_and_masked_and_multi_steps():
    plain = run(optax.chain(optax.sgd(0.5), optax_ext.params_ema(0.9, start_step=2)), 4)
    injected = optax.inject_hyperparams(optax_ext.params_ema)(average_decay=0.9, start_step=2)
    chex.assert_trees_all_close(run(optax.chain(optax.sgd(0.5), injected), 4), plain, rtol=1e-6)
    masked = optax.masked(optax_ext.params_ema(0.9, start_step=2), {"kernel": False, "bias": True})
    series = run(optax.chain(optax.sgd(0.5), masked), 4)
    chex.assert_trees_all_equal(series[-1][1]["bias"], plain[-1][1]["bias"])
    assert isinstance(series[-1][1]["kernel"], optax.MaskedNode)
    every_second = optax.MultiSteps(optax.chain(optax.sgd(0.5), optax_ext.params_ema()), 2).gradient_transformation()
    assert run(every_second, 1)[0][1]["bias"].tolist() == [0.0, 0.0]


def test_state_survives_flax_serialization():
    tx = optax_ext.params_ema(initial="params")
    restored = flax.serialization.from_bytes(tx.init(PARAMS), flax.serialization.to_bytes(tx.init(PARAMS)))
    chex.assert_trees_all_equal(restored, tx.init(PARAMS))
    marked = optax.tree.map_params(tx, lambda leaf: leaf + 1, tx.init(PARAMS))
    chex.assert_trees_all_equal(marked.ema, jax.tree.map(lambda p: p + 1, PARAMS))
    assert marked.count == 0


def test_strict_promotion_64_bits_and_nan_checks():
    tx = optax_ext.params_ema(0.9, start_step=3)
    with jax.numpy_dtype_promotion("strict"), jax.checking_leaks(), jax.debug_nans(True), jax.debug_infs(True):
        _, state = jax.jit(tx.update)(PARAMS, tx.init(PARAMS), PARAMS)
    with jax.enable_x64(True):
        params = {"w": jnp.ones(2, jnp.float64)}
        _, state = jax.jit(tx.update)(params, tx.init(params), params)
        assert (state.count.dtype, state.ema["w"].dtype) == (np.int32, np.float64)


@pytest.mark.parametrize("initial", ["zeros", "params"])
def test_init_takes_shapes_as_optax_does(initial):
    params = {"w": jnp.ones(2, jnp.bfloat16), "z": jnp.ones(2, jnp.complex64), "steps": jnp.array(7)}
    tx = optax_ext.params_ema(initial=initial)
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    state = tx.init(shapes)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(params))
    if initial == "zeros":
        chex.assert_trees_all_equal(state.ema["w"], jnp.zeros(2))
    else:  # there are no numbers to start from, and zeros would be wrong without a word
        assert isinstance(state.ema["w"], jax.ShapeDtypeStruct)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
@pytest.mark.parametrize("update_dtype", ["float32", "same"])
def test_updates_of_another_dtype_are_applied_as_optax_applies_them_under_strict_promotion_too(dtype, update_dtype):
    params = jnp.asarray(np.random.default_rng(0).normal(size=4000), dtype)
    updates = jnp.asarray(
        np.random.default_rng(1).normal(size=4000) / 100, dtype if update_dtype == "same" else jnp.float32
    )
    tx = optax_ext.params_ema(0.0, dynamic_decay=False)
    with jax.numpy_dtype_promotion("strict"):
        _, state = jax.jit(tx.update)(updates, tx.init(params), params)
    chex.assert_trees_all_equal(optax_ext.ema_params(state, params), optax.apply_updates(params, updates))


def test_python_numbers_are_averaged_as_arrays_are():
    tx = optax_ext.params_ema(0.5, dynamic_decay=False)
    for param, update in ((2.0, 1.0), (2.0, jnp.float32(1.0)), (jnp.float32(2.0), 1.0)):
        state = tx.init({"t": param})
        _, new_state = tx.update({"t": update}, state, {"t": param})
        assert jax.tree.map(jax.typeof, new_state) == jax.tree.map(jax.typeof, state)
        average = optax_ext.ema_params(new_state, {"t": param})["t"]
        assert (average, average.dtype, average.weak_type) == (1.5, jnp.float32, False)
    state = tx.init({"steps": 7})
    for update in (0, None):
        _, new_state = tx.update({"steps": update}, state, {"steps": 8})
        assert new_state.ema["steps"] == 8
        assert jax.tree.map(jax.typeof, new_state) == jax.tree.map(jax.typeof, state)


def test_integers_and_keys_come_back_in_the_types_of_the_parameters():
    params = {"steps": jnp.array(7, jnp.int8), "key": jax.random.key(1), "flag": jnp.array(True), "w": jnp.ones(2)}
    updates = {"steps": 0.0, "key": None, "flag": np.zeros((), jax.dtypes.float0), "w": jnp.zeros(2)}
    tx = optax_ext.params_ema(0.5, dynamic_decay=False, initial="params")
    with jax.numpy_dtype_promotion("strict"):
        _, state = tx.update(updates, tx.init(params), params)
    chex.assert_trees_all_equal(optax_ext.ema_params(state, params), params)
    assert optax_ext.ema_params(state, params)["steps"].dtype == jnp.int8


LAYERS = {"body": {"kernel": jnp.ones((2, 2), jnp.bfloat16), "bias": jnp.full(2, 3.0)}, "head": jnp.full(2, 5.0)}


class TestEmaParams:
    def test_finds_the_one_state_by_its_type(self):
        ema = optax_ext.params_ema(initial="params")
        deep = optax_ext.dynamic_loss_scaling(optax.chain(optax.adam(0.1), optax.chain(ema)))
        params = {"ema": jnp.ones(2), "count": jnp.zeros(2)}
        chex.assert_trees_all_equal(optax_ext.ema_params(deep.init(params)), params)
        with pytest.raises(ValueError, match="must hold one ParamsEmaState, got 0: add params_ema to the chain"):
            optax_ext.ema_params(optax.adam(0.1).init(params))

    def init(self, labels, **groups):
        return optax.partition(groups, labels).init(LAYERS)

    def test_in_one_group_of_a_partition(self):
        labels = {"body": "freeze", "head": "train"}
        state = self.init(labels, freeze=optax.set_to_zero(), train=optax.chain(optax.sgd(0.1), optax_ext.params_ema()))
        averages = optax_ext.ema_params(state, LAYERS)
        chex.assert_trees_all_equal(averages, LAYERS | {"head": jnp.zeros(2)})
        chex.assert_trees_all_equal_dtypes(averages, LAYERS)
        bare = optax_ext.ema_params(state)
        assert isinstance(bare["body"], optax.MaskedNode)
        chex.assert_trees_all_equal(bare["head"], jnp.zeros(2))

    @pytest.mark.parametrize("labels", [
        {"body": "slow", "head": "fast"},
        {"body": {"kernel": "slow", "bias": "fast"}, "head": "slow"},
        {"body": {"kernel": "fast", "bias": "fast"}, "head": "slow"},
    ])  # fmt: skip
    def test_in_several_groups_whose_averages_are_merged(self, labels):
        ema = optax_ext.params_ema(initial="params")
        state = self.init(labels, slow=ema, fast=optax.chain(optax.sgd(0.1), ema))
        for params in (None, LAYERS):
            averages = optax_ext.ema_params(state, params)
            chex.assert_trees_all_equal(jax.tree.map(jnp.float32, averages), jax.tree.map(jnp.float32, LAYERS))
        chex.assert_trees_all_equal_dtypes(averages, LAYERS)

    def test_a_mask_may_leave_out_a_whole_branch(self):
        ema = optax_ext.params_ema(initial="params")
        body, head = (optax.masked(ema, {"body": on_body, "head": not on_body}) for on_body in (True, False))
        for order in ((body, head), (head, body)):
            averages = optax_ext.ema_params(optax.chain(*order).init(LAYERS))
            chex.assert_trees_all_equal(jax.tree.map(jnp.float32, averages), jax.tree.map(jnp.float32, LAYERS))
        state = head.init(LAYERS)
        assert isinstance(optax_ext.ema_params(state)["body"], optax.MaskedNode)
        chex.assert_trees_all_equal(optax_ext.ema_params(state, LAYERS), LAYERS)

    def test_two_averages_of_one_parameter_are_an_error_that_names_it(self):
        ema = optax_ext.params_ema()
        overlapping = optax.chain(ema, optax.masked(ema, {"body": {"kernel": False, "bias": True}, "head": False}))
        for params in (None, LAYERS):
            with pytest.raises(ValueError, match="got several that average 'body/bias': give the part of the state"):
                optax_ext.ema_params(overlapping.init(LAYERS), params)

    def test_parameters_of_another_structure_are_an_error(self):
        state = optax_ext.params_ema().init(LAYERS)
        with pytest.raises(ValueError, match="params must have the structure of the parameters that are averaged, got"):
            optax_ext.ema_params(state, {"body": {"kernel": jnp.ones(2)}, "head": jnp.ones(2)})
        with pytest.raises(ValueError, match="at 'head'"):
            optax_ext.ema_params(state, LAYERS | {"head": {"kernel": jnp.ones(2)}})

    def test_none_is_no_parameter(self):
        params = {"bias": None, "kernel": jnp.ones(2)}
        state = optax_ext.params_ema(initial="params").init(params)
        assert optax_ext.ema_params(state, params)["bias"] is None

    @pytest.mark.parametrize("groups", [False, True])
    def test_of_flax_nnx(self, groups):
        model = nnx.Linear(2, 3, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        tx = optax.chain(optax.sgd(0.5), optax_ext.params_ema(0.5, dynamic_decay=False, initial="params"))
        if groups:
            mask = optax_ext.path_mask(exclude=["bias"])
            tx = optax.masked(tx, mask)
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        before = nnx.state(model, nnx.Param)
        before = jax.tree.map(jnp.array, before)
        grads = jax.tree.map(jnp.ones_like, before)
        optimizer.update(model, grads)
        params = nnx.state(model, nnx.Param)
        averages = optax_ext.ema_params(optimizer.opt_state, params)
        assert jax.tree.structure(averages) == jax.tree.structure(params)
        assert averages["kernel"].dtype == jnp.bfloat16
        expected = (np.float32(before["kernel"][...]) + np.float32(params["kernel"][...])) / 2
        np.testing.assert_allclose(np.float32(averages["kernel"][...]), expected, rtol=1e-2)
        if groups:
            chex.assert_trees_all_equal(averages["bias"][...], params["bias"][...])
        nnx.update(model, averages)
        chex.assert_trees_all_equal(model.kernel[...], averages["kernel"][...])
        assert optax_ext.ema_params(optimizer.opt_state)["kernel"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"average_decay": -0.1}, r"average_decay must be greater than or equal to 0, got -0.1"),
        ({"average_decay": 1.5}, "average_decay must be"),
        ({"average_decay": float("nan")}, "average_decay must be"),
        ({"average_decay": "0.9"}, "average_decay must be"),
        ({"start_step": -1}, "start_step must be greater than or equal to 0, got -1"),
        ({"start_step": 1.5}, "start_step must be an integer, got 1.5"),
        ({"dynamic_decay": "no"}, "dynamic_decay must be True or False, got 'no'"),
        ({"initial": "ones"}, "initial must be 'zeros' or 'params', got 'ones'"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        optax_ext.params_ema(**arguments)


def test_needs_parameters():
    tx = optax_ext.params_ema()
    with pytest.raises(ValueError, match="params_ema needs the parameters"):
        tx.update(PARAMS, tx.init(PARAMS))
