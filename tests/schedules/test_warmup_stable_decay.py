"""WarmupStableDecay against transformers' get_wsd_schedule, and where transformers has nothing to compare with."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ext
from optax_ext import config
from tests.parity import golden_data

GOLDEN = golden_data.loads((Path(__file__).parent / "data" / "warmup_stable_decay.json").read_text())


def test_rates_are_those_of_transformers():
    assert GOLDEN["versions"]["transformers"] == "5.24.0"
    for case in GOLDEN["cases"]:
        expected = case["rates"]
        with jax.disable_jit():  # compiling each schedule would take longer
            rates = optax_ext.WarmupStableDecay(**case["arguments"])(np.arange(25))[: len(expected)]
        np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=3e-10, err_msg=str(case["arguments"]))


def test_the_cases_have_each_decay_with_and_without_each_part():
    arguments = [case["arguments"] for case in GOLDEN["cases"]]
    for decay_type in ("linear", "cosine", "1-sqrt"):
        some = [one for one in arguments if one["decay_type"] == decay_type]
        for name in ("warmup_steps", "stable_steps", "end_learning_rate"):
            assert {one[name] > 0 for one in some} == {False, True}


def test_parts_meet_exactly_past_float32():
    many = 2**24 + 1  # float32 has no such number
    schedule = optax_ext.WarmupStableDecay(1.0, 2, many, 2, offset=many)
    steps = [many, many + 1, many + 2, 2 * many + 2, 2 * many + 3, 2 * many + 4]
    assert [float(schedule(step)) for step in steps] == [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]


def test_parts_that_end_beyond_the_last_int32_wrap_nowhere():
    most = 2**31 - 1
    schedule = optax_ext.WarmupStableDecay(1.0, most, most, most, offset=-most)
    assert schedule(most) == 1.0
    assert schedule(0) == 1.0
    assert schedule(-most) == 0.0


def test_before_the_offset_the_rate_is_not_negative_unless_asked_for():
    held = optax_ext.WarmupStableDecay(1.0, 10, 10, 10, offset=100)
    assert held(90) == held(100) == 0.0
    assert config.from_dict({**config.to_dict(held), "before_offset": "extrapolate"})(90) == -1.0


def test_a_longer_run_has_the_same_rates_until_it_is_cooled_down():
    short, long = (optax_ext.WarmupStableDecay(0.5, 10, stable, 20, "1-sqrt") for stable in (50, 90))
    steps = jnp.arange(61)
    np.testing.assert_array_equal(short(steps), long(steps))
    np.testing.assert_array_equal(short(steps + 60), long(steps + 100))


def test_derivatives_are_finite_where_the_root_is_of_zero():
    slope = jax.grad(optax_ext.WarmupStableDecay(0.5, 10, 70, 20, "1-sqrt"))
    slopes = jax.jit(jax.vmap(slope))(jnp.arange(0, 110, 5.0))
    assert jnp.isfinite(slopes).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decay_type": "1-square"}, "decay_type: must be 'linear', 'cosine' or '1-sqrt', got '1-square'"),
        ({"decay_steps": 0}, "decay_steps: must be greater than 0, got 0"),
        ({"stable_steps": -1}, "stable_steps: must be greater than or equal to 0, got -1"),
        ({"warmup_steps": 1.5}, "warmup_steps: must be an integer, got 1.5"),
    ],
)
def test_what_is_wrong_is_said(changes, message):
    arguments = {"learning_rate": 0.5, "warmup_steps": 1, "stable_steps": 1, "decay_steps": 1, **changes}
    with pytest.raises(config.ConfigError) as error:
        optax_ext.WarmupStableDecay(**arguments)
    assert message in str(error.value)


def test_the_words_of_transformers_name_ours():
    with pytest.raises(config.ConfigError) as error:
        optax_ext.WarmupStableDecay(0.5, num_warmup_steps=1, num_stable_steps=1, num_decay_steps=1)
    for ours in ("warmup_steps", "stable_steps", "decay_steps"):
        assert f"num_{ours}: unknown field (did you mean '{ours}'?)" in str(error.value)


def test_the_parts_take_durations_and_rates_for_a_batch():
    data = {
        "type": "warmup_stable_decay",
        "learning_rate": {"value": 0.1, "per_batch": 256},
        "warmup_steps": "1 epoch",
        "stable_steps": "80% - 1 epoch",
        "decay_steps": "20%",
        "end_learning_rate": 0.01,
        "offset": "5 steps",
    }
    words = config.from_dict(data)
    assert config.from_dict(config.to_dict(words)) == words
    assert not words.is_zero()
    resolved = config.resolve(words, config.Run(examples=10_240, batch_size=1024, epochs=5))
    assert resolved == optax_ext.WarmupStableDecay(0.4, 10, 30, 10, end_learning_rate=0.01, offset=5)
    for call in (lambda: words(3), words.milestones):
        with pytest.raises(ValueError, match="depends on the run: resolve the recipe first"):
            call()
