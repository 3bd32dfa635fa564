"""A warm-up that climbs to a schedule which is over by then says so, at the user's line and without JAX."""

import dataclasses
import os
import subprocess
import sys
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import optax_ext
from optax_ext import config

NEVER_OR_FROM = [
    (optax_ext.Constant(0.1), None),
    (optax_ext.Constant(0.0), None),
    (optax_ext.CosineDecay(0.5, 100), 100),
    (optax_ext.CosineDecay(0.5, 100, offset=20), 120),
    (optax_ext.CosineDecay(0.5, 100, offset=-20), 80),
    (optax_ext.CosineDecay(0.5, 100, warmup_steps=50), 100),  # ignored without a target
    (optax_ext.CosineDecay(0.0, 100, warmup_target=0.5, warmup_steps=50), 150),
    (optax_ext.CosineDecay(0.5, 100, alpha=0.01), None),
    (optax_ext.CosineDecay(0.0, 100), None),
    (optax_ext.CosineDecayRestarts(0.5, 100), None),
    (optax_ext.CosineDecayRestarts(0.5, 100, m_mul=0.0, offset=5), 105),
    (optax_ext.CosineDecayRestarts(0.5, 100, m_mul=0.0, alpha=0.1), None),
    (optax_ext.PolynomialDecay(0.5, 100, 0.0, offset=7), 107),
    (optax_ext.PolynomialDecay(0.5, 100, 0.0, power=0.3), 100),
    (optax_ext.PolynomialDecay(0.5, 100), None),
    (optax_ext.PolynomialDecay(0.5, 100, 0.0, power=0.0), None),
    (optax_ext.PolynomialDecay(0.5, 101, 0.0, cycle=True), None),
    (optax_ext.PolynomialDecay(0.0, 100, 0.0), None),
    (optax_ext.PowerAndLinearDecay(0.5, 100, offset=9), 109),
    (optax_ext.PowerAndLinearDecay(0.5, 0), None),
    (optax_ext.PowerAndLinearDecay(0.5, 100, linear_decay_fraction=0.0), None),
    (optax_ext.PowerAndLinearDecay(0.0, 100), None),
    (optax_ext.PowerDecay(0.5, -0.5), None),
    (optax_ext.DirectPowerDecay(0.5, -0.5), None),
    (optax_ext.ExponentialDecay(0.5, 100, 0.5), None),
    (optax_ext.InverseTimeDecay(0.5, 100, 0.5), None),
    (optax_ext.PiecewiseConstantDecay((10, 20, 30), (1.0, 0.5, 0.0, 0.0), offset=3), 24),
    (optax_ext.PiecewiseConstantDecay((10, 20), (1.0, 0.0, 0.5)), None),
    (optax_ext.PiecewiseConstantDecay((10,), (0.0, 0.0)), None),
    (optax_ext.StepCosineDecay((10, 20, 30), (1.0, 0.0, 0.0), offset=3), 23),
    (optax_ext.StepCosineDecay((10, 20), (1.0, 0.5)), None),
    (optax_ext.StepCosineDecay((10, 20), (0.0, 0.0)), None),
    (optax_ext.LinearWarmup(optax_ext.CosineDecay(0.5, 100), 50), 100),
    (optax_ext.PolynomialWarmup(optax_ext.CosineDecay(0.5, 100), 50), 100),
    (optax_ext.LinearWarmup(0.5, 50), None),
    (optax_ext.LinearWarmup(optax_ext.Constant(0.5), 50), None),
    (optax_ext.WarmupStableDecay(0.5, 5, 60, 10, offset=7), 82),
    (optax_ext.WarmupStableDecay(0.5, 5, 60, 10, end_learning_rate=0.1), None),
    (optax_ext.WarmupStableDecay(0.0, 5, 60, 10, warmup_learning_rate=0.1), 5),
    (optax_ext.WarmupStableDecay(0.0, 0, 60, 10, warmup_learning_rate=0.1), None),
    (optax_ext.JoinedSchedules([0.5, optax_ext.CosineDecay(0.5, 100)], [50]), 150),
    (optax_ext.JoinedSchedules([0.5, 0.0], [50]), 50),
    (optax_ext.JoinedSchedules([optax_ext.CosineDecay(0.5, 100), 0.0], [110]), 100),
    (optax_ext.JoinedSchedules([optax_ext.CosineDecay(0.5, 100), 0.0], [90]), 90),
    (optax_ext.JoinedSchedules([0.5, optax_ext.CosineDecay(0.5, 10, offset=-20), 0], [50, 60]), 50),
    (optax_ext.JoinedSchedules([0.0, 0.5], [50]), None),
    (optax_ext.JoinedSchedules([0.0, 0.0], [50]), None),
    (optax_ext.JoinedSchedules([0.5], []), None),
]


@pytest.mark.parametrize(("schedule", "start"), NEVER_OR_FROM, ids=str)
def test_is_known_to_be_zero_exactly_where_it_is(schedule, start):
    assert schedule._zero_from() == start
    late = np.asarray(schedule(jnp.arange(400, 4001)))
    if start is None:
        assert late.any() or not schedule(jnp.arange(400)).any()  # a rate that never was is nobody's mistake
    else:
        assert not late.any()
        assert not schedule(jnp.arange(start, 400)).any()
        assert schedule(start - 1) > 0


ALWAYS_ZERO = [
    optax_ext.Constant(0.0),
    optax_ext.PiecewiseConstantDecay((10,), (0.0, 0.0)),
    optax_ext.StepCosineDecay((10, 20), (0.0, 0.0)),
    optax_ext.CosineDecay(0.0, 100),
    optax_ext.CosineDecay(0.0, 100, warmup_target=0.0, warmup_steps=5),
    optax_ext.CosineDecay(0.5, 100, warmup_target=0.0),  # there is no warm-up in which the 0.5 would count
    optax_ext.CosineDecayRestarts(0.0, 100, alpha=0.5),
    optax_ext.ExponentialDecay(0.0, 100, 0.5),
    optax_ext.InverseTimeDecay(0.0, 100, 0.5),
    optax_ext.PolynomialDecay(0.0, 100, 0.0),
    optax_ext.DirectPowerDecay(0.0, -0.5),
    optax_ext.PowerDecay(0.0, -0.5, offset=-1),
    optax_ext.PowerDecay(0.5, -0.5, offset=7, pre_offset_learning_rate=0.0),
    optax_ext.PowerAndLinearDecay(0.0, 100),
    optax_ext.LinearWarmup(0.0, 50),
    optax_ext.LinearWarmup(optax_ext.Constant(0.0), 0, warmup_learning_rate=0.5),
    optax_ext.PolynomialWarmup(optax_ext.Constant(0.0), 50),
    optax_ext.WarmupStableDecay(0.0, 0, 10, 10, warmup_learning_rate=0.5),
    optax_ext.JoinedSchedules([0.0, optax_ext.Constant(0.0)], [50]),
    optax_ext.JoinedSchedules([0.5, 0.0], [0]),  # the first one never counts
]
SOMEWHERE_ELSE = [
    optax_ext.CosineDecay(0.0, 100, warmup_target=0.5, warmup_steps=5),
    optax_ext.CosineDecay(0.5, 100, warmup_target=0.0, warmup_steps=5),
    optax_ext.PolynomialDecay(0.0, 100),
    optax_ext.PowerDecay(0.0, -0.5),  # the rate up to the offset is another field
    optax_ext.PiecewiseConstantDecay((10,), (0.0, 0.5)),
    optax_ext.StepCosineDecay((10, 20), (0.0, 0.5)),
    optax_ext.LinearWarmup(0.0, 50, warmup_learning_rate=0.5),
    optax_ext.WarmupStableDecay(0.0, 5, 10, 10, warmup_learning_rate=0.5),
    optax_ext.WarmupStableDecay(0.0, 0, 10, 10, end_learning_rate=0.5),
    optax_ext.JoinedSchedules([0.0, 0.5], [50]),
    optax_ext.JoinedSchedules([0.5, 0.0], [50]),
]


@pytest.mark.parametrize("schedule", [*ALWAYS_ZERO, *SOMEWHERE_ELSE], ids=str)
def test_is_known_to_be_zero_throughout(schedule):
    assert schedule.is_zero() is (schedule in ALWAYS_ZERO)
    assert bool(schedule(jnp.arange(400)).any()) is (schedule in SOMEWHERE_ELSE)


def test_every_schedule_knows_whether_it_is_zero():
    tested = {type(schedule) for schedule in ALWAYS_ZERO}
    ours = {type(schedule) for schedule, _ in NEVER_OR_FROM}
    assert tested == ours
    assert not any(schedule.is_zero() for schedule, start in NEVER_OR_FROM if start is not None)


COSINE = optax_ext.CosineDecay(0.5, decay_steps=100)
MESSAGE = "the warm-up of 500 steps climbs to a schedule that is 0 from step 100 on.* an offset of 500"


@pytest.mark.parametrize("warmup", [optax_ext.LinearWarmup, optax_ext.PolynomialWarmup])
def test_a_warm_up_to_a_schedule_that_is_over_warns_at_the_line(warmup):
    with pytest.warns(UserWarning, match=f"{warmup.__name__}: {MESSAGE}") as warned:
        schedule = warmup(COSINE, warmup_steps=500)
    assert [warning.filename for warning in warned] == [__file__]
    assert not schedule(jnp.arange(500, 600)).any()
    with pytest.warns(UserWarning, match="climbs to a schedule that is 0 from step 500 on") as warned:
        warmup(schedule, warmup_steps=501)
    assert len(warned) == 1
    with pytest.warns(UserWarning, match="of 100 steps climbs") as warned:
        dataclasses.replace(schedule, warmup_steps=100)
    assert [warning.filename for warning in warned] == [__file__]


@pytest.mark.parametrize("warmup", [optax_ext.LinearWarmup, optax_ext.PolynomialWarmup])
@pytest.mark.parametrize(
    ("after", "steps"),
    [
        (COSINE, 99),
        (dataclasses.replace(COSINE, offset=500), 500),
        (COSINE, 0),
        (dataclasses.replace(COSINE, offset=-200), 0),
        (dataclasses.replace(COSINE, alpha=0.1), 500),
        (0.0, 500),  # as asked for: a linear way down to zero has no other words
        (optax_ext.Constant(0.0), 500),
    ],
)
def test_others_do_not(warmup, after, steps):
    warmup(after, steps)


def test_a_recipe_warns_once_where_it_is_read(tmp_path):
    recipe = {
        "optimizer": {
            "type": "sgd",
            "learning_rate": {
                "type": "linear_warmup",
                "warmup_steps": 500,
                "after": {"type": "cosine_decay", "initial_learning_rate": 0.5, "decay_steps": 100},
            },
        }
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.save(config.from_dict(recipe), tmp_path / "recipe.yaml")
    for read in (lambda: config.from_dict(recipe), lambda: config.load(tmp_path / "recipe.yaml")):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            read().make()
        assert [(warning.category, warning.filename) for warning in warned] == [(UserWarning, __file__)]


def test_schedules_are_made_without_jax_being_started():
    code = """
import warnings
import optax_ext
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    schedule = optax_ext.LinearWarmup(optax_ext.CosineDecay(0.5, 100), 500)
assert len(warned) == 1
try:
    schedule(0)
except RuntimeError as error:
    assert "no_such_platform" in str(error)
else:
    raise AssertionError("the platform was there")
"""
    environment = {**os.environ, "JAX_PLATFORMS": "no_such_platform"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment)


@dataclasses.dataclass(frozen=True)
class Floor(optax_ext.Constant):
    type = "tested_floor"

    def __call__(self, step):
        return jnp.maximum(super().__call__(step), 0.1)


@dataclasses.dataclass(frozen=True)
class CosineWithFloor(optax_ext.CosineDecay):
    type = "tested_cosine_with_floor"

    def __call__(self, step):
        return jnp.maximum(super().__call__(step), 0.1)


@dataclasses.dataclass(frozen=True)
class WarmupWithFloor(optax_ext.LinearWarmup):
    type = "tested_warmup_with_floor"

    def __call__(self, step):
        return jnp.maximum(super().__call__(step), 0.1)


@dataclasses.dataclass(frozen=True)
class Renamed(optax_ext.CosineDecay):
    type = "tested_renamed_cosine"


@dataclasses.dataclass(frozen=True)
class Lower(Floor):
    type = "tested_lower_floor"

    def is_zero(self):
        return True


def test_a_subclass_with_a_rate_of_its_own_is_not_taken_for_zero():
    config.SGD(Floor(0.0))  # a warning would be an error
    config.SGD(WarmupWithFloor(0.0, 50))
    config.SGD(optax_ext.LinearWarmup(Floor(0.0), 50))
    optax_ext.LinearWarmup(CosineWithFloor(0.5, 100), 500)
    WarmupWithFloor(COSINE, 500)


def test_a_subclass_with_the_rate_of_its_parent_is():
    assert Renamed(0.0, 100).is_zero()
    assert Lower(0.0).is_zero()  # by its own word
    with pytest.warns(UserWarning, match=MESSAGE):
        optax_ext.LinearWarmup(Renamed(0.5, 100), 500)
