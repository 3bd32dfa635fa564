"""Loss scaling: when the scale moves, what is skipped, and what a skip leaves alone."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config

PARAMS = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([[3.0]])}
GOOD = {"a": jnp.array([8.0, 16.0]), "b": jnp.array([[24.0]])}
BAD = {"a": jnp.array([8.0, jnp.nan]), "b": jnp.array([[24.0]])}


def run(tx, grads, params=PARAMS):
    """Feed the gradients one by one through a compiled update; return the last updates and all states."""
    update, states = jax.jit(tx.update), [tx.init(params)]
    updates = None
    for grad in grads:
        updates, state = update(grad, states[-1], params)
        states.append(state)
    return updates, states


def scales(states):
    return [float(state.loss_scale) for state in states]


def dynamic(inner=None, **options):
    inner = optax.sgd(1.0, momentum=0.5) if inner is None else inner
    return optax_ext.dynamic_loss_scaling(inner, **{"initial_scale": 8.0, **options})


class TestScale:
    def test_grows_after_growth_steps_in_a_row(self):
        _, states = run(dynamic(growth_steps=2), [GOOD, GOOD, GOOD, BAD, GOOD, GOOD])
        assert scales(states) == [8, 8, 16, 16, 8, 8, 16]
        assert [int(state.counter) for state in states] == [0, 1, 0, 1, 0, 1, 0]

    def test_grows_every_step_if_told(self):
        assert scales(run(dynamic(growth_steps=1, multiplier=4.0), [GOOD] * 3)[1]) == [8, 32, 128, 512]

    def test_stays_within_its_limits_under_jit(self):
        _, states = run(dynamic(min_scale=3.0, max_scale=20.0, growth_steps=1), [BAD] * 3 + [GOOD] * 5)
        assert scales(states) == [8, 4, 3, 3, 6, 12, 12, 12, 12]

    def test_does_not_grow_past_float32(self):
        tx = dynamic(initial_scale=2.0**127, growth_steps=2)
        _, states = run(tx, [GOOD] * 4)
        assert scales(states) == [2.0**127] * 5
        assert [int(state.counter) for state in states] == [0, 1, 0, 1, 0]
        updates, _ = run(tx, [jax.tree.map(lambda p: p * 2.0**126, PARAMS)])
        chex.assert_trees_all_close(updates, jax.tree.map(lambda p: -p / 2, PARAMS))

    def test_shrinks_from_the_hysteresis_on(self):
        _, states = run(dynamic(hysteresis=2), [BAD, GOOD, BAD, BAD, BAD, GOOD])
        assert scales(states) == [8, 8, 8, 8, 4, 2, 2]
        assert [int(state.consecutive_skips) for state in states] == [0, 1, 0, 1, 2, 3, 0]
        assert [int(state.skipped_steps) for state in states] == [0, 1, 1, 2, 3, 4, 4]

    def test_alternating_overflows_lower_the_scale_if_finite_steps_do_not_forgive_them(self):
        def skips(**options):
            tx = dynamic(initial_scale=65536.0, hysteresis=2, **options)

            def step(state, is_even):
                grads = jax.tree.map(lambda g: jnp.where(is_even & (state.loss_scale >= 65536), jnp.inf, g), GOOD)
                return tx.update(grads, state, PARAMS)[1], None

            state, _ = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(2000) % 2 == 0))(tx.init(PARAMS))
            return int(state.skipped_steps), float(state.loss_scale)

        assert skips() == (1000, 65536.0)
        assert skips(consecutive_hysteresis=False) == (2, 32768.0)

    def test_growth_refills_the_patience(self):
        tx = dynamic(hysteresis=2, growth_steps=2, consecutive_hysteresis=False)
        _, states = run(tx, [BAD, GOOD, BAD, BAD, GOOD, GOOD, BAD, BAD])
        assert scales(states) == [8, 8, 8, 4, 2, 2, 4, 4, 2]
        assert [int(state.skips_since_growth) for state in states] == [0, 1, 1, 2, 3, 3, 0, 1, 2]
        assert [int(state.consecutive_skips) for state in states] == [0, 1, 0, 1, 2, 0, 0, 1, 2]

    @pytest.mark.parametrize(
        ("found", "grads", "then"), [(2.0**20, GOOD, 2**14), (2.0**20, BAD, 2**14), (4, GOOD, 256)]
    )
    @pytest.mark.parametrize("number", [float, jnp.float32])
    def test_a_scale_from_elsewhere_is_held_in_the_limits_from_the_next_step_on(self, found, grads, then, number):
        tx = dynamic(initial_scale=1024.0, min_scale=256.0, max_scale=2.0**14)
        state = optax.tree.set(tx.init(PARAMS), loss_scale=number(found))
        for update in (tx.update, jax.jit(tx.update)):
            updates, after = update(grads, state, PARAMS)
            assert (float(after.loss_scale), after.loss_scale.dtype) == (then, jnp.float32)
            if grads is GOOD:  # divided by what the loss was multiplied with
                chex.assert_trees_all_close(updates, jax.tree.map(lambda g: -g / found, GOOD))

    @pytest.mark.parametrize("scale", [np.nan, np.inf, 0.0, -1.0])
    def test_a_scale_that_is_none_costs_one_skip(self, scale):
        tx = dynamic(min_scale=2.0, max_scale=np.inf)
        _, state = tx.update(GOOD, tx.init(PARAMS)._replace(loss_scale=jnp.float32(scale)), PARAMS)
        assert float(state.loss_scale) == 2.0
        assert bool(tx.update(GOOD, state, PARAMS)[1].grads_finite)

    def test_gradients_of_a_growth_step_are_divided_by_the_old_scale(self):
        updates, states = run(dynamic(growth_steps=1), [GOOD])
        assert scales(states) == [8, 16]
        chex.assert_trees_all_equal(updates, {"a": jnp.array([-1.0, -2.0]), "b": jnp.array([[-3.0]])})

    def test_of_a_fixed_one_is_the_argument_even_in_a_restored_state(self):
        fixed = optax_ext.fixed_loss_scaling(optax.sgd(1.0), 4.0)
        _, states = run(fixed, [GOOD, BAD, GOOD])
        assert scales(states) == [4] * 4
        assert [bool(state.grads_finite) for state in states] == [True, True, False, True]
        restored = states[-1]._replace(loss_scale=jnp.float32(8.0), counter=jnp.int32(7))
        updates, state = fixed.update(GOOD, restored, PARAMS)
        chex.assert_trees_all_equal(updates["b"], jnp.array([[-3.0]]))  # by the scale the loss was multiplied with
        assert (float(state.loss_scale), int(state.counter)) == (4.0, 0)

    def test_counters_saturate(self):
        tx = dynamic()
        last = jnp.int32(2**31 - 1)
        state = tx.init(PARAMS)._replace(skipped_steps=last, consecutive_skips=last)
        _, state = tx.update(BAD, state, PARAMS)
        assert int(state.skipped_steps) == int(state.consecutive_skips) == 2**31 - 1


class TestSkip:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("leaf", ["a", "b"])
    @pytest.mark.parametrize("tx", [dynamic(), optax_ext.fixed_loss_scaling(optax.adam(0.1), 8.0)])
    def test_one_bad_number_anywhere_leaves_everything_as_it_was(self, tx, leaf, value):
        bad = {**GOOD, leaf: GOOD[leaf].at[0].set(value)}
        updates, states = run(tx, [GOOD, bad])
        chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, PARAMS))
        chex.assert_trees_all_equal(states[2].inner_state, states[1].inner_state)
        assert [bool(state.grads_finite) for state in states] == [True, True, False]

    def test_a_nan_that_comes_a_hundred_times_is_never_applied(self):
        updates, states = run(dynamic(), [GOOD] + [BAD] * 100)
        chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, PARAMS))
        chex.assert_trees_all_equal(states[-1].inner_state, states[1].inner_state)
        assert (float(states[-1].loss_scale), int(states[-1].consecutive_skips)) == (1.0, 100)

    def test_a_gradient_too_large_for_a_bfloat16_parameter_is_not_finite(self):
        params, grads = jnp.ones(2, jnp.bfloat16), jnp.array([np.finfo(np.float32).max, 1.0])
        updates, states = run(dynamic(initial_scale=1.0), [grads], params)
        chex.assert_trees_all_equal(updates, jnp.zeros(2, jnp.bfloat16))
        assert not states[-1].grads_finite

    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    @pytest.mark.parametrize("form", [lambda update: update, jax.jit])
    def test_updates_that_would_leave_the_finite_numbers_are_skipped_on_request(self, form, dtype):
        params, largest = jnp.ones(3, dtype), float(jnp.finfo(dtype).max)
        inner = optax.chain(optax.trace(0.5), optax.scale(-1.0))
        plain, checked = (
            optax_ext.fixed_loss_scaling(inner, 1.0, check_updates=check_updates) for check_updates in (False, True)
        )
        grads = jnp.array([1.0, 0.75 * largest, 0.0], jnp.float32)  # finite, but the momentum takes it further
        for tx in (plain, checked):
            state, moved = tx.init(params), params
            for _ in range(3):
                updates, state = form(tx.update)(grads, state, moved)
                moved = optax.apply_updates(moved, updates)
            assert bool(jnp.isfinite(moved).all()) is (tx is checked)
            assert int(state.skipped_steps) == (2 if tx is checked else 0)
        _, good = form(checked.update)(-grads, state, moved)
        assert good.grads_finite

    @pytest.mark.parametrize("form", [lambda update: update, jax.jit])
    def test_a_gradient_that_a_small_scale_makes_infinite_is_not_finite(self, form):
        tx = optax_ext.fixed_loss_scaling(optax.sgd(1.0), 2.0**-100)
        state = tx.init(PARAMS)
        for gradient, finite in [(1e10, False), (1e-30, True)]:
            updates, after = form(tx.update)(optax.tree.full_like(PARAMS, gradient), state, PARAMS)
            assert bool(after.grads_finite) is finite
            chex.assert_tree_all_finite(updates)

    def test_a_fixed_scale_applies_what_comes_on_request(self):
        tx = optax_ext.fixed_loss_scaling(optax.sgd(1.0), 8.0, skip_nonfinite=False)
        updates, states = run(tx, [BAD])
        np.testing.assert_array_equal(updates["a"], [-1, np.nan])
        assert not states[-1].grads_finite
        assert int(states[-1].skipped_steps) == 0

    def test_counts_may_go_on_and_nothing_else_does(self):
        schedule = optax_ext.PiecewiseConstantDecay((0,), (1.0, 0.1))
        inner = optax.chain(optax.scale_by_adam(), optax.scale_by_learning_rate(schedule))
        tx = optax_ext.dynamic_loss_scaling(inner, initial_scale=8.0, count_skipped_steps=True)
        _, states = run(tx, [BAD])
        before, after = states[0].inner_state, states[1].inner_state
        chex.assert_trees_all_equal(optax.tree.set(after, count=jnp.int32(0)), before)
        assert {int(count) for _, count in optax.tree.get_all_with_path(after, "count")} == {1}
        skipping = optax_ext.dynamic_loss_scaling(inner, initial_scale=8.0)
        chex.assert_trees_all_equal(run(skipping, [BAD])[1][1].inner_state, before)

    def test_a_parameter_called_count_does_not_count(self):
        params = {"count": jnp.int32(5), "w": jnp.ones(2)}
        tx = optax_ext.dynamic_loss_scaling(optax.trace(0.9), initial_scale=8.0, count_skipped_steps=True)
        _, states = run(tx, [{"count": jnp.int32(0), "w": jnp.full(2, jnp.nan)}], params)
        chex.assert_trees_all_equal(states[1].inner_state, states[0].inner_state)


class TestLeaves:
    @pytest.mark.parametrize("grad_dtype", ["float16", "bfloat16", "float32"])
    @pytest.mark.parametrize("param_dtype", ["float16", "bfloat16", "float32"])
    def test_state_and_updates_keep_their_types(self, grad_dtype, param_dtype):
        params = jnp.ones(3, param_dtype)
        tx = optax_ext.dynamic_loss_scaling(optax_ext.lars(0.1, weight_decay=0.1), initial_scale=8.0)
        grads = jnp.full(3, 8.0, grad_dtype)
        updates, states = run(tx, [grads, grads * jnp.nan, grads], params)
        assert updates.dtype == ("bfloat16" if param_dtype == "bfloat16" else "float32")
        assert optax.apply_updates(params, updates).dtype == params.dtype
        for state in states:
            chex.assert_trees_all_equal_dtypes(state, states[0])
            assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))

    def test_complex_integer_float0_masked_and_missing_leaves(self):
        params = {
            "complex": jnp.array([1 + 1j]),
            "integer": jnp.array([3]),
            "float0": jnp.array([5]),
            "masked": optax.MaskedNode(),
            "none": jnp.ones(2),
            "empty": jnp.ones((0, 2)),
            "scalar": jnp.float32(1.0),
        }
        grads = {
            "complex": jnp.array([8 + 16j]),
            "integer": jnp.array([0]),
            "float0": np.zeros(1, jax.dtypes.float0),
            "masked": optax.MaskedNode(),
            "none": None,
            "empty": jnp.ones((0, 2)),
            "scalar": jnp.float32(8.0),
        }
        tx = dynamic()
        state = tx.init(params)
        updates, next_state = tx.update(grads, state, params)
        chex.assert_trees_all_equal_structs(state, next_state)
        chex.assert_trees_all_equal_dtypes(state, next_state)
        np.testing.assert_array_equal(updates["complex"], [-1 - 2j])
        assert updates["none"] is None
        assert optax.apply_updates(params["float0"], updates["float0"]) == 5
        updates, last = tx.update({**grads, "complex": jnp.array([1j * np.nan])}, next_state, params)
        assert not last.grads_finite
        assert not updates["scalar"]
        chex.assert_trees_all_equal(last.inner_state, next_state.inner_state)

    @pytest.mark.parametrize(
        "make", [optax_ext.lamb, lambda rate: config.Adam(rate).make(), optax.adam, optax_ext.lars]
    )
    @pytest.mark.parametrize("form", [lambda update: update, jax.jit])
    def test_float16_parameters_train_as_float32_do(self, make, form):
        params, small = jnp.ones(4, jnp.float16), jnp.full(4, 1e-8)
        tx = optax_ext.dynamic_loss_scaling(make(0.1))
        updates, state = form(tx.update)((small * 2.0**15).astype(jnp.float16), tx.init(params), params)
        wide = params.astype(jnp.float32)
        expected, _ = make(0.1).update(small, make(0.1).init(wide), wide)
        chex.assert_trees_all_close(updates, expected, rtol=1e-3)
        assert (np.abs(updates) > 1e-5).all()
        assert updates.dtype == jnp.float32
        assert all(leaf.dtype != jnp.float16 for leaf in jax.tree.leaves(state))
        updates, state = form(tx.update)(jnp.zeros(4, jnp.float16), tx.init(params), params)
        chex.assert_tree_all_finite((updates, state))

    @pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
    def test_so_do_float8_parameters(self, dtype):
        params = jnp.ones(4, dtype)
        tx = optax_ext.dynamic_loss_scaling(optax.adam(0.5), initial_scale=8.0)
        updates, state = jax.jit(tx.update)(jnp.full(4, 8.0), tx.init(params), params)
        chex.assert_trees_all_close(updates, jnp.full(4, -0.5), rtol=1e-5)
        assert state.inner_state[0].mu.dtype == jnp.float32
        moved = jax.tree.map(lambda p, u: (p.astype(u.dtype) + u).astype(p.dtype), params, updates)  # as the Note says
        chex.assert_trees_all_equal(moved, jnp.full(4, 0.5, dtype))

    def test_momentum_of_float16_parameters_does_not_overflow(self):
        tx = optax_ext.dynamic_loss_scaling(optax_ext.lars(0.1, classic_momentum=False), initial_scale=1.0)
        params, update = jnp.ones(4, jnp.float16), jax.jit(tx.update)
        state = tx.init(params)
        for _ in range(20):
            updates, state = update(jnp.full(4, 1e4, jnp.float16), state, params)
            params = optax.apply_updates(params, updates)
        chex.assert_tree_all_finite((params, state))

    @pytest.mark.parametrize("form", [lambda update: update, jax.jit])
    def test_integers_pass_through_optaxs_own_clip_and_adamw(self, form):
        params = {"table": jnp.arange(3), "w": jnp.ones(2)}
        grads = {"table": np.zeros(3, jax.dtypes.float0), "w": jnp.full(2, 8.0)}
        tx = dynamic(inner=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1)))
        state = tx.init(params)
        for _ in range(3):
            updates, state = form(tx.update)(grads, state, params)
            params = optax.apply_updates(params, updates)
        np.testing.assert_array_equal(params["table"], [0, 1, 2])
        assert (params["w"] < 0.8).all()

    def test_an_eager_inner_transformation_that_reads_numbers_may_skip_too(self):
        def update(updates, state, params=None):
            return jax.tree.map(lambda u: -u if int(state) < 10 else u, updates), state + 1

        tx = optax_ext.dynamic_loss_scaling(optax.GradientTransformation(lambda params: jnp.zeros([], int), update))
        _, state = tx.update(GOOD, tx.init(PARAMS), PARAMS)
        updates, state = tx.update(BAD, state, PARAMS)
        chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, PARAMS))
        assert (int(state.inner_state), int(state.skipped_steps)) == (1, 1)

    def test_functions_among_the_parameters_are_left_alone(self):
        model = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
        tx = dynamic(optax.sgd(1.0))
        grads = eqx.filter_grad(lambda model: 8 * jnp.sum(model(jnp.ones(2))))(model)
        updates, state = tx.update(grads, tx.init(model), model)
        assert state.grads_finite
        moved = eqx.apply_updates(model, updates)
        assert moved.activation is model.activation
        assert not jnp.array_equal(moved.layers[0].bias, model.layers[0].bias)

    def test_python_numbers_are_parameters_too(self):
        params = {"temperature": 1.0, "kernel": jnp.ones(2)}
        grads = {"temperature": 8.0, "kernel": jnp.full(2, 8.0)}
        tx = dynamic()
        for update in (tx.update, jax.jit(tx.update)):
            updates, state = update(grads, tx.init(params), params)
            assert optax.apply_updates(params, updates)["temperature"] == 0
            assert not update({**grads, "temperature": float("nan")}, state, params)[1].grads_finite

    @pytest.mark.parametrize("empty", [{}, (), None])
    def test_an_empty_tree_is_finite(self, empty):
        updates, states = run(dynamic(growth_steps=1), [empty], empty)
        assert updates == empty
        assert scales(states) == [8, 16]

    def test_random_keys_in_a_state_are_kept_too(self):
        tx = optax_ext.dynamic_loss_scaling(optax.add_noise(0.1, 0.5, jax.random.key(3)), initial_scale=8.0)
        _, states = run(tx, [BAD, GOOD])
        chex.assert_trees_all_equal(states[1].inner_state, states[0].inner_state)
        assert states[2].inner_state.rng_key != states[0].inner_state.rng_key


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initial_scale": 0.0}, "initial_scale must be greater than 0, got 0.0"),
        ({"initial_scale": -4.0}, "initial_scale must be greater than 0, got -4.0"),
        (
            {"initial_scale": float("nan")},
            "initial_scale must be a finite number, got nan",
        ),
        (
            {"initial_scale": float("inf")},
            "initial_scale must be a finite number, got inf",
        ),
        ({"initial_scale": "8"}, "initial_scale must be a number, got '8'"),
        ({"initial_scale": [1]}, r"initial_scale must be a number, got \[1\]"),
        ({"initial_scale": 0.25}, r"initial_scale must be in \[min_scale, max_scale\] = \[1.0, .*\], got 0.25"),
        ({"initial_scale": 8.0, "max_scale": 4.0}, r"initial_scale must be in \[min_scale, max_scale\] = \[1.0, 4.0\]"),
        ({"initial_scale": 1e39}, r"initial_scale must be representable in float32, got 1e\+39"),
        (
            {"initial_scale": 1e-40, "min_scale": 1e-38},
            r"min_scale must be representable in float32, got 1e-38",
        ),
        ({"count_skipped_steps": "no"}, "count_skipped_steps must be True or False, got 'no'"),
        ({"growth_steps": 0}, "growth_steps must be greater than 0, got 0"),
        ({"growth_steps": 2.7}, "growth_steps must be an integer, got 2.7"),
        ({"growth_steps": True}, "growth_steps must be an integer, got True"),
        ({"multiplier": 1.0}, "multiplier must be greater than 1, got 1.0"),
        ({"min_scale": 0.0}, "min_scale must be greater than 0, got 0.0"),
        ({"max_scale": -1.0}, "max_scale must be greater than 0, got -1.0"),
        ({"hysteresis": 0}, "hysteresis must be greater than 0, got 0"),
        ({"consecutive_hysteresis": 1}, "consecutive_hysteresis must be True or False, got 1"),
        ({"check_updates": "no"}, "check_updates must be True or False, got 'no'"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        optax_ext.dynamic_loss_scaling(optax.sgd(0.1), **arguments)


@pytest.mark.parametrize("scale", [0.0, -4.0, float("nan"), float("inf"), 1e39, "dynamic", None])
def test_a_bad_fixed_scale_is_named(scale):
    with pytest.raises(ValueError, match="scale must be"):
        optax_ext.fixed_loss_scaling(optax.sgd(0.1), scale)


def test_a_flag_is_a_bool():
    with pytest.raises(ValueError, match="skip_nonfinite must be True or False, got 'no'"):
        optax_ext.fixed_loss_scaling(optax.sgd(0.1), 8.0, skip_nonfinite="no")  # pyright: ignore[reportArgumentType]


def test_the_largest_scale_may_be_infinite():
    assert (
        scales(run(dynamic(max_scale=float("inf"), initial_scale=2.0**126, growth_steps=1), [GOOD] * 3)[1])[1:]
        == [2.0**127] * 3
    )


def test_multi_steps_is_told_what_to_call():
    with pytest.raises(ValueError, match=r"call its gradient_transformation\(\)"):
        optax_ext.dynamic_loss_scaling(optax.MultiSteps(optax.sgd(0.1), 2))


def test_the_state_keeps_its_types_with_64_bits_and_numpy_arguments():
    with jax.enable_x64(True):
        tx = dynamic(multiplier=np.float64(2), min_scale=np.float64(1), growth_steps=np.int64(1))
        state = tx.init(jnp.ones(2, jnp.float32))
        for grads in (jnp.ones(2, jnp.float32), jnp.full(2, jnp.nan, jnp.float32)):
            _, next_state = tx.update(grads, state, jnp.ones(2, jnp.float32))
            chex.assert_trees_all_equal_dtypes(next_state, state)


def test_one_flag_does_not_fan_out_into_every_fusion():
    tx = dynamic()
    jaxpr = jax.make_jaxpr(tx.update)(GOOD, tx.init(PARAMS), PARAMS)
    assert "optimization_barrier" in str(jaxpr)  # without, XLA compiles for half a minute on a real model


def test_a_whole_layer_may_have_no_gradient():
    params = {"layer": {"a": jnp.ones(2), "b": jnp.ones(2)}, "head": jnp.ones(2)}
    tx = dynamic()
    state = tx.init(params)
    updates, next_state = tx.update({"layer": None, "head": jnp.full(2, 8.0)}, state, params)
    assert updates["layer"] is None
    chex.assert_trees_all_equal_structs(next_state, state)


def test_wrapping_twice_is_refused():
    inner = optax.chain(optax.clip(1.0), optax_ext.fixed_loss_scaling(optax.sgd(0.1), 8.0))
    with pytest.raises(ValueError, match="inner must not scale losses itself"):
        optax_ext.dynamic_loss_scaling(inner).init(PARAMS)


def test_what_is_not_a_transformation_is_refused():
    with pytest.raises(ValueError, match="inner must be an optax.GradientTransformation, got 'sgd'"):
        optax_ext.dynamic_loss_scaling("sgd")


def test_the_scale_shrinks_by_a_true_quotient():
    # XLA makes a product with the reciprocal of a constant divisor, which is another number for a third of the scales.
    tx = optax_ext.dynamic_loss_scaling(optax.sgd(0.1), initial_scale=1000.0, multiplier=3.0, min_scale=1e-3)
    state, update = tx.init(jnp.ones(1)), jax.jit(tx.update)
    expected = np.float32(1000.0)
    for _ in range(12):
        _, state = update(jnp.full(1, jnp.nan), state, jnp.ones(1))
        expected /= np.float32(3.0)
        assert state.loss_scale == expected


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("classic_momentum", [True, False])
def test_nothing_leaks_out_of_what_traces_inside(classic_momentum):
    inner = optax.MultiSteps(optax_ext.lars(0.1, weight_decay=0.1, classic_momentum=classic_momentum), 2)
    tx = optax_ext.dynamic_loss_scaling(inner.gradient_transformation())
    params = {"kernel": jnp.ones((2, 2))}
    with jax.checking_leaks():
        jax.jit(tx.update)(params, tx.init(params), params)
