"""What every transformation promises to everything it meets: jit, donation, chains, wrappers of Optax, frameworks."""

import functools
import itertools
import pickle

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from tests.marks import slow_unless

SCHEDULE = optax_ext.LinearWarmup(optax_ext.CosineDecay(0.5, 10), 2, 0.1)
MASK = optax_ext.path_mask(exclude=["bias"])
TRANSFORMATIONS = {
    "scale_by_trust_ratio": lambda: optax_ext.scale_by_trust_ratio(0.1),
    "lars": lambda: optax_ext.lars(SCHEDULE, weight_decay=0.1, weight_decay_mask=MASK, trust_ratio_mask=MASK),
    "lars popular": lambda: optax_ext.lars(SCHEDULE, nesterov=True, classic_momentum=False),
    "lamb": lambda: optax_ext.lamb(SCHEDULE, weight_decay=0.1, weight_decay_mask=MASK),
    "dynamic": lambda: optax_ext.dynamic_loss_scaling(optax_ext.lars(SCHEDULE), initial_scale=8.0, growth_steps=2),
    "fixed": lambda: optax_ext.fixed_loss_scaling(optax.adam(SCHEDULE), 8.0),
    "chain": lambda: optax_ext.dynamic_loss_scaling(
        optax.chain(optax.clip_by_global_norm(1.0), optax_ext.lamb(SCHEDULE)),
        initial_scale=8.0,
        count_skipped_steps=True,
    ),
    "guard": lambda: optax_ext.skip_bad_steps(optax_ext.lars(SCHEDULE), max_norm_ratio=10.0, warmup_steps=1),
    "guarded": lambda: optax_ext.dynamic_loss_scaling(
        optax_ext.skip_bad_steps(optax.adam(SCHEDULE), max_norm_ratio=10.0, warmup_steps=1), initial_scale=8.0
    ),
}
SCALERS = ("dynamic", "fixed", "chain", "guarded")
every_transformation = pytest.mark.parametrize("name", TRANSFORMATIONS)


def make_params(dtype="float32"):
    return {"dense": {"kernel": jnp.linspace(-1, 1, 6, dtype=dtype).reshape(2, 3), "bias": jnp.ones(3, dtype)}}


def make_grads(step, params):
    return jax.tree.map(lambda p: jnp.sin(p * (step + 1)) * 8, params)


@pytest.mark.parametrize(
    ("name", "dtype"),
    slow_unless(
        lambda name, dtype: dtype == "float32" or name in ("lars popular", "dynamic", "chain"),
        itertools.product(TRANSFORMATIONS, ("float32", "float16", "bfloat16")),
    ),
)
def test_compiles_once_and_donates_from_the_first_step(name, dtype):
    tx, traces = TRANSFORMATIONS[name](), []

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, grads):
        traces.append(None)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = make_params(dtype)
    state = tx.init(params)
    for index in range(5):
        grads = make_grads(index, params)
        if index == 2 and name in (*SCALERS, "guard"):
            grads["dense"]["bias"] = grads["dense"]["bias"].at[1].set(jnp.nan)
        params, state = step(params, state, grads)
        chex.assert_tree_all_finite(params)
    assert len(traces) == 1


@every_transformation
def test_compiled_and_eager_agree(name):
    tx, params = TRANSFORMATIONS[name](), make_params()
    state = compiled_state = tx.init(params)
    for index in range(3):
        updates, state = tx.update(make_grads(index, params), state, params)
        compiled_updates, compiled_state = jax.jit(tx.update)(make_grads(index, params), compiled_state, params)
        chex.assert_trees_all_close((updates, state), (compiled_updates, compiled_state), rtol=1e-5, atol=1e-7)


@every_transformation
def test_state_survives_pickle_and_flax_serialization(name):
    tx, params = TRANSFORMATIONS[name](), make_params()
    _, state = tx.update(make_grads(0, params), tx.init(params), params)
    restored = flax.serialization.from_state_dict(tx.init(params), flax.serialization.to_state_dict(state))
    for copy in (restored, pickle.loads(pickle.dumps(state))):
        chex.assert_trees_all_equal(copy, state)
        assert jax.tree.structure(copy) == jax.tree.structure(state)


@every_transformation
def test_params_of_the_state_can_be_mapped(name):
    tx, params = TRANSFORMATIONS[name](), make_params()
    marked = optax.tree.map_params(tx, lambda leaf: leaf + 1, tx.init(params))
    chex.assert_trees_all_equal_structs(marked, tx.init(params))


@pytest.mark.parametrize("name", SCALERS)
def test_the_scale_is_found_by_optax_at_any_depth(name):
    tx = optax.chain(optax.identity(), optax.chain(TRANSFORMATIONS[name](), optax.identity()))
    state = tx.init(make_params())
    assert optax.tree.get(state, "loss_scale") == 8.0
    assert optax_ext.scale_loss(jnp.float32(2.0), state) == 16.0


@pytest.mark.parametrize("name", SCALERS)
def test_extra_arguments_reach_the_inner_transformation(name):
    seen = []

    def update(updates, state, params=None, *, value, **extra_args):
        seen.append((value, params, extra_args))
        return updates, state

    probe = optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
    tx = optax.chain(
        optax_ext.dynamic_loss_scaling(probe) if name == "dynamic" else optax_ext.fixed_loss_scaling(probe, 8.0)
    )
    params = make_params()
    tx.update(params, tx.init(params), params, value=0.5, other=1)
    assert seen == [(0.5, params, {"other": 1})]


class TestInjectHyperparams:
    def test_inside(self):
        inner = optax.inject_hyperparams(optax_ext.lars, static_args=("weight_decay_mask", "trust_ratio_mask"))(
            learning_rate=SCHEDULE, weight_decay=0.1, weight_decay_mask=MASK, trust_ratio_mask=MASK
        )
        plain = optax_ext.lars(SCHEDULE, weight_decay=0.1, weight_decay_mask=MASK, trust_ratio_mask=MASK)
        self.check(
            optax_ext.dynamic_loss_scaling(inner, initial_scale=8.0),
            optax_ext.dynamic_loss_scaling(plain, initial_scale=8.0),
        )

    def test_around(self):
        injected = optax.inject_hyperparams(optax_ext.dynamic_loss_scaling)(
            inner=optax_ext.lars(SCHEDULE), initial_scale=8.0, growth_steps=2, hysteresis=1
        )
        self.check(
            injected, optax_ext.dynamic_loss_scaling(optax_ext.lars(SCHEDULE), initial_scale=8.0, growth_steps=2)
        )

    def test_a_fixed_scale_may_be_a_schedule(self):
        scale = optax_ext.PiecewiseConstantDecay((0,), (8.0, 16.0))
        tx = optax.inject_hyperparams(optax_ext.fixed_loss_scaling)(inner=optax.sgd(1.0), scale=scale)
        params = jnp.ones(2)
        state, update = tx.init(params), jax.jit(tx.update)
        for _ in range(3):
            _, grads = optax_ext.value_and_grad(lambda p: jnp.sum(p**2), state)(params)
            updates, state = update(grads, state, params)
            chex.assert_trees_all_equal(updates, -2 * params)

    def check(self, tx, expected):
        params = make_params()
        update, expected_update = jax.jit(tx.update), jax.jit(expected.update)
        state, expected_state = tx.init(params), expected.init(params)
        for index in range(3):
            grads = make_grads(index, params)
            if index == 1:
                grads["dense"]["bias"] *= jnp.nan
            updates, state = update(grads, state, params)
            expected_updates, expected_state = expected_update(grads, expected_state, params)
            chex.assert_trees_all_close(updates, expected_updates, rtol=1e-6)
            assert optax.tree.get(state, "skipped_steps") == expected_state.skipped_steps


class TestMultiSteps:
    """Around `optax.MultiSteps` each micro-batch is checked by itself; inside it, one NaN stays for ever."""

    def run(self, tx, bad_step, length=8):
        params = jnp.ones(2)
        state, update, moved = tx.init(params), jax.jit(tx.update), []
        for index in range(length):
            updates, state = update(jnp.full(2, jnp.nan if index == bad_step else 8.0), state, params)
            moved.append(bool(updates.any()))
        return moved, state

    def test_loss_scaling_outside_leaves_a_bad_micro_batch_out(self):
        inner = optax.MultiSteps(optax.sgd(1.0), every_k_schedule=2).gradient_transformation()
        moved, state = self.run(optax_ext.dynamic_loss_scaling(inner, initial_scale=8.0), bad_step=2)
        assert moved == [False, True, False, False, True, False, True, False]
        assert state.skipped_steps == 1
        chex.assert_tree_all_finite(state)

    def test_loss_scaling_inside_needs_optax_to_skip(self):
        scaled = optax_ext.dynamic_loss_scaling(optax.sgd(1.0), initial_scale=8.0)
        poisoned = optax.MultiSteps(scaled, every_k_schedule=2)
        moved, state = self.run(poisoned.gradient_transformation(), bad_step=2)
        assert moved == [False, True, False, False, False, False, False, False]
        assert optax.tree.get(state, "skipped_steps") == 3
        healthy = optax.MultiSteps(scaled, every_k_schedule=2, should_skip_update_fn=optax.skip_not_finite)
        moved, state = self.run(healthy.gradient_transformation(), bad_step=2)
        assert moved == [False, True, False, False, True, False, True, False]


def test_float16_gradients_on_float32_parameters_work_where_apply_if_finite_fails():
    params = {"w": jnp.ones(2)}
    grads = {"w": jnp.full(2, 8.0, jnp.float16)}
    theirs = optax.apply_if_finite(optax.sgd(0.5, momentum=0.9), 5)
    with pytest.raises(TypeError):
        theirs.update(grads, theirs.init(params), params)
    ours = optax_ext.fixed_loss_scaling(optax.sgd(0.5, momentum=0.9), 8.0)
    updates, _ = ours.update(grads, ours.init(params), params)
    chex.assert_trees_all_equal(updates, {"w": jnp.full(2, -0.5)})


def test_no_two_leaves_of_a_new_state_share_a_buffer():
    scale = jnp.float32(8.0)

    def init(params):
        return (params, params, scale)

    shares = optax.GradientTransformation(init, lambda updates, state, params=None: (updates, state))
    tx = optax_ext.dynamic_loss_scaling(shares, initial_scale=scale)
    params = jnp.ones(3)
    leaves = [*jax.tree.leaves(tx.init(params)), params, scale]
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    jax.jit(tx.update, donate_argnums=1)(jnp.ones(3), tx.init(params), params)


@pytest.mark.usefixtures("small_heap")
def test_strict_promotion_and_64_bits_and_leak_checks():
    tx = optax_ext.dynamic_loss_scaling(optax_ext.lars(SCHEDULE, weight_decay=0.1), initial_scale=8.0)
    params = make_params()
    with jax.numpy_dtype_promotion("strict"), jax.checking_leaks():
        expected, _ = jax.jit(tx.update)(make_grads(0, params), tx.init(params), params)
    with jax.enable_x64(True):
        updates, state = jax.jit(tx.update)(make_grads(0, params), tx.init(params), params)
        chex.assert_trees_all_close(updates, expected)
        assert (state.loss_scale.dtype, state.counter.dtype) == (np.float32, np.int32)


def test_a_skip_does_not_trip_debug_nans():
    tx = optax_ext.dynamic_loss_scaling(optax_ext.lars(SCHEDULE, weight_decay=0.1), initial_scale=8.0)
    params = make_params()
    bad = jax.tree.map(lambda p: p.at[0].set(jnp.inf), params)
    with jax.debug_nans(True):
        _, state = jax.jit(tx.update)(bad, tx.init(params), params)
    assert not state.grads_finite
