"""JoinedSchedules against optax.join_schedules, as data, and in a user's hands."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config
from optax_ext.schedules import rate_in_words

WARMUP = optax_ext.LinearWarmup(0.8, warmup_steps=9, warmup_learning_rate=0.1)
COSINE = optax_ext.CosineDecay(0.8, decay_steps=20, alpha=0.25)
ROOT = optax_ext.PowerDecay(0.5, power=-0.5)
JOINED = optax_ext.JoinedSchedules([WARMUP, COSINE, 0.3, ROOT], [10, 29, 35])
NESTED = optax_ext.JoinedSchedules([0.1, JOINED, COSINE], [5, 45])
STEPS = np.arange(70)


def test_it_is_join_schedules_of_optax():
    for joined in (JOINED, NESTED):
        pieces = [piece if callable(piece) else optax.constant_schedule(piece) for piece in joined.schedules]
        expected = optax.join_schedules(pieces, list(joined.boundaries))
        np.testing.assert_allclose(joined(STEPS), [expected(jnp.int32(step)) for step in STEPS], rtol=1e-6)


def test_from_a_boundary_on_the_new_schedule_counts():
    schedule = optax_ext.JoinedSchedules([1.0, 0.5], [10])
    assert [float(schedule(step)) for step in (9, 10, 11)] == [1.0, 0.5, 0.5]
    piecewise = optax_ext.PiecewiseConstantDecay([10], [1.0, 0.5])
    assert [float(piecewise(step)) for step in (9, 10, 11)] == [1.0, 1.0, 0.5]


def test_it_is_what_offsets_by_hand_give():
    by_hand = optax_ext.LinearWarmup(dataclasses.replace(COSINE, offset=9), 9, 0.1, warmup_target=0.8)
    joined = optax_ext.JoinedSchedules([WARMUP, COSINE], [9])
    np.testing.assert_array_equal(joined(STEPS), by_hand(STEPS))


def test_boundaries_are_exact_past_float32():
    boundary = 2**24 + 1  # float32 has no such number
    schedule = optax_ext.JoinedSchedules([1.0, optax_ext.PiecewiseConstantDecay([1], [0.5, 0.25])], [boundary])
    assert [float(schedule(boundary + step)) for step in (-1, 0, 1, 2)] == [1.0, 0.5, 0.5, 0.25]
    last = optax_ext.JoinedSchedules([1.0, 0.5], [2**31 - 1])
    assert [float(last(step)) for step in (-(2**31), 2**31 - 2, 2**31 - 1, 2**40)] == [1.0, 1.0, 0.5, 0.5]


@dataclasses.dataclass(frozen=True)
class Counted(optax_ext.Schedule):
    type = "tested_counted"
    calls: int = 0

    def __call__(self, step):
        seen.append(step)
        return jnp.full(jnp.shape(step), 0.5, jnp.float32)


seen = []


def test_a_schedule_of_a_user_is_called_as_it_is():
    schedule = optax_ext.JoinedSchedules([0.1, Counted()], [5])
    seen.clear()
    assert [float(schedule(step)) for step in (3, 7, 8)] == [np.float32(0.1), 0.5, 0.5]
    assert list(map(int, seen)) == [0, 2, 3]  # never compiled, and never a step before its own first one


def test_round_trip_and_json_schema(tmp_path):
    recipe = config.OptimizationConfig(config.SGD(NESTED))
    validator = jsonschema.Draft202012Validator(config.json_schema())
    for exclude_defaults in (False, True):
        data = config.to_dict(recipe, exclude_defaults=exclude_defaults)
        assert config.from_dict(data) == recipe
        validator.validate(data)
    for name in ("recipe.yaml", "recipe.json"):
        config.save(recipe, tmp_path / name)
        assert config.load(tmp_path / name) == recipe
    for wrong in ({"schedules": []}, {"schedules": [-1]}, {"schedules": [{"type": "constant"}]}, {"schedules": 0.1}):
        assert not validator.is_valid({"type": "joined_schedules", "boundaries": [], **wrong})


def test_every_problem_has_its_path():
    cosine = {"type": "cosine_decay", "initial_learning_rate": 0.1, "decay_steps": -5}
    inner = {"type": "joined_schedules", "schedules": [cosine], "boundaries": []}
    schedules = [0.1, cosine, inner, -2, "0.1", {"type": "cosin_decay"}, {"decay_steps": 5}]
    joined = {"type": "joined_schedules", "schedules": schedules, "boundaries": [1, -1]}
    with pytest.raises(config.ConfigError) as error:
        config.from_dict({"optimizer": {"type": "sgd", "learning_rate": joined}})
    found = {
        path.removeprefix("optimizer.learning_rate."): message.partition(",")[0]
        for path, message in error.value.problems
    }
    assert found == {
        "schedules.1.decay_steps": "must be greater than 0",
        "schedules.2.schedules.0.decay_steps": "must be greater than 0",
        "schedules.3": "must be greater than or equal to 0",
        "schedules.4": "must be a number or a schedule",
        "schedules.5.type": "unknown type 'cosin_decay' (did you mean 'cosine_decay'?)",
        "schedules.6.type": "is required: one of 'cosine_decay'",
        "boundaries.1": "must be greater than or equal to 0",
    }
    with pytest.raises(config.ConfigError, match=r"schedules.1.decay_steps: must be greater than 0, got -5"):
        optax_ext.JoinedSchedules([0.1, cosine], [5])


@pytest.mark.parametrize(
    ("schedules", "boundaries", "message"),
    [
        ([], [], "schedules: must have at least 1 entry, got none"),
        ([0.1, 0.2], [], "boundaries: must have one entry fewer than there are schedules, 1, got 0"),
        ([0.1], [3], "boundaries: must have one entry fewer than there are schedules, 0, got 1"),
        ([0.1, 0.2, 0.3], [5, 5], r"boundaries: must be strictly increasing, got \[5, 5\]"),
        ([0.1, optax.constant_schedule(0.5)], [5], r"schedules.1: .* the Optax schedule constant_schedule\(...\)"),
        ([0.1, optax_ext.CosineDecay], [5], r"schedules.1: must be constructed, as CosineDecay\("),
        (0.1, 5, r"schedules: must be a list, got 0.1\n  boundaries: must be a list, got 5"),
    ],
)
def test_what_is_wrong_is_said(schedules, boundaries, message):
    with pytest.raises(config.ConfigError, match=message):
        optax_ext.JoinedSchedules(schedules, boundaries)


def test_an_offset_that_shifts_a_schedule_a_second_time_gets_a_warning_at_the_line():
    shifted = dataclasses.replace(COSINE, offset=9)
    message = "JoinedSchedules: schedules.1 starts at its boundary 9, and its offset of 9 shifts it once more"
    with pytest.warns(UserWarning, match=message) as warned:
        optax_ext.JoinedSchedules([WARMUP, shifted], [9])
    assert [warning.filename for warning in warned] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optax_ext.JoinedSchedules([WARMUP, shifted], [10])
        optax_ext.JoinedSchedules([shifted, COSINE], [9])
        optax_ext.JoinedSchedules([WARMUP, COSINE], [0])


def test_words():
    assert (
        rate_in_words(JOINED)
        == "linear_warmup, then a constant 0.8, then cosine_decay, then a constant 0.3, then power_decay"
    )


def test_one_compiled_step_trains_with_it():
    tx = config.SGD(JOINED).make()
    state, rates = tx.init(jnp.zeros([])), []
    step = jax.jit(tx.update)
    for _ in range(36):
        updates, state = step(jnp.ones([]), state)
        rates.append(-updates)
    np.testing.assert_allclose(rates, JOINED(STEPS[:36]), rtol=1e-6)
    assert step._cache_size() == 1


def test_boundaries_and_what_is_inside_take_durations():
    data = {
        "type": "joined_schedules",
        "schedules": [
            {"type": "linear_warmup", "after": {"value": 0.1, "per_batch": 256}, "warmup_steps": "1 epoch"},
            {"type": "cosine_decay", "initial_learning_rate": 0.4, "decay_steps": "100% - 1 epoch"},
            {"value": 0.02, "per_batch": 256, "rule": "sqrt"},
        ],
        "boundaries": ["1 epoch", "100%"],
    }
    words = config.from_dict(data)
    assert config.from_dict(config.to_dict(words)) == words
    jsonschema.Draft202012Validator(config.json_schema()).validate(data)
    assert not words.is_zero()
    assert rate_in_words(words).endswith(
        "then cosine_decay, then 0.02 for each 256 examples of a batch, by the square root"
    )
    resolved = config.resolve(words, config.Run(examples=10_240, batch_size=1024, epochs=3))
    warmup, cosine = optax_ext.LinearWarmup(0.4, 10), optax_ext.CosineDecay(0.4, 20)
    assert resolved == optax_ext.JoinedSchedules([warmup, cosine, 0.04], [10, 30])
    for call in (lambda: words(3), words.milestones):
        with pytest.raises(ValueError, match="'1 epoch' depends on the run: resolve the recipe first"):
            call()
    with pytest.raises(
        config.ConfigError, match=r"boundaries: must be strictly increasing, got \[10, 10\], in this run"
    ):
        config.resolve(
            optax_ext.JoinedSchedules([0.1, 0.2, 0.3], ["1 epoch", "100%"]),
            config.Run(examples=10_240, batch_size=1024, epochs=1),
        )
    with pytest.raises(config.ConfigError, match="boundaries: must have one entry fewer"):
        config.from_dict({**data, "boundaries": ["1 epoch"]})


def test_an_offset_in_words_is_warned_of_once_it_is_known():
    shifted = dataclasses.replace(COSINE, offset="1 epoch")
    words = optax_ext.JoinedSchedules([WARMUP, shifted], ["1 epoch"])  # a warning would be an error
    with pytest.warns(UserWarning, match="its offset of 10 shifts it once more"):
        config.resolve(words, config.Run(examples=10_240, batch_size=1024))
