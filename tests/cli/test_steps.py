"""The steps at which a learning rate tells how it goes."""

import dataclasses

import jax.numpy as jnp
import pytest

import optax_ext
from optax_ext import config
from optax_ext.cli._steps import horizon, telling_steps


def table(loaded, run_steps=None):
    return {telling.step: telling.reason for telling in telling_steps(loaded, run_steps)}


def test_a_warm_up_and_what_follows_it():
    schedule = optax_ext.LinearWarmup(optax_ext.PolynomialDecay(1.0, 1000, offset=100), 100)
    assert table(schedule) == {
        0: "first step",
        1: "",
        99: "",
        100: "end of warmup_steps, offset of polynomial_decay",
        101: "",
        600: "half-way",
        1099: "",
        1100: "end of decay_steps",
    }
    assert horizon(schedule) == 1156
    assert table(config.OptimizationConfig(optimizer=config.LARS(schedule))) == table(schedule)


def test_a_run_ends_when_it_is_said_to():
    schedule = optax_ext.LinearWarmup(optax_ext.PolynomialDecay(1.0, 1000, offset=100), 100)
    found = table(schedule, run_steps=601)
    assert found[600] == "last step"
    assert max(found) == 600
    assert list(table(schedule, run_steps=1)) == [0]
    assert list(table(schedule, run_steps=2)) == [0, 1]


def test_boundaries_and_what_comes_after_them():
    schedule = optax_ext.PiecewiseConstantDecay((10, 20), (1.0, 0.5, 0.1), offset=5)
    assert [step for step, reason in table(schedule).items() if reason == "boundary"] == [15, 25]
    assert {16, 26} <= set(table(schedule))
    assert not {14, 24} & set(table(schedule))  # where the rate is as at the boundary


def test_a_cosine_with_its_own_warm_up():
    schedule = optax_ext.CosineDecay(0.0, 100, warmup_target=1.0, warmup_steps=10, offset=5)
    found = table(schedule)
    assert (found[15], found[115]) == ("end of warmup_steps", "end of decay_steps")
    without_target = table(optax_ext.CosineDecay(1.0, 100, warmup_steps=10, offset=5))
    assert "end of warmup_steps" not in without_target.values()
    assert without_target[105] == "end of decay_steps"


@pytest.mark.parametrize(
    ("schedule", "step", "reason"),
    [
        (optax_ext.ExponentialDecay(1.0, 10.5, 0.5), 42, "4 x decay_steps"),
        (optax_ext.InverseTimeDecay(1.0, 10, 0.5), 40, "4 x decay_steps"),
        (optax_ext.CosineDecayRestarts(1.0, 10), 70, "end of period 3"),
        (optax_ext.PolynomialDecay(1.0, 10, cycle=True), 20, "end of cycle 2"),
        (optax_ext.PowerAndLinearDecay(1.0, 100), 90, "start of the linear fall"),
        (config.SGD(0.1, decay=0.01), 100, "half, by decay"),
    ],
    ids=["exponential", "inverse time", "restarts", "cycle", "power and linear", "decay"],
)
def test_what_goes_on(schedule, step, reason):
    assert table(schedule)[step] == reason


@pytest.mark.parametrize(
    "schedule", [optax_ext.Constant(1.0), config.SGD(0.1), optax_ext.PowerDecay(1.0, -0.5, offset=500)]
)
def test_what_has_no_end_is_followed_for_a_while(schedule):
    offset = getattr(schedule, "offset", 0)
    assert horizon(schedule) == round(1.05 * (offset + 1000)) + 1
    assert max(table(schedule)) == offset + 1000


def test_many_boundaries_are_a_dozen_rows():
    schedule = optax_ext.PiecewiseConstantDecay(list(range(100, 5100, 100)), [1 / n for n in range(1, 52)])
    found = table(schedule)
    assert len(found) == 12
    assert {0, 1, 5000} <= set(found)


def test_the_schedule_of_a_user_is_read_by_the_names_of_its_fields():
    @dataclasses.dataclass(frozen=True)
    class TestedHold(optax_ext.Schedule):
        inner: optax_ext.Schedule
        hold_steps: int
        offset: int = 0

        def __call__(self, step):
            step = jnp.asarray(step)
            return jnp.where(step < self.offset + self.hold_steps, jnp.float32(1.0), self.inner(step))

    found = table(TestedHold(optax_ext.CosineDecay(0.5, 400), 100, offset=50))
    assert found[50] == "offset of tested_hold"
    assert found[150] == "end of hold_steps"
    assert found[400] == "end of decay_steps"
    assert {149, 399} <= set(found)
