"""Validation: the same from Python as from data, complete, and in words."""

import dataclasses
import inspect
import pickle
from typing import Annotated, Literal

import jax.numpy as jnp
import numpy as np
import pydantic
import pytest

import optax_ext
from optax_ext import config
from optax_ext.config import ConfigError

INVALID = {
    "decay_steps: must be greater than 0, got 0": lambda: optax_ext.CosineDecay(0.1, 0),
    "decay_steps: must be greater than 0, got -5": lambda: optax_ext.CosineDecay(0.1, decay_steps=-5),
    "decay_steps: must be an integer, got 2.5": lambda: optax_ext.CosineDecay(0.1, 2.5),
    "decay_steps: must be an integer, got True": lambda: optax_ext.CosineDecay(0.1, True),
    "decay_steps: must be an integer, got '5'": lambda: optax_ext.CosineDecay(0.1, "5"),
    "decay_steps: is required": lambda: optax_ext.CosineDecay(0.1),
    "initial_learning_rate: was given twice": lambda: optax_ext.CosineDecay(0.1, 5, initial_learning_rate=0.2),
    "initial_learning_rate: must be a finite number, got nan": lambda: optax_ext.CosineDecay(float("nan"), 5),
    "initial_learning_rate: must be a finite number, got inf": lambda: optax_ext.CosineDecay(float("inf"), 5),
    "initial_learning_rate: must be greater than or equal to 0, got -1": lambda: optax_ext.CosineDecay(-1, 5),
    "initial_learning_rate: must be representable in float32, got 1e+39": lambda: optax_ext.CosineDecay(1e39, 5),
    "initial_learning_rate: must be representable in float32, got 1e-40": lambda: optax_ext.CosineDecay(1e-40, 5),
    "initial_learning_rate: must be a number, got True": lambda: optax_ext.CosineDecay(True, 5),
    "initial_learning_rate: must be a number, got '0.1'": lambda: optax_ext.CosineDecay("0.1", 5),
    "alpha: must be less than or equal to 1, got 1.5": lambda: optax_ext.CosineDecay(0.1, 5, 1.5),
    "warmup_steps: must be less than or equal to 2147483647, got 2147483648": lambda: optax_ext.CosineDecay(
        0.1, 5, warmup_steps=2**31
    ),
    "before_offset: must be 'extrapolate' or 'hold', got 'stay'": lambda: optax_ext.CosineDecay(
        0.1, 5, before_offset="stay"
    ),
    "decay_step: unknown field (did you mean 'decay_steps'?), accepted: initial": lambda: optax_ext.CosineDecay(
        0.1, 5, decay_step=3
    ),
    "takes 1 arguments by position (learning_rate), got also 0.2": lambda: optax_ext.Constant(0.1, 0.2),
    "decay_steps: must be greater than 0, got 0.0": lambda: optax_ext.ExponentialDecay(0.1, 0.0, 0.9),
    "decay_rate: must be greater than 0, got -0.9": lambda: optax_ext.ExponentialDecay(0.1, 5, -0.9),
    "decay_rate: must be greater than or equal to 0, got -0.9": lambda: optax_ext.InverseTimeDecay(0.1, 5, -0.9),
    "staircase: must be true or false, got 1": lambda: optax_ext.ExponentialDecay(0.1, 5, 0.9, 1),
    "t_mul: must be 1, or at least 1.001, got 0.5": lambda: optax_ext.CosineDecayRestarts(0.1, 5, 0.5),
    "boundaries: must be strictly increasing, got [20, 10]": lambda: optax_ext.PiecewiseConstantDecay(
        [20, 10], [1.0, 0.5, 0.1]
    ),
    "boundaries: must be strictly increasing, got [10, 10]": lambda: optax_ext.StepCosineDecay([10, 10], [1.0, 0.5]),
    "boundaries: must be a list, got '10'": lambda: optax_ext.PiecewiseConstantDecay("10", [1.0, 0.5]),
    "boundaries: must have at least 1 entry": lambda: optax_ext.StepCosineDecay((), ()),
    "boundaries.1: must be greater than or equal to 0, got -3": lambda: optax_ext.PiecewiseConstantDecay(
        [1, -3], [1.0, 0.5, 0.1]
    ),
    "values: must have 3 entries for 2 boundaries, got 2": lambda: optax_ext.PiecewiseConstantDecay([1, 2], [1.0, 0.5]),
    "values: must have 2 entries for 2 boundaries, got 3": lambda: optax_ext.StepCosineDecay([1, 2], [1.0, 0.5, 0.1]),
    "linear_decay_fraction: must be greater than or equal to 0": lambda: optax_ext.PowerAndLinearDecay(0.1, 5, 1, -0.5),
    "warmup_steps: must be greater than or equal to 0, got -5": lambda: optax_ext.LinearWarmup(0.1, -5),
    "after: must be a number or a schedule, got None": lambda: optax_ext.LinearWarmup(None, 5),
    "after: must be greater than or equal to 0, got -0.1": lambda: optax_ext.LinearWarmup(-0.1, 5),
    "after.type: is required: one of ": lambda: optax_ext.LinearWarmup({"learning_rate": 0.1}, 5),
    "after.type: unknown type 'cosine' (did you mean 'cosine_decay'?)": lambda: optax_ext.LinearWarmup(
        {"type": "cosine"}, 5
    ),
    "after.type: unknown type ['constant']": lambda: optax_ext.LinearWarmup({"type": ["constant"]}, 5),
    "after.after.decay_steps: must be greater than 0, got -5": lambda: optax_ext.LinearWarmup(
        {
            "type": "polynomial_warmup",
            "warmup_steps": 3,
            "after": {"type": "cosine_decay", "initial_learning_rate": 0.1, "decay_steps": -5},
        },
        5,
    ),
}


@pytest.mark.parametrize("expected", INVALID)
def test_an_invalid_argument_is_named_with_what_is_accepted(expected):
    with pytest.raises(ConfigError) as raised:
        INVALID[expected]()
    assert len(raised.value.problems) == 1
    assert str(raised.value.problems[0]).startswith(expected)


def test_all_problems_come_at_once():
    after = {"type": "cosine_decay", "initial_learing_rate": 0.1, "decay_steps": 0}
    with pytest.raises(ValueError, match="LinearWarmup: 4 problems") as raised:
        optax_ext.LinearWarmup(after, "x")
    assert isinstance(raised.value, ConfigError)
    assert [problem.path for problem in raised.value.problems] == [
        "after.initial_learning_rate",
        "after.decay_steps",
        "after.initial_learing_rate",
        "warmup_steps",
    ]
    copy = pickle.loads(pickle.dumps(raised.value))
    assert copy.problems == raised.value.problems
    assert str(copy) == str(raised.value)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.int32, np.asarray, jnp.asarray])
def test_numpy_and_jax_numbers_are_numbers(kind):
    schedule = optax_ext.CosineDecay(kind(2), np.int64(100))
    assert schedule == optax_ext.CosineDecay(2.0, 100)
    assert type(schedule.initial_learning_rate) is float
    assert type(schedule.decay_steps) is int


def test_lists_arrays_and_whole_floats_are_what_they_mean():
    expected = optax_ext.PiecewiseConstantDecay((10, 20), (1.0, 0.5, 0.25))
    assert optax_ext.PiecewiseConstantDecay(np.array([10, 20]), [1, 0.5, 0.25]) == expected
    assert optax_ext.PiecewiseConstantDecay([1e1, 20.0], (1.0, 0.5, 0.25)) == expected


def test_dataclasses_replace_validates_too():
    with pytest.raises(ConfigError, match="decay_steps"):
        dataclasses.replace(optax_ext.CosineDecay(0.1, 10), decay_steps=-1)


class TestOpenness:
    """A user's own schedule is a member like ours; its class is made by the stock decorator."""

    def test_a_new_schedule_is_validated_and_found_by_its_tag(self):
        @dataclasses.dataclass(frozen=True)
        class HalvedEach(optax_ext.Schedule):
            period: Annotated[int, pydantic.Field(gt=0)]
            rate: float = 1.0

            def __call__(self, step):
                return jnp.float32(self.rate) * 0.5 ** (step // self.period)

        warmup = optax_ext.LinearWarmup({"type": "halved_each", "period": 3}, 2)
        assert warmup.after == HalvedEach(3)
        assert warmup(6) == 0.25
        with pytest.raises(ConfigError, match="period: must be greater than 0, got 0"):
            HalvedEach(period=0)
        with pytest.raises(ConfigError, match=r"after\.perod: unknown field \(did you mean 'period'\?\)"):
            optax_ext.LinearWarmup({"type": "halved_each", "period": 3, "perod": 4}, 2)

    def test_a_class_may_choose_its_tag(self):
        @dataclasses.dataclass(frozen=True)
        class Other(optax_ext.Schedule):
            type = "my_tag"

            def __call__(self, step):
                return jnp.float32(step)

        assert config.from_dict({"type": "my_tag"}) == Other()

    def test_a_taken_tag_is_refused_and_a_redefinition_is_not(self):
        with pytest.raises(TypeError, match=r"'constant' of .*Constant is taken by optax_ext\.schedules\.Constant"):

            class Constant(optax_ext.Schedule):  # pyright: ignore[reportUnusedClass]
                pass

        def define():
            @dataclasses.dataclass(frozen=True)
            class Again(optax_ext.Schedule):
                def __call__(self, step):
                    return jnp.float32(step)

            return Again

        first, second = define(), define()
        assert type(config.from_dict({"type": "again"})) is second is not first

    def test_a_class_without_the_decorator_says_so(self):
        class Bare(optax_ext.Schedule):
            def __call__(self, step):
                return jnp.float32(step)

        with pytest.raises(TypeError, match="Bare must be decorated with @dataclasses.dataclass"):
            Bare()

    def test_the_base_is_abstract(self):
        with pytest.raises(TypeError, match="__call__"):
            optax_ext.Schedule()  # pyright: ignore[reportAbstractUsage]

    def test_a_validator_of_the_users_own_speaks(self):
        @dataclasses.dataclass(frozen=True)
        class Picky(optax_ext.Schedule):
            rate: float

            @pydantic.field_validator("rate")
            @classmethod
            def _check(cls, rate: float) -> float:
                if rate > 1:
                    raise ValueError("must be modest {really}")
                return rate

            def __call__(self, step):
                return jnp.float32(self.rate)

        assert Picky(0.5)(0) == 0.5
        with pytest.raises(ConfigError, match=r"rate: must be modest \{really\}, got 2.0"):
            Picky(2.0)

    def test_the_decorator_of_pydantic_and_a_tag_written_as_a_field_will_do(self):
        @pydantic.dataclasses.dataclass(frozen=True)
        class Sawtooth(optax_ext.Schedule):
            rate: float
            type: Literal["my_sawtooth"] = "my_sawtooth"

            def __call__(self, step):
                return jnp.float32(self.rate)

        assert config.from_dict({"type": "my_sawtooth", "rate": 0.5}) == Sawtooth(0.5)
        assert config.to_dict(Sawtooth(0.5)) == {"type": "my_sawtooth", "rate": 0.5}
        with pytest.raises(ConfigError, match="rate: must be a number, got 'x'"):
            Sawtooth("x")  # pyright: ignore[reportArgumentType]

    @pytest.mark.parametrize("tag", [5, None, "", property()])
    def test_a_tag_must_be_text(self, tag):
        with pytest.raises(TypeError, match="must be text, got"):
            type("Bad", (optax_ext.Schedule,), {"type": tag})

    def test_a_class_without_the_decorator_is_no_member(self):
        class Derived(optax_ext.Constant):
            extra: float = 1.0

        with pytest.raises(ConfigError, match="unknown type 'derived'"):
            config.from_dict({"type": "derived", "learning_rate": 0.1})

    def test_what_a_class_says_after_construction_is_a_problem(self):
        @dataclasses.dataclass(frozen=True)
        class Choosy(optax_ext.Schedule):
            rate: float

            def __post_init__(self):
                if self.rate > 1:
                    raise ValueError("too fast")

            def __call__(self, step):
                return jnp.float32(self.rate)

        with pytest.raises(ConfigError) as raised:
            Choosy(2.0)
        assert [str(problem) for problem in raised.value.problems] == ["too fast"]


def test_the_signature_is_that_of_the_fields():
    assert str(inspect.signature(optax_ext.Constant)) == ("(learning_rate: float | optax_ext.schedules.RatePerBatch)")
    assert list(inspect.signature(optax_ext.CosineDecay).parameters)[:2] == ["initial_learning_rate", "decay_steps"]


def test_a_great_many_problems_are_counted():
    with pytest.raises(ConfigError, match="and 4900 more") as raised:
        config.from_dict({"type": "constant", "learning_rate": 0.1, **{f"x{i}": i for i in range(5000)}})
    assert len(raised.value.problems) == 5000
