"""What holds for every schedule, whatever its formula."""

import dataclasses
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext

COSINE = optax_ext.CosineDecay(0.5, 100, alpha=0.1, warmup_target=0.8, warmup_steps=20, offset=10)
SCHEDULES = [
    optax_ext.Constant(0.1),
    optax_ext.PiecewiseConstantDecay((30, 60), (1.0, 0.5, 0.1), offset=10),
    optax_ext.CosineDecay(0.5, 100, alpha=0.1),
    COSINE,
    optax_ext.ExponentialDecay(0.5, 10, 0.9, staircase=True, offset=10),
    optax_ext.ExponentialDecay(0.5, 2.4, 0.9, staircase=True),
    optax_ext.PolynomialDecay(1.0, 80, 0.1, power=2.0, cycle=True, offset=10),
    optax_ext.PolynomialDecay(1.0, 80, 0.1, power=0.5),
    optax_ext.InverseTimeDecay(0.5, 10, 0.5, staircase=True),
    optax_ext.CosineDecayRestarts(0.5, 30, t_mul=1.5, m_mul=0.8, alpha=0.05),
    optax_ext.CosineDecayRestarts(0.5, 30, t_mul=1.0, m_mul=0.8, offset=10),
    optax_ext.DirectPowerDecay(0.5, power=-0.5),
    optax_ext.PowerDecay(0.5, power=-0.5, offset=10, pre_offset_learning_rate=0.7),
    optax_ext.PowerAndLinearDecay(0.5, 120, power=-0.5, linear_decay_fraction=0.5, offset=10),
    optax_ext.PowerAndLinearDecay(0.5, 0),
    optax_ext.StepCosineDecay((10, 60, 100), (1.0, 0.5, 0.1), offset=10),
    optax_ext.LinearWarmup(COSINE, 25, 0.01),
    optax_ext.LinearWarmup(0.3, 0),
    optax_ext.PolynomialWarmup(COSINE, 25, power=2.0),
    optax_ext.WarmupStableDecay(0.5, 20, 30, 40, "1-sqrt", 0.1, 0.05, offset=10),
    optax_ext.WarmupStableDecay(0.5, 0, 50, 40, "cosine"),
    optax_ext.JoinedSchedules([optax_ext.LinearWarmup(0.5, 25), COSINE, 0.1], [25, 91]),
]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
STEPS = np.arange(0, 140, 7, dtype=np.int32)


def test_every_exported_schedule_is_here():
    exported = {
        getattr(optax_ext, name)
        for name in optax_ext.__all__
        if name.endswith(("Decay", "Warmup", "Restarts", "Schedules"))
    }
    assert exported | {optax_ext.Constant} == {type(schedule) for schedule in SCHEDULES}


@every_schedule
def test_is_the_same_under_every_transformation(schedule):
    one_by_one = jnp.stack([schedule(int(step)) for step in STEPS])
    scanned = jax.lax.scan(lambda step, _: (step + 7, schedule(step)), 0, length=len(STEPS))[1]
    for values in (schedule(STEPS), jax.jit(schedule)(STEPS), jax.vmap(schedule)(STEPS), scanned):
        chex.assert_trees_all_close(values, one_by_one, rtol=1e-5)  # compiled code may fuse, so the last bit may differ


@every_schedule
@pytest.mark.parametrize("step", [3, 3.0, np.int64(3), np.uint8(3), jnp.int32(3), jnp.float32(3), jnp.bfloat16(3)])
def test_returns_a_strongly_typed_float32_scalar(schedule, step):
    value = schedule(step)
    chex.assert_shape(value, ())
    assert value.dtype == jnp.float32
    assert not value.weak_type
    assert value == schedule(jnp.int32(3))


@every_schedule
def test_is_a_value(schedule):
    twin = pickle.loads(pickle.dumps(schedule))
    assert twin == schedule
    assert hash(twin) == hash(schedule)
    assert schedule != optax_ext.Constant(0.123)
    with pytest.raises(AttributeError):
        schedule.learning_rate = 1.0


@every_schedule
def test_is_static_to_jit_and_a_schedule_to_optax(schedule):
    value = jax.jit(lambda s, step: s(step), static_argnums=0)(schedule, 3)
    tx = optax.sgd(schedule)
    updates, _ = tx.update(jnp.ones([]), optax.tree.set(tx.init(jnp.ones([])), count=jnp.int32(3)))
    chex.assert_trees_all_close(-updates, value, rtol=1e-6)


@every_schedule
def test_is_finite_from_the_first_to_the_last_step(schedule):
    steps = jnp.concatenate([jnp.arange(300), 2 ** jnp.arange(9, 31), jnp.array([2**24 + 1, 2**31 - 1])])
    chex.assert_tree_all_finite(schedule(steps))
    assert (schedule(steps) >= 0).all()


@every_schedule
def test_runs_with_64_bits_and_strict_promotion(schedule):
    expected = schedule(STEPS)
    with jax.enable_x64(True):
        assert schedule(np.int64(3)).dtype == jnp.float32
        chex.assert_trees_all_close(schedule(STEPS.astype(np.int64)), expected, rtol=1e-6)
    with jax.numpy_dtype_promotion("strict"):
        chex.assert_trees_all_equal(schedule(jnp.asarray(STEPS)), expected)


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if hasattr(s, "offset")], ids=lambda s: type(s).__name__)
class TestOffset:
    def test_shifts_the_schedule(self, schedule):
        shifted, plain = dataclasses.replace(schedule, offset=50), dataclasses.replace(schedule, offset=0)
        chex.assert_trees_all_equal(shifted(STEPS), plain(STEPS - 50))

    def test_holds_the_value_at_the_offset_before_it(self, schedule):
        held = dataclasses.replace(schedule, offset=50, before_offset="hold")
        chex.assert_trees_all_equal(held(STEPS[STEPS < 50]), jnp.full(8, held(50)))
        chex.assert_trees_all_equal(
            held(STEPS[STEPS >= 50]), dataclasses.replace(held, before_offset="extrapolate")(STEPS[8:])
        )

    def test_neither_end_of_the_integers_wraps(self, schedule):
        before = dataclasses.replace(schedule, offset=100)
        chex.assert_trees_all_equal(before(jnp.uint32(40)), before(40))
        chex.assert_trees_all_equal(before(jnp.uint8(40)), before(40))
        early = dataclasses.replace(schedule, offset=-1000)
        plain = dataclasses.replace(schedule, offset=0)
        chex.assert_trees_all_equal(early(2**31 - 1), plain(2**31 - 1))
        chex.assert_trees_all_equal(before(-(2**31)), plain(-(2**31)))
        late = dataclasses.replace(schedule, before_offset="hold")
        for past_the_end in (2**40, 2**70, np.uint64(2**63), np.int64(2**62), jnp.uint32(2**32 - 1)):
            chex.assert_trees_all_equal(late(past_the_end), late(2**31 - 1))


def test_compiled_division_is_the_eager_one():
    schedule = optax_ext.PolynomialDecay(1.0, 1_000_000, 0.0)
    last = jnp.arange(999_990, 1_000_001)  # where one bit of t / T is a tenth of 1 - t / T
    chex.assert_trees_all_close(jax.jit(schedule)(last), schedule(last), rtol=1e-6)
    chex.assert_trees_all_close(schedule(last), 1 - np.float32(last) / np.float32(1_000_000), rtol=1e-6)


def test_boundaries_are_exact_past_float32():
    boundary = 2**24 + 1  # float32 has no such number
    schedule = optax_ext.PiecewiseConstantDecay((boundary,), (1.0, 0.5))
    assert schedule(boundary) == 1.0
    assert schedule(boundary + 1) == 0.5
    assert optax_ext.PiecewiseConstantDecay((1,), (1.0, 0.5), offset=boundary)(boundary + 1) == 1.0
    assert optax_ext.ExponentialDecay(1.0, 5, 0.5, staircase=True, offset=boundary)(boundary + 5) == 0.5


@pytest.mark.parametrize("step", [True, 1 + 2j, jnp.array([False])])
def test_what_is_not_a_step_is_refused(step):
    with pytest.raises(TypeError, match="step must be an integer or a float"):
        optax_ext.Constant(0.1)(step)
