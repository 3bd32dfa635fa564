"""The ends of the integers, 64 bits, strict types, JAX's checks, and the same bytes every time."""

import functools
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from tests.marks import slow_unless

LAST = 2**31 - 1  # the last step that an int32 counts
SCHEDULES = [
    optax_ext.Constant(0.1),
    optax_ext.PiecewiseConstantDecay((30, LAST - 1), (1.0, 0.5, 0.25)),
    optax_ext.CosineDecay(0.5, LAST, alpha=0.1),
    optax_ext.CosineDecay(0.5, 100, warmup_target=0.8, warmup_steps=20, offset=-LAST),
    optax_ext.ExponentialDecay(0.5, 10**9, 0.5, staircase=True),
    optax_ext.PolynomialDecay(1.0, 80, 0.1, power=2.0, cycle=True, offset=10),
    optax_ext.InverseTimeDecay(0.5, 2**20, 0.5),
    optax_ext.CosineDecayRestarts(0.5, 30, t_mul=2.0, m_mul=0.9, alpha=0.05),
    optax_ext.DirectPowerDecay(0.5, power=-0.5),
    optax_ext.PowerDecay(0.5, power=-0.5, offset=LAST - 1, pre_offset_learning_rate=0.7),
    optax_ext.PowerAndLinearDecay(0.5, LAST, power=-0.5, linear_decay_fraction=0.5),
    optax_ext.StepCosineDecay((0, LAST), (1.0, 0.5)),
    optax_ext.LinearWarmup(optax_ext.CosineDecay(0.5, 100, alpha=0.1), LAST, 0.01),
    optax_ext.PolynomialWarmup(0.3, LAST, power=2.0),
    optax_ext.WarmupStableDecay(0.5, LAST, LAST, LAST, offset=-LAST, end_learning_rate=0.1),
    optax_ext.JoinedSchedules([0.3, optax_ext.CosineDecay(0.5, LAST, alpha=0.1)], [LAST - 1]),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
class TestSchedulesPastTheLastInt32:
    def test_with_64_bits_steps_before_it_keep_their_values(self, schedule):
        steps = np.array([0, 1, 2**24 + 1, LAST - 1, LAST])
        expected = schedule(steps)
        with jax.enable_x64(True):
            chex.assert_trees_all_close(schedule(steps), expected, rtol=1e-6)

    def test_with_64_bits_steps_after_it_go_on(self, schedule):
        steps = np.array([LAST + 1, LAST + 2, 2**32, 2**40 + 1, 2**53 + 1, 2**63 - 1])
        with jax.enable_x64(True):
            values = schedule(steps)
            chex.assert_tree_all_finite(values)
            assert (values >= 0).all()
            assert (values.dtype, values.weak_type) == (jnp.float32, False)
            chex.assert_trees_all_close(jax.jit(schedule)(steps), values, rtol=1e-5)
            chex.assert_trees_all_equal(jnp.stack([schedule(int(step)) for step in steps]), values)
            before = schedule(LAST)  # nothing but a boundary makes it jump
            assert abs(values[0] - before) < 1e-6 or isinstance(schedule, optax_ext.PowerDecay)

    def test_an_optimizer_stays_at_the_last_step(self, schedule):
        tx, params = optax.sgd(schedule), jnp.float32(1.0)
        state, update = optax.tree.set(tx.init(params), count=jnp.int32(LAST)), jax.jit(tx.update)
        for _ in range(2):
            updates, state = update(jnp.float32(1.0), state, params)
            chex.assert_trees_all_close(-updates, schedule(LAST), rtol=1e-5)
            assert int(optax.tree.get(state, "count")) == LAST


def test_boundaries_at_the_last_int32_are_exact_with_64_bits():
    piecewise = optax_ext.PiecewiseConstantDecay((LAST,), (1.0, 0.5))
    late = optax_ext.ExponentialDecay(1.0, LAST, 0.5, staircase=True, offset=LAST)
    cosine = optax_ext.CosineDecay(1.0, LAST, alpha=0.25, offset=LAST)
    assert piecewise(LAST) == piecewise(LAST + 1) == 1.0  # without, steps stop there
    with jax.enable_x64(True):
        np.testing.assert_array_equal(piecewise(np.array([LAST, LAST + 1])), [1.0, 0.5])
        np.testing.assert_array_equal(late(np.array([2 * LAST - 1, 2 * LAST, 3 * LAST])), [1.0, 0.5, 0.25])
        np.testing.assert_allclose(cosine(np.array([LAST, 2 * LAST, 2**40])), [1.0, 0.25, 0.25])


# ---------------------------------------------------------------------------------------------------------
# A whole training step: scaled loss, LARS, a moving average, one bad batch.

NO_BIAS = optax_ext.path_mask(exclude=["bias"])
BAD_STEP = 1


def make():
    schedule = optax_ext.LinearWarmup(optax_ext.CosineDecay(0.5, 10), 2, 0.1)
    lars = optax_ext.lars(schedule, weight_decay=0.1, weight_decay_mask=NO_BIAS, trust_ratio_mask=NO_BIAS)
    chain = optax.chain(lars, optax_ext.params_ema(0.9, initial="params"))
    return optax_ext.dynamic_loss_scaling(chain, initial_scale=2.0**10, growth_steps=2)


def make_params(dtype=np.float32, second=np.float16):
    generator = np.random.default_rng(0)
    kernels = {name: generator.normal(0, 0.1, (64, 64)).astype(np.float32) for name in ("first", "second")}
    return {
        "first": {"kernel": jnp.asarray(kernels["first"], dtype), "bias": jnp.zeros(64, dtype)},
        "second": {"kernel": jnp.asarray(kernels["second"], second), "bias": jnp.zeros(64, dtype)},
    }


def loss_fn(params, batch):
    first, second = params["first"], params["second"]
    hidden = jax.nn.relu(batch.astype(first["kernel"].dtype) @ first["kernel"] + first["bias"])
    logits = hidden.astype(second["kernel"].dtype) @ second["kernel"]
    return jnp.mean(jnp.square(logits.astype(jnp.float32) + second["bias"].astype(jnp.float32)))


def train_step(tx, params, state, batch):
    loss, grads = optax_ext.value_and_grad(loss_fn, state)(params, batch)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state, loss


def make_batches():
    batches = np.random.default_rng(1).normal(0, 1, (4, 32, 64)).astype(np.float32)
    batches[BAD_STEP, 0, 0] = np.inf
    return batches


def train(params, *, compiled=True):
    tx = make()
    step = functools.partial(train_step, tx)
    step = jax.jit(step) if compiled else step
    state = tx.init(params)
    for batch in make_batches():
        params, state, _ = step(params, state, jnp.asarray(batch))
    return params, state


def scan(params):
    tx = make()

    def body(carry, batch):
        params, state, loss = train_step(tx, *carry, batch)
        return (params, state), loss

    return jax.jit(lambda *carry: jax.lax.scan(body, carry, make_batches())[0])(params, tx.init(params))


@pytest.fixture(scope="module")
def expected():
    params, state = train(make_params())
    assert (int(state.skipped_steps), float(state.loss_scale)) == (1, 2.0**10)  # halved, and grown again
    return params, state


def assert_close(actual, expected):
    chex.assert_trees_all_equal_dtypes(actual, expected)
    chex.assert_trees_all_close(actual, expected, rtol=2e-3, atol=1e-5)  # float16 in other orders


RUNS = {"jit": train, "eager": functools.partial(train, compiled=False), "scan": scan}
SETTINGS = {
    "64 bits": functools.partial(jax.enable_x64, True),
    "strict promotion": functools.partial(jax.numpy_dtype_promotion, "strict"),
    "leak checks": jax.checking_leaks,
}
# Types and leaks are looked at while tracing, which jit does too, and once.
PAIRS = [(setting, run) for setting in SETTINGS for run in RUNS if run != "eager" or setting == "64 bits"]


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize(
    ("setting", "run"), slow_unless(lambda setting, run: run != "scan" or setting == "64 bits", PAIRS)
)
def test_a_whole_training_is_the_same_under(setting, run, expected):
    # Updates of float16 parameters are in float32, and under strict promotion `optax.apply_updates` adds no such two.
    params = make_params(second=np.float32 if setting == "strict promotion" else np.float16)
    if setting == "strict promotion":
        expected = RUNS[run](params)
    with SETTINGS[setting]():
        assert_close(RUNS[run](params), expected)


def test_parameters_of_64_bits_stay_so():
    with jax.enable_x64(True):
        params, state = train(make_params(np.float64))
        for tree in (params, optax_ext.ema_params(state), optax.tree.get(state, "trace")):
            assert tree["first"]["kernel"].dtype == np.float64
        numbers = jax.tree.leaves(state._replace(inner_state=None))
        dtypes = ["float32", "int32", "bool", "int32", "int32", "int32", "float32", "bool"]
        assert [leaf.dtype.name for leaf in numbers] == dtypes
        chex.assert_tree_all_finite(params)
        tx = optax_ext.fixed_loss_scaling(optax.identity(), 3.0)  # unscaled in the wider type, not in float32
        updates, _ = tx.update(jnp.float64(1.0), tx.init(jnp.float64(0.0)), jnp.float64(0.0))
        np.testing.assert_allclose(updates, 1 / 3, rtol=1e-15)


class TestDebugNans:
    """JAX looks at what a compiled function returns, and at each operation of one that is not compiled."""

    @pytest.fixture
    def params(self):
        return make_params()

    @pytest.fixture
    def bad_batch(self):
        return jnp.full((32, 64), jnp.nan)

    @pytest.mark.parametrize("donate", [(), (0, 1)])
    def test_a_compiled_step_that_skips_does_not_raise(self, params, bad_batch, donate):
        tx, before = make(), make_params()
        step = jax.jit(lambda *args: train_step(tx, *args)[:2], donate_argnums=donate)
        state = tx.init(params)
        with jax.debug_nans(True):  # under `debug_infs`, the norm of non-finite gradients raises
            params, state = step(params, state, bad_batch)
        assert int(state.skipped_steps) == 1
        chex.assert_trees_all_equal(params, before)

    def test_one_that_returns_the_loss_raises_unless_that_is_hidden(self, params, bad_batch):
        tx = make()

        def hide(params, state, batch):
            params, state, loss = train_step(tx, params, state, batch)
            return params, state, jnp.where(state.grads_finite, loss, -1)

        with jax.debug_nans(True):
            with pytest.raises(FloatingPointError, match="nan"):
                jax.jit(functools.partial(train_step, tx))(params, tx.init(params), bad_batch)
            assert jax.jit(hide)(params, tx.init(params), bad_batch)[2] == -1

    def test_gradients_that_leave_one_compiled_function_for_another_raise_there(self, params, bad_batch):
        tx = make()
        state = tx.init(params)
        gradients = jax.jit(lambda params: jax.grad(loss_fn)(params, bad_batch))
        grads = gradients(params)
        with jax.debug_nans(True):
            with pytest.raises(FloatingPointError, match="nan"):
                gradients(params)
            _, state = jax.jit(tx.update)(grads, state, params)  # what goes in is not looked at
        assert int(state.skipped_steps) == 1

    def test_an_update_that_is_not_compiled_raises(self, params):
        tx = make()
        with jax.debug_nans(True), pytest.raises(FloatingPointError, match="nan"):
            tx.update(jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), params), tx.init(params), params)

    def test_a_run_without_a_skip_never_raises(self, params):
        tx = make()
        batch, state = jnp.asarray(make_batches()[0]), tx.init(params)
        with jax.debug_nans(True), jax.debug_infs(True):
            train_step(tx, params, state, batch)
            jax.jit(functools.partial(train_step, tx))(params, state, batch)


class TestTheSameBytes:
    def test_of_two_runs_and_of_a_second_compilation(self):
        first = digest()
        assert digest() == first
        jax.clear_caches()
        assert digest() == first

    def test_of_two_processes_with_other_hash_seeds(self):
        def output(seed):
            root = Path(__file__).parents[2]
            command = [sys.executable, "-W", "error", __file__]
            environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"}
            return subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, text=True, timeout=300, check=True
            ).stdout

        with ThreadPoolExecutor() as pool:
            outputs = list(pool.map(output, ("1", "2")))
        assert outputs[0] == outputs[1]
        assert len(outputs[0].strip()) == 64


def digest():
    leaves = jax.tree.leaves(train(make_params()))
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


if __name__ == "__main__":
    print(digest())
