"""The moving average of parameters without the bias of its zeros, and with a schedule for its decay."""

import math

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optax_ext
from optax_ext import ParamsEmaState, ema_params, params_ema

PARAMS = {"kernel": jnp.array([[3.0, 4.0]]), "bias": jnp.array([1.0, -2.0])}
RISING = optax_ext.StepCosineDecay(boundaries=[0, 8], values=[0.5, 1.0])


def run(tx, steps, params=PARAMS):
    """Return the parameters and the states after each step of subtracting the cosine of the parameters."""
    update, state, series = jax.jit(tx.update), tx.init(params), []
    for _ in range(steps):
        updates, state = update(jax.tree.map(jnp.cos, params), state, params)
        params = optax.apply_updates(params, updates)
        series.append((params, state))
    return series


def weights_by_hand(steps, decay_at, start_step=0, dynamic_decay=False):
    """Return the weight of each step's parameters in the last average, in float64; of the zeros is what is missing."""
    weights = np.zeros(0)
    for step in range(1, steps + 1):
        decay = 0.0
        if step >= start_step:
            since = step - start_step
            decay = min(decay_at(step - 1), (1 + since) / (10 + since)) if dynamic_decay else decay_at(step - 1)
        weights = np.append(weights * decay, 1 - decay)
    return weights


def rising_by_hand(step):
    return 1 - (1 - 0.5) * (math.cos(math.pi * min(step, 8) / 8) + 1) / 2


@pytest.mark.parametrize("average_decay", [0.0, 0.3, 0.9999, RISING], ids=["0", "0.3", "0.9999", "schedule"])
@pytest.mark.parametrize("start_step", [0, 1, 4])
@pytest.mark.parametrize("dynamic_decay", [True, False])
def test_the_average_is_weighed_by_the_parameters_alone(average_decay, start_step, dynamic_decay):
    tx = params_ema(average_decay, start_step=start_step, dynamic_decay=dynamic_decay, debias=True)
    series = run(optax.chain(optax.sgd(0.5), tx), 10)
    decay_at = rising_by_hand if callable(average_decay) else lambda step: average_decay
    for steps in range(1, 11):
        weights = weights_by_hand(steps, decay_at, start_step, dynamic_decay)
        seen = np.stack([np.float64(params["bias"]) for params, _ in series[:steps]])
        state = series[steps - 1][1]
        np.testing.assert_allclose(ema_params(state)["bias"], weights @ seen / weights.sum(), rtol=1e-5)
        np.testing.assert_allclose(state[-1].total_weight, weights.sum(), rtol=1e-6)


@pytest.mark.parametrize("start_step", [0, 4])
def test_it_is_what_has_the_bias_divided_by_the_weight(start_step):
    plain, debiased = (
        run(optax.chain(optax.sgd(0.5), params_ema(0.75, start_step=start_step, debias=debias)), 8)
        for debias in (False, True)
    )
    for (_, biased), (_, state) in zip(plain, debiased, strict=True):
        weight = state[-1].total_weight
        expected = jax.tree.map(lambda average, weight=weight: average / weight, ema_params(biased))
        chex.assert_trees_all_close(ema_params(state), expected, rtol=1e-6)
        assert biased[-1].total_weight == 1


def test_a_constant_is_averaged_to_itself_however_near_the_decay_is_to_one():
    params, zeros = {"w": jnp.full(2, 5.0)}, {"w": jnp.zeros(2)}
    tx = params_ema(0.99999, dynamic_decay=False, debias=True)

    def step(state, _):
        return tx.update(zeros, state, params)[1], None

    state, _ = jax.jit(lambda state: jax.lax.scan(step, state, length=25_000))(tx.init(params))
    np.testing.assert_array_equal(ema_params(state)["w"], 5.0)
    np.testing.assert_allclose(state.total_weight, 1 - 0.99999**25_000, rtol=2e-5)  # by 1 - prod(decay): 1.3e-3 off


def test_a_decay_of_one_leaves_zeros():
    series = run(optax.chain(optax.sgd(0.5), params_ema(1.0, dynamic_decay=False, debias=True)), 2)
    chex.assert_trees_all_equal(ema_params(series[1][1]), jax.tree.map(jnp.zeros_like, PARAMS))
    until = params_ema(lambda step: jnp.where(step < 1, 1.0, 0.5), dynamic_decay=False, debias=True)
    series = run(optax.chain(optax.sgd(0.5), until), 2)
    chex.assert_trees_all_equal(ema_params(series[1][1]), series[1][0])  # the first that has any weight


@pytest.mark.parametrize("start", [{"initial": "params"}, {"start_step": 2}], ids=repr)
def test_it_changes_nothing_where_there_is_no_bias(start):
    tx = {debias: optax.chain(optax.sgd(0.5), params_ema(0.75, **start, debias=debias)) for debias in (False, True)}
    plain, debiased = (run(tx[debias], 5) for debias in (False, True))
    chex.assert_trees_all_close(debiased[-1], plain[-1], rtol=1e-7 if "initial" in start else 1e-6)
    assert debiased[-1][1][-1].total_weight == 1


def test_a_state_without_the_weight_has_all_of_it():
    tx = params_ema(0.5, dynamic_decay=False)
    old = ParamsEmaState(jnp.int32(3), PARAMS)
    _, state = jax.jit(tx.update)(jax.tree.map(jnp.ones_like, PARAMS), old, PARAMS)
    chex.assert_trees_all_equal(state.ema, jax.tree.map(lambda p: p + 0.5, PARAMS))
    assert jax.typeof(old.total_weight) == jax.typeof(state.total_weight)
    debiased = params_ema(0.5, dynamic_decay=False, debias=True)
    _, again = jax.jit(debiased.update)(jax.tree.map(jnp.ones_like, PARAMS), old, PARAMS)
    chex.assert_trees_all_equal(again, state)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "complex64"])
def test_types_never_change(dtype):
    params = {"w": jnp.full(3, 2.0, dtype), "steps": jnp.array(7), "number": 1.0}
    tx, traces = params_ema(RISING, debias=True), []

    @jax.jit
    def update(state):
        traces.append(None)
        return tx.update({"w": jnp.ones(3, dtype), "steps": 0, "number": 0.0}, state, params)[1]

    state = tx.init(params)
    types = jax.tree.map(lambda leaf: (leaf.dtype, leaf.weak_type), state)
    with jax.numpy_dtype_promotion("strict"), jax.checking_leaks(), jax.debug_nans(True), jax.debug_infs(True):
        for _ in range(3):
            state = update(state)
    assert jax.tree.map(lambda leaf: (leaf.dtype, leaf.weak_type), state) == types
    assert len(traces) == 1
    np.testing.assert_allclose(ema_params(state, params)["w"], np.full(3, 3.0), rtol=1e-6)
    assert ema_params(state, params)["w"].dtype == dtype


def test_64_bits():
    with jax.enable_x64(True):
        params = {"w": jnp.ones(2, jnp.float64)}
        tx = params_ema(RISING, debias=True)
        _, state = jax.jit(tx.update)(params, tx.init(params), params)
        types = (state.count.dtype, state.ema["w"].dtype, state.total_weight.dtype)
    assert types == (np.int32, np.float64, np.float32)
    np.testing.assert_array_equal(state.ema["w"], 2.0)


def test_a_checkpoint_holds_what_is_used():
    tx = optax.chain(optax.sgd(0.5), params_ema(RISING, debias=True))
    series = run(tx, 6)
    params, state = series[2]
    state = flax.serialization.from_bytes(tx.init(PARAMS), flax.serialization.to_bytes(state))
    for _ in range(3):
        updates, state = jax.jit(tx.update)(jax.tree.map(jnp.cos, params), state, params)
        params = optax.apply_updates(params, updates)
    chex.assert_trees_all_equal((params, state), series[-1])


@pytest.mark.parametrize("count_skipped_steps", [False, True])
def test_a_skipped_step_changes_neither_averages_nor_weight(count_skipped_steps):
    inner = optax.chain(optax.sgd(0.5), params_ema(RISING, debias=True))
    tx = optax_ext.dynamic_loss_scaling(inner, initial_scale=8.0, count_skipped_steps=count_skipped_steps)
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    for step in range(4):
        before = state
        grads = jax.tree.map(lambda p, step=step: p * (jnp.inf if step in (0, 2) else 1.0), PARAMS)
        _, state = update(grads, state, PARAMS)
        if step in (0, 2):
            ema, old = state.inner_state[-1], before.inner_state[-1]
            chex.assert_trees_all_equal((ema.ema, ema.total_weight), (old.ema, old.total_weight))
            assert ema.count == old.count + count_skipped_steps
    assert 0 < state.inner_state[-1].total_weight < 1


class TestSchedules:
    @pytest.mark.parametrize("written", ["ours", "optax"])
    def test_byol_at_every_step(self, written):
        steps = 300
        schedule = {
            "ours": optax_ext.StepCosineDecay(boundaries=[0, steps], values=[0.996, 1.0]),
            "optax": optax.cosine_decay_schedule(0.996, steps, alpha=1 / 0.996),
        }[written]
        tx = params_ema(schedule, dynamic_decay=False, initial="params")
        tau = 1 - (1 - 0.996) * (np.cos(np.pi * np.minimum(np.arange(steps + 20), steps) / steps) + 1) / 2
        online = np.random.default_rng(0).normal(size=(steps + 20, 4)).astype(np.float32)

        def step(state, params):
            _, state = tx.update(jnp.zeros_like(params), state, params)
            return state, state.ema

        first = np.ones(4, np.float32)
        _, targets = jax.jit(lambda state: jax.lax.scan(step, state, online))(tx.init(first))
        expected = [first.astype(np.float64)]
        for decay, params in zip(tau, online, strict=True):
            expected.append(decay * expected[-1] + (1 - decay) * params)
        np.testing.assert_allclose(targets, expected[1:], rtol=2e-5, atol=2e-6)
        if written == "ours":  # Optax's ends at 0.99999994
            np.testing.assert_array_equal(targets[-1], targets[steps])

    def test_values_are_held_in_the_range(self):
        above, below = (params_ema(lambda step, by=by: 0.5 + step * by, dynamic_decay=False) for by in (1.0, -1.0))
        series = run(optax.chain(optax.sgd(0.5), above), 3)
        chex.assert_trees_all_equal(ema_params(series[2][1]), ema_params(series[0][1]))
        series = run(optax.chain(optax.sgd(0.5), below), 3)
        chex.assert_trees_all_equal(ema_params(series[2][1]), series[2][0])

    def test_the_first_update_is_step_0_and_a_schedule_of_one_number_is_that_number(self):
        seen = []

        def schedule(step):
            seen.append(int(step))
            return 0.5

        tx = params_ema(schedule, start_step=2)
        state = tx.init(PARAMS)
        for _ in range(3):
            _, state = tx.update(PARAMS, state, PARAMS)
        assert seen == [0, 0, 1, 2]  # the first to check its range
        constant = run(optax.chain(optax.sgd(0.5), params_ema(0.5, start_step=2)), 3)
        chex.assert_trees_all_equal(
            run(optax.chain(optax.sgd(0.5), params_ema(lambda step: 0.5, start_step=2)), 3), constant
        )

    def test_inside_inject_hyperparams(self):
        injected = optax.inject_hyperparams(params_ema)(RISING, dynamic_decay=False, debias=True)
        plain = run(optax.chain(optax.sgd(0.5), params_ema(RISING, dynamic_decay=False, debias=True)), 4)
        found = run(optax.chain(optax.sgd(0.5), injected), 4)
        chex.assert_trees_all_close(ema_params(found[-1][1]), ema_params(plain[-1][1]), rtol=1e-6)

    def test_it_may_be_made_while_tracing(self):
        def first(scale):
            tx = params_ema(lambda step: scale / (1 + step), dynamic_decay=False)
            return tx.update(PARAMS, tx.init(PARAMS), PARAMS)[1].ema

        expected = jax.tree.map(lambda p: 2 * p * 0.5, PARAMS)
        chex.assert_trees_all_close(jax.jit(first)(jnp.float32(0.5)), expected)

    @pytest.mark.parametrize(
        ("schedule", "message"),
        [
            (optax_ext.Constant(1.5), "average_decay must be in [0, 1], got a schedule that is 1.5 at step 0"),
            (lambda step: -0.25, "got a schedule that is -0.25 at step 0"),
            (lambda step: jnp.nan, "got a schedule that is nan at step 0"),
            (lambda step: jnp.ones(2), "must be a schedule of numbers, got one of arrays of shape (2,)"),
            (optax_ext.StepCosineDecay, "got the class StepCosineDecay: construct it, StepCosineDecay(...)"),
        ],
        ids=["constant", "negative", "nan", "array", "class"],
    )
    def test_invalid_ones(self, schedule, message):
        with pytest.raises(ValueError, match="average_decay") as raised:
            params_ema(schedule)
        assert message in str(raised.value)


class TestPartitions:
    LABELS = {"kernel": "slow", "bias": "fast"}  # noqa: RUF012

    def average(self, labels, groups, steps=3):
        tx = optax_ext.dynamic_loss_scaling(optax.partition(groups, labels), initial_scale=1.0)
        return run(tx, steps)[-1]

    def test_each_group_has_a_schedule_and_a_weight_of_its_own(self):
        groups = {
            "slow": optax.chain(optax.sgd(0.5), params_ema(RISING, dynamic_decay=False, debias=True)),
            "fast": optax.chain(optax.sgd(0.25), params_ema(0.5, initial="params")),
        }
        params, state = self.average(self.LABELS, groups)
        averages = ema_params(state, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(averages, params)
        for name, group in self.LABELS.items():
            alone = run(groups[group], 3, {name: PARAMS[name]})[-1][1]
            np.testing.assert_allclose(averages[name], ema_params(alone)[name], rtol=1e-6)

    def test_one_group_alone(self):
        groups = {"slow": optax.sgd(0.5), "fast": optax.chain(optax.sgd(0.5), params_ema(RISING, debias=True))}
        params, state = self.average(self.LABELS, groups)
        averages = ema_params(state, params)
        np.testing.assert_array_equal(averages["kernel"], params["kernel"])
        alone = run(groups["fast"], 3, {"bias": PARAMS["bias"]})[-1][1]
        np.testing.assert_allclose(averages["bias"], ema_params(alone)["bias"], rtol=1e-6)
        assert isinstance(ema_params(state)["kernel"], optax.MaskedNode)

    def test_flax_nnx(self):
        model = nnx.Linear(2, 3, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        average = params_ema(RISING, dynamic_decay=False, debias=True)
        groups = {"train": optax.chain(optax.sgd(0.5), average), "freeze": optax.set_to_zero()}

        def labels(params):
            return jax.tree.map(lambda leaf: "train" if leaf.ndim == 2 else "freeze", params)

        tx = optax_ext.dynamic_loss_scaling(optax.partition(groups, labels), initial_scale=1.0)
        optimizer, seen = nnx.Optimizer(model, tx, wrt=nnx.Param), []
        for _ in range(3):
            optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
            seen.append(np.float64(model.kernel[...]))
        params = nnx.state(model, nnx.Param)
        averages = ema_params(optimizer.opt_state, params)
        assert jax.tree.structure(averages) == jax.tree.structure(params)
        assert averages["kernel"].dtype == jnp.bfloat16
        weights = weights_by_hand(3, rising_by_hand)
        expected = np.tensordot(weights, np.stack(seen), 1) / weights.sum()
        np.testing.assert_allclose(np.float64(averages["kernel"][...]), expected, rtol=1e-2)
        chex.assert_trees_all_equal(averages["bias"][...], params["bias"][...])
        nnx.update(model, averages)
