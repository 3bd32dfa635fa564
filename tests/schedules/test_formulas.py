"""The formulas where they turn: boundaries, ends, restarts, and the differences from TensorFlow."""

import math

import chex
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ext


def test_piecewise_keeps_the_old_value_at_a_boundary():
    schedule = optax_ext.PiecewiseConstantDecay((0, 5), (2.0, 1.0, 0.25))
    np.testing.assert_array_equal(schedule(jnp.arange(-1, 8)), [2, 2, 1, 1, 1, 1, 1, 0.25, 0.25])


def test_piecewise_without_boundaries_is_its_value():
    assert optax_ext.PiecewiseConstantDecay((), (0.1,))(7) == np.float32(0.1)


def test_cosine_ends_at_alpha_of_the_peak_and_stays():
    schedule = optax_ext.CosineDecay(0.2, 100, alpha=0.25, warmup_target=1.6, warmup_steps=20)
    np.testing.assert_allclose(
        schedule(jnp.array([0, 10, 20, 70, 120, 121, 10_000])), [0.2, 0.9, 1.6, 1.0, 0.4, 0.4, 0.4]
    )


def test_cosine_ignores_warmup_steps_without_a_target():
    steps = jnp.arange(150)
    plain = optax_ext.CosineDecay(0.3, 60)
    chex.assert_trees_all_equal(optax_ext.CosineDecay(0.3, 60, warmup_steps=20)(steps), plain(steps))


def test_restarts_start_exactly_at_their_steps():
    schedule = optax_ext.CosineDecayRestarts(1.0, 20, t_mul=1.5, m_mul=0.5)
    starts = [0, 20, 50, 95]  # 20, 30 and 45 steps long; the next would start at 162.5
    np.testing.assert_allclose(schedule(jnp.array(starts)), [1, 0.5, 0.25, 0.125], rtol=1e-6)
    assert (schedule(jnp.array(starts[1:]) - 1) < 0.02).all()
    doubling = optax_ext.CosineDecayRestarts(1.0, 7, t_mul=2.0)
    np.testing.assert_allclose(doubling(jnp.array([7 * (2**i - 1) for i in range(20)])), np.ones(20), rtol=1e-6)


@pytest.mark.parametrize(
    ("first_decay_steps", "t_mul", "restarts"),
    [
        (1000, 1.1, [1000, 2100, 3310]),
        (5000, 1.2, [5000, 11000, 18200]),
        (30, 1.1, [30, 63]),  # 99.3, and so 100, comes next
        (2**20, 2.0, [2**20 * (2**i - 1) for i in range(1, 11)]),  # past 2**24
        (420, 1.001, [420]),
    ],
)
def test_restarts_come_at_the_step_whatever_the_growth(first_decay_steps, t_mul, restarts):
    schedule = optax_ext.CosineDecayRestarts(1.0, first_decay_steps, t_mul=t_mul)
    np.testing.assert_array_equal(schedule(jnp.array(restarts)), np.ones(len(restarts)))
    assert (schedule(jnp.array(restarts) - 1) < 0.01).all()


def test_restarts_stay_finite_however_they_grow():
    steps = jnp.array([0, 1, 2, 100, 2**24 + 1, 2**31 - 1])
    for t_mul, m_mul in ((1e38, 1.0), (1.001, 0.5), (2.0, 10.0), (1.0, 10.0)):
        chex.assert_tree_all_finite(optax_ext.CosineDecayRestarts(0.0, 1, t_mul, m_mul)(steps))


def test_polynomial_cycles_reach_the_end_at_each_multiple():
    schedule = optax_ext.PolynomialDecay(1.0, 50, 0.1, cycle=True)
    np.testing.assert_allclose(schedule(jnp.array([0, 50, 51, 100, 150])), [1.0, 0.1, 0.1 + 0.9 * 0.49, 0.1, 0.1])


def test_step_cosine_is_finite_for_ever():
    schedule = optax_ext.StepCosineDecay((0, 100, 200), (1.0, 0.5, 0.1))
    np.testing.assert_allclose(schedule(jnp.array([200, 201, 2**30])), [0.1] * 3)
    np.testing.assert_allclose(optax_ext.StepCosineDecay((10,), (0.7,))(jnp.arange(20)), [0.7] * 20)


def test_power_is_capped_and_starts_after_the_offset():
    schedule = optax_ext.PowerDecay(2.0, 1.0, offset=10, pre_offset_learning_rate=20.0)
    np.testing.assert_array_equal(schedule(jnp.array([0, 10, 11, 16, 20, 60])), [20, 20, 2, 12, 20, 20])


def test_power_and_linear_ends_at_zero():
    schedule = optax_ext.PowerAndLinearDecay(1.0, 100, power=0.0, linear_decay_fraction=0.5, offset=10)
    np.testing.assert_allclose(schedule(jnp.array([0, 60, 85, 110, 500])), [1, 1, 0.5, 0, 0])


def test_warmups_end_at_the_schedule_and_do_not_shift_it():
    after = optax_ext.PolynomialDecay(1.0, 100, 0.0)
    linear = optax_ext.LinearWarmup(after, 50, 0.1)
    np.testing.assert_allclose(
        linear(jnp.array([0, 25, 49, 50, 75])), [0.1, 0.3, 0.1 + 0.4 * 0.98, 0.5, 0.25], rtol=1e-6
    )
    polynomial = optax_ext.PolynomialWarmup(after, 50, power=2.0)
    np.testing.assert_allclose(polynomial(jnp.array([0, 1, 25, 50])), [0.5 / 2500, 0.5 / 2500, 0.125, 0.5], rtol=1e-6)
    chex.assert_trees_all_equal(optax_ext.PolynomialWarmup(after, 0)(jnp.arange(9)), after(jnp.arange(9)))
    assert math.isclose(optax_ext.LinearWarmup(linear, 10)(5), 0.5 * linear(10), rel_tol=1e-6)


@pytest.mark.parametrize("before_offset", ["extrapolate", "hold"])
def test_warmup_of_zero_steps_inside_a_cosine(before_offset):
    schedule = optax_ext.CosineDecay(0.3, 60, warmup_target=0.2, warmup_steps=0, offset=5, before_offset=before_offset)
    plain = optax_ext.CosineDecay(0.2, 60, offset=5, before_offset=before_offset)
    chex.assert_trees_all_close(schedule(jnp.arange(70)), plain(jnp.arange(70)), rtol=1e-6)
