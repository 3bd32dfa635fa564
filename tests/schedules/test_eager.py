"""An eager call is one compiled program, and no other number than jit's; what is not ours is called as it is."""

import dataclasses
import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ext
from optax_ext.schedules import _compile_eager

DECAY = optax_ext.CosineDecay(0.5, 97, alpha=0.1, offset=13)
SCHEDULES = [
    optax_ext.Constant(0.1),
    optax_ext.PiecewiseConstantDecay((30, 60), (1.0, 0.5, 0.1), offset=10),
    DECAY,
    optax_ext.CosineDecay(0.5, 97, alpha=0.1, warmup_target=0.8, warmup_steps=21),
    optax_ext.ExponentialDecay(0.5, 7, 0.9),
    optax_ext.PolynomialDecay(1.0, 83, 0.1, power=1.7),
    optax_ext.InverseTimeDecay(0.5, 7, 0.3),
    optax_ext.CosineDecayRestarts(0.5, 31, t_mul=1.5, m_mul=0.8, alpha=0.05),
    optax_ext.DirectPowerDecay(0.5, power=-0.3),
    optax_ext.PowerDecay(0.5, power=-0.3, offset=10, pre_offset_learning_rate=0.7),
    optax_ext.PowerAndLinearDecay(0.5, 120, power=-0.3, linear_decay_fraction=0.7),
    optax_ext.StepCosineDecay((10, 60, 100), (1.0, 0.7, 0.1)),
    optax_ext.LinearWarmup(DECAY, 37, 0.01),
    optax_ext.PolynomialWarmup(optax_ext.LinearWarmup(DECAY, 17), 37, power=1.3),
    optax_ext.WarmupStableDecay(0.7, 23, 9, 37, "1-sqrt", 0.1),
    optax_ext.JoinedSchedules([DECAY, optax_ext.LinearWarmup(DECAY, 17), 0.3], [37, 91]),
]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
STEPS = np.r_[-20:140:3, 2**24 + 1, 2**31 - 1].astype(np.int32)


def test_every_schedule_is_here():
    ours = {getattr(optax_ext, name) for name in optax_ext.__all__ if isinstance(getattr(optax_ext, name), type)}
    ours = {cls for cls in ours if issubclass(cls, optax_ext.Schedule)} - {optax_ext.Schedule}
    assert ours == {type(schedule) for schedule in SCHEDULES}


@every_schedule
def test_an_eager_rate_is_that_of_jit_to_the_bit(schedule):
    compiled = jax.jit(schedule)
    np.testing.assert_array_equal(schedule(STEPS), compiled(STEPS))
    one_by_one = [compiled(jnp.int32(step)) for step in STEPS]
    for kind in (int, np.int64, np.asarray, jnp.int32):
        np.testing.assert_array_equal([schedule(kind(step)) for step in STEPS], one_by_one)
    for step in (3.5, np.float64(3.5), jnp.float16(3.5)):
        np.testing.assert_array_equal(schedule(step), compiled(jnp.float32(3.5)))


@every_schedule
def test_64_bits_count_where_they_are_on_and_saturate_where_not(schedule):
    for beyond in (2**31, 2**40, 2**70, np.int64(2**40), np.uint64(2**63), np.uint32(2**32 - 1)):
        np.testing.assert_array_equal(schedule(beyond), schedule(2**31 - 1))
    for beyond in (-(2**40), -(2**70), np.int64(-(2**40))):
        np.testing.assert_array_equal(schedule(beyond), schedule(-(2**31)))
    with jax.enable_x64(True):
        for step in (2**40, np.int64(2**40), -(2**33), 10):
            np.testing.assert_array_equal(schedule(step), jax.jit(schedule)(jnp.int64(step)))
            assert schedule(step).dtype == jnp.float32
        np.testing.assert_array_equal(schedule(2**70), schedule(2**63 - 1))
    np.testing.assert_array_equal(schedule(10), jax.jit(schedule)(10))  # not the program for 64 bits


def test_the_formula_runs_once_however_often_the_rate_is_asked_for(monkeypatch):
    ran = []
    module = __import__("optax_ext.schedules._cosine", fromlist=["elapsed_steps"])
    elapsed_steps = module.elapsed_steps
    monkeypatch.setattr(module, "elapsed_steps", lambda *args: ran.append(args) or elapsed_steps(*args))
    schedule = optax_ext.LinearWarmup(optax_ext.CosineDecay(0.123, 456, offset=10), 10)
    schedule(0), schedule(jnp.int32(1))
    first = len(ran)
    assert first
    for step in range(2, 50):
        schedule(step), schedule(jnp.int32(step)), schedule(np.int64(step))
    equal = optax_ext.LinearWarmup(optax_ext.CosineDecay(0.123, 456, offset=10), 10)
    assert equal(5) == schedule(5)
    assert len(ran) == first
    optax_ext.LinearWarmup(optax_ext.CosineDecay(0.124, 456, offset=10), 10)(5)
    assert len(ran) > first


def test_schedules_without_end_are_let_go():
    refs = []
    for rate in np.linspace(0.1, 0.2, 200):
        schedule = optax_ext.Constant(rate)
        schedule(0)
        refs.append(weakref.ref(schedule))
    del schedule
    gc.collect()
    assert sum(ref() is not None for ref in refs) <= 128


@every_schedule
def test_under_a_trace_a_value_is_worth_what_it_is_outside(schedule):
    expected = schedule(41)
    np.testing.assert_allclose(jax.jit(lambda: schedule(41))(), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(lambda x: x * schedule(41))(jnp.ones(2)), [expected] * 2, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: x * schedule(41))(1.0), expected, rtol=1e-6)
    scanned = jax.lax.scan(lambda x, _: (x, schedule(41)), 0.0, length=2)[1]
    np.testing.assert_allclose(scanned, [expected] * 2, rtol=1e-6)
    assert "@__call__" not in jax.jit(lambda: schedule(41)).lower().as_text()  # no call is left, but for those of JAX


def test_a_traced_step_meets_the_formula_itself():
    _compile_eager._program.cache_clear()
    for transform in (jax.jit, jax.make_jaxpr, jax.vmap):
        transform(DECAY)(STEPS)
    jax.grad(DECAY)(3.5)
    assert _compile_eager._program.cache_info().currsize == 0


@every_schedule
def test_derivatives_of_a_rate_are_those_of_the_formula(schedule):
    np.testing.assert_allclose(jax.grad(schedule)(41.5), jax.jit(jax.grad(schedule))(41.5), rtol=1e-5)


@every_schedule
def test_without_jit_and_under_the_hunt_for_nans(schedule):
    expected = schedule(STEPS)
    with jax.disable_jit():
        np.testing.assert_allclose(schedule(STEPS), expected, rtol=1e-5)
        assert schedule(7).dtype == jnp.float32
    with jax.debug_nans(True):
        np.testing.assert_array_equal(schedule(STEPS), expected)


def test_a_nan_is_found():
    endless = optax_ext.PolynomialDecay(0.0, 10, 0.0, power=-1.0)  # 0 times infinity at the end
    assert np.isnan(endless(10))
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        endless(10)


class TestWhatIsNotOurs:
    """A class of a user's own is called as it is, alone or in a warm-up of ours."""

    def test_may_read_the_step(self):
        @dataclasses.dataclass(frozen=True)
        class ReadsTheStep(optax_ext.Schedule):
            def __call__(self, step):
                return jnp.float32(0.1 if int(step) < 10 else 0.2)  # no tracer would bear it

        assert ReadsTheStep()(3) == np.float32(0.1)
        warmup = optax_ext.LinearWarmup(optax_ext.PolynomialWarmup(ReadsTheStep(), 3), 4)
        assert warmup(9) == np.float32(0.1)
        assert warmup(10) == np.float32(0.2)

    def test_may_change_what_ours_do(self):
        factor = [1.0]

        @dataclasses.dataclass(frozen=True)
        class Louder(optax_ext.CosineDecay):
            def _decay(self, peak, steps):
                return super()._decay(peak, steps) * factor[0]

        schedule = Louder(0.5, 100)
        warmup = optax_ext.LinearWarmup(schedule, 10)
        assert (schedule(0), warmup(100)) == (0.5, 0)
        factor[0] = 3.0
        assert schedule(0) == 1.5

    def test_may_have_no_hash(self):
        @dataclasses.dataclass(frozen=True, eq=False)
        class NoHash(optax_ext.Schedule):
            rate: float
            __hash__ = None

            def __call__(self, step):
                return jnp.full(jnp.shape(step), self.rate, jnp.float32)

        assert NoHash(0.5)(3) == 0.5
        assert optax_ext.LinearWarmup(NoHash(0.5), 10)(5) == 0.25

    def test_may_be_defined_anew(self):
        def define(rate):
            @dataclasses.dataclass(frozen=True)
            class Anew(optax_ext.Schedule):
                def __call__(self, step):
                    return jnp.full(jnp.shape(step), rate, jnp.float32)

            return Anew

        assert optax_ext.LinearWarmup(define(0.5)(), 10)(20) == 0.5
        assert optax_ext.LinearWarmup(define(0.25)(), 10)(20) == 0.25

    def test_may_be_put_in_the_place_of_a_formula_of_ours(self, monkeypatch):
        decay = optax_ext.ExponentialDecay(0.5, 11, 0.9)
        warmup = optax_ext.LinearWarmup(decay, 10)
        assert warmup(0) == 0.0
        assert warmup(20) != 1.0
        monkeypatch.setattr(optax_ext.ExponentialDecay, "__call__", lambda self, step: jnp.float32(1.0))
        assert decay(20) == warmup(20) == 1.0

    def test_inherits_the_formula_of_ours(self):
        @dataclasses.dataclass(frozen=True)
        class Named(optax_ext.CosineDecay):
            name: str = "mine"

        np.testing.assert_allclose(Named(0.5, 100)(STEPS), optax_ext.CosineDecay(0.5, 100)(STEPS), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("step", [True, np.bool_(True), jnp.array(True), 1j, jnp.complex64(1), "3", None])
def test_what_is_not_a_step_is_shown(step):
    with pytest.raises(TypeError, match="step must be an integer or a float, got") as raised:
        optax_ext.CosineDecay(0.5, 100)(step)
    assert "Tracer" not in str(raised.value)


def test_a_partial_is_no_schedule_of_ours():
    assert not _compile_eager._is_ours(functools.partial(DECAY))
