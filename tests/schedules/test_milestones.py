"""The steps that schedules name as worth looking at: ours, inner ones, and those of users' schedules."""

import dataclasses
import inspect

import jax.numpy as jnp
import numpy as np
import pytest

import optax_ext
from optax_ext import config
from optax_ext.schedules import Milestone

COSINE = optax_ext.CosineDecay(1.0, 100, offset=20)
EXPECTED = [
    (optax_ext.Constant(0.5), {}),
    (
        optax_ext.PiecewiseConstantDecay((10, 20), (1.0, 0.5, 0.1), offset=5),
        {5: "offset", 15: "boundary", 25: "boundary"},
    ),
    (optax_ext.StepCosineDecay((0, 10, 20), (1.0, 0.5, 0.1)), {0: "boundary", 10: "boundary", 20: "boundary"}),
    (COSINE, {20: "offset of cosine_decay", 120: "end of decay_steps"}),
    (optax_ext.CosineDecay(1.0, 100, warmup_steps=10), {100: "end of decay_steps"}),  # ignored without a target
    (
        optax_ext.CosineDecay(0.0, 100, warmup_target=1.0, warmup_steps=10, offset=5),
        {5: "offset", 15: "end of warmup_steps", 115: "end of decay_steps"},
    ),
    (
        optax_ext.CosineDecayRestarts(1.0, 10, t_mul=1.5, offset=1),
        {1: "offset", 11: "end of first_decay_steps", 26: "period 2", 49: "period 3", 83: "period 4"},
    ),
    (optax_ext.ExponentialDecay(1.0, 10.5, 0.5), {11: "end of decay_steps", 21: "2 x", 32: "3 x", 42: "4 x"}),
    (optax_ext.InverseTimeDecay(1.0, 10, 0.5, offset=3), {3: "offset", 13: "end", 23: "2 x", 33: "3 x", 43: "4 x"}),
    (optax_ext.PolynomialDecay(1.0, 10), {10: "end of decay_steps"}),
    (optax_ext.PolynomialDecay(1.0, 10, cycle=True), {10: "end", 20: "cycle 2", 30: "cycle 3", 40: "cycle 4"}),
    (optax_ext.DirectPowerDecay(1.0, -0.5), {1000: "without an end"}),
    (optax_ext.PowerDecay(1.0, -0.5, offset=500), {500: "offset of power_decay", 1500: "without an end"}),
    (optax_ext.PowerAndLinearDecay(1.0, 100), {90: "start of the linear fall", 100: "end of total_decay_steps"}),
    (optax_ext.PowerAndLinearDecay(1.0, 100, linear_decay_fraction=0.0), {100: "end of total_decay_steps"}),
    (optax_ext.PowerAndLinearDecay(1.0, 0), {1000: "without an end"}),
    (optax_ext.LinearWarmup(0.5, 100), {100: "end of warmup_steps"}),
    (
        optax_ext.LinearWarmup(COSINE, 20),
        {20: "end of warmup_steps, offset of cosine_decay", 120: "end of decay_steps"},
    ),
    (optax_ext.LinearWarmup(COSINE, 0), {20: "offset of cosine_decay", 120: "end of decay_steps"}),
    (optax_ext.PolynomialWarmup(COSINE, 50), {50: "end of warmup_steps", 120: "end of decay_steps"}),  # 20 is hidden
    (
        optax_ext.WarmupStableDecay(0.5, 10, 70, 20, offset=5),
        {5: "offset of warmup_stable", 15: "end of warmup_steps", 85: "end of stable_steps", 105: "end of decay_steps"},
    ),
    (optax_ext.WarmupStableDecay(0.5, 0, 0, 20), {20: "end of decay_steps"}),
    (
        optax_ext.JoinedSchedules(
            [optax_ext.LinearWarmup(0.5, 30), COSINE, 0.5, optax_ext.CosineDecay(1, 7)], [30, 99, 200]
        ),
        # The end of the first decay is hidden.
        {
            30: "start of cosine_decay",
            50: "offset of cosine_decay",
            99: "start of a constant 0.5",
            200: "start of cosine_decay",
            207: "end of decay_steps",
        },
    ),
    (optax_ext.JoinedSchedules([COSINE], []), {20: "offset of cosine_decay", 120: "end of decay_steps"}),
]


def found(thing):
    steps = [step for step, _ in thing.milestones()]
    assert steps == sorted(steps)
    return {step: ", ".join(reason for at, reason in thing.milestones() if at == step) for step in steps}


@pytest.mark.parametrize(("schedule", "expected"), EXPECTED, ids=lambda value: getattr(value, "type", ""))
def test_milestones(schedule, expected):
    assert all(isinstance(milestone, Milestone) for milestone in schedule.milestones())
    names = found(schedule)
    assert list(names) == list(expected)
    for step, reason in expected.items():
        assert reason in names[step]


def test_every_schedule_is_tested_here():
    ours = [thing for name in optax_ext.__all__ if inspect.isclass(thing := getattr(optax_ext, name))]
    schedules = {thing for thing in ours if issubclass(thing, optax_ext.Schedule)} - {optax_ext.Schedule}
    assert {type(schedule) for schedule, _ in EXPECTED} == schedules


def test_the_rate_restarts_at_the_end_of_a_period_and_turns_at_the_start_of_the_fall():
    restarts = optax_ext.CosineDecayRestarts(1.0, 10, t_mul=1.5)
    for step in [step for step, reason in restarts.milestones() if "period" in reason]:
        assert restarts(step) > 0.9 > 0.1 > restarts(step - 1)
    fall = optax_ext.PowerAndLinearDecay(1.0, 100, 0.0)
    rates = np.asarray(fall(jnp.array([89, 90, 91])))
    assert rates[0] == rates[1] > rates[2]


@dataclasses.dataclass(frozen=True)
class ThreePhases(optax_ext.Schedule):
    peak: float
    inner: optax_ext.Schedule
    hold_steps: int
    unused_steps: int | None = None
    offset: int = 0

    def __call__(self, step):
        return jnp.full(jnp.shape(step), self.peak, jnp.float32)


def test_those_of_a_user_are_read_in_the_fields():
    assert found(ThreePhases(0.5, COSINE, 30, offset=7)) == {
        7: "offset of three_phases",
        20: "offset of cosine_decay",
        37: "end of hold_steps",
        120: "end of decay_steps",
    }
    assert found(ThreePhases(0.5, optax_ext.Constant(0.1), 0)) == {}


def test_those_of_a_user_are_what_the_class_says():
    class Saying(ThreePhases):
        def milestones(self):
            return (Milestone(3, "all change"), *super().milestones())

    Saying = dataclasses.dataclass(frozen=True)(Saying)  # noqa: N806
    schedule = Saying(0.5, COSINE, 30)
    assert found(schedule)[3] == "all change"
    assert found(optax_ext.LinearWarmup(schedule, 2))[3] == "all change"
    assert found(config.SGD(schedule))[3] == "all change"


def test_those_of_an_optimizer_are_the_schedules_and_what_decay_adds():
    assert found(config.SGD(0.1)) == {}
    assert found(config.SGD(0.1, decay=0.01)) == {100: "half, by decay"}
    assert found(config.SGD(0.1, decay=1e-30)) == {2**31 - 1: "half, by decay"}
    adam = config.Adam(COSINE, decay=0.01)
    assert found(adam) == {20: "offset of cosine_decay", 100: "half, by decay", 120: "end of decay_steps"}
    assert found(config.OptimizationConfig(adam)) == found(adam)
