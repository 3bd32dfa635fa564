"""The learning rate in metrics: the one that the last step used, whatever stands around the count that it goes by."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config

PARAMS = jnp.float32(3.0)
GOOD, NAN = 1.0, np.nan


def schedule(step):
    """A rate that no two steps share."""
    return 1 / (2.0 + step)


sgd = optax.sgd(schedule)  # with a gradient of 1, the update is minus the rate


def scaled(inner, **options):
    return optax_ext.fixed_loss_scaling(inner, 1.0, **options)


def guarded(inner):
    return optax_ext.skip_bad_steps(inner, max_norm_ratio=10.0, warmup_steps=1)


def every(steps, inner):
    return optax.MultiSteps(inner, steps).gradient_transformation()


def run(tx, grads, rate):
    """Return for each step minus its update, and the rate in the metrics."""

    @jax.jit
    def step(state, grad):
        updates, state = tx.update(grad, state, PARAMS)
        return state, (-updates, optax_ext.metrics(state, rate)["learning_rate"])

    return jax.tree.map(np.asarray, jax.lax.scan(step, tx.init(PARAMS), jnp.float32(grads))[1])


def rates(*steps):
    return np.float32([schedule(step) for step in steps])


BAD_IN_THE_MIDDLE = [GOOD, GOOD, NAN, NAN, GOOD, NAN, GOOD]
STEPS = [0, 1, 2, 2, 2, 3, 3]  # the counts that the schedule was evaluated at, if a skip does not count
COUNTED = range(7)
no_decay = optax.add_decayed_weights(lambda step: 0.0 * step)  # which counts steps

SKIPPING = {
    "loss scale": (lambda: scaled(sgd), STEPS),
    "dynamic loss scale": (lambda: optax_ext.dynamic_loss_scaling(sgd, initial_scale=1.0, multiplier=1.0001), STEPS),
    "counting loss scale": (lambda: scaled(sgd, count_skipped_steps=True), COUNTED),
    "guard": (lambda: guarded(sgd), STEPS),
    "guard in a loss scale": (lambda: scaled(guarded(sgd)), STEPS),
    "guard in a counting loss scale": (lambda: scaled(guarded(sgd), count_skipped_steps=True), COUNTED),
    "guard within a loss scale": (lambda: scaled(optax.chain(guarded(sgd))), STEPS),
    "guard within a counting loss scale": (
        lambda: scaled(optax.chain(guarded(sgd)), count_skipped_steps=True),
        COUNTED,
    ),
    "apply_if_finite": (lambda: optax.apply_if_finite(sgd, 100), STEPS),
    "chain with other counts": (
        lambda: optax.chain(no_decay, scaled(optax.chain(optax.ema(0.0), optax.apply_every(1), no_decay, sgd))),
        STEPS,
    ),
    "average around a skip": (lambda: optax.chain(scaled(sgd), optax_ext.params_ema()), STEPS),
    "average inside a skip": (lambda: scaled(optax.chain(sgd, optax_ext.params_ema())), STEPS),
    "masked, with master weights": (lambda: scaled(optax_ext.master_weights(optax.masked(sgd, True))), STEPS),
    "injected scale": (lambda: optax.inject_hyperparams(optax_ext.fixed_loss_scaling)(inner=sgd, scale=1.0), STEPS),
}


@pytest.mark.parametrize("name", SKIPPING)
def test_a_skipped_step_was_computed_with_the_count_that_it_leaves(name):
    make, steps = SKIPPING[name]
    used, reported = run(make(), BAD_IN_THE_MIDDLE, schedule)
    np.testing.assert_allclose(reported, rates(*steps), rtol=1e-6)
    applied = np.isfinite(BAD_IN_THE_MIDDLE)
    np.testing.assert_allclose(used[applied], reported[applied], rtol=1e-6)


@pytest.mark.parametrize("make", [guarded, lambda inner: scaled(guarded(inner))])
def test_a_skipped_spike_counts_as_a_skip(make):
    _, reported = run(make(sgd), [GOOD, GOOD, 1000.0, GOOD], schedule)
    np.testing.assert_allclose(reported, rates(0, 1, 2, 2))


def test_a_skip_that_counts_after_a_spike_that_does_not():
    tx = scaled(optax.chain(guarded(sgd)), count_skipped_steps=True)
    _, reported = run(tx, [GOOD, GOOD, 1000.0, NAN, GOOD], schedule)
    np.testing.assert_allclose(reported, rates(0, 1, 2, 2, 3))


def test_without_skipping_every_step_counts():
    _, reported = run(scaled(sgd, skip_nonfinite=False), [GOOD, NAN, GOOD], schedule)
    np.testing.assert_allclose(reported, rates(0, 1, 2))


def test_what_a_state_does_not_tell_is_as_documented():
    counting = scaled(every(2, sgd), count_skipped_steps=True)
    used, reported = run(counting, [GOOD, GOOD, NAN, GOOD, GOOD], schedule)
    np.testing.assert_allclose(reported, rates(0, 0, 1, 1, 2))
    np.testing.assert_allclose(used[[1, 4]], rates(0, 2), rtol=1e-6)  # the updates
    _, reported = run(optax.apply_if_finite(sgd, 1), [GOOD, NAN, NAN, GOOD], schedule)
    np.testing.assert_allclose(reported, rates(0, 1, 2, 2))  # the third was applied at the rate of 1


EVERY_OTHER = [0, 0, 0, 1, 1, 2, 2, 3, 3]  # the first update comes with the second step
ACCUMULATING = {
    "bare": (lambda: every(2, sgd), EVERY_OTHER, []),
    "in a loss scale": (lambda: scaled(every(2, sgd)), [0, 0, 0, 1, 1, 1, 2, 2, 3], [4]),
    "around a loss scale": (lambda: every(2, scaled(sgd)), EVERY_OTHER, []),
    "around a loss scale that skips": (lambda: every(2, scaled(sgd)), [0, 0, 0, 1, 1, 1, 1, 1, 1], [3]),
    "beside other counts": (
        lambda: optax.chain(optax.ema(0.0), every(2, sgd), optax_ext.params_ema()),
        EVERY_OTHER,
        [],
    ),
    "in groups": (
        lambda: optax.partition({"all": every(2, sgd), "none": optax.set_to_zero()}, "all"),
        EVERY_OTHER,
        [],
    ),
    "in some steps": (
        lambda: optax.conditionally_mask(sgd, lambda step: step % 3 == 0),
        [0, 0, 0, 1, 1, 1, 2, 2, 2],
        [],
    ),
}


@pytest.mark.parametrize("name", ACCUMULATING)
def test_between_updates_the_rate_is_that_of_the_last_one(name):
    make, steps, bad = ACCUMULATING[name]
    grads = [NAN if step in bad else GOOD for step in range(9)]
    used, reported = run(make(), grads, schedule)
    np.testing.assert_allclose(reported, rates(*steps), rtol=1e-6)
    np.testing.assert_allclose(used[used > 0], reported[used > 0], rtol=1e-6)


OURS = optax_ext.LinearWarmup(optax_ext.CosineDecay(1.0, decay_steps=10), warmup_steps=2, warmup_learning_rate=0.25)
RECIPES = {
    "schedule": config.LARS(OURS, momentum=0.0, exclude_from_layer_adaptation=[""]),
    "decay": config.SGD(0.5, decay=0.5),
    "schedule and decay": config.SGD(OURS, decay=0.5),
    "constant": config.SGD(0.5),
    "constant schedule": config.SGD(optax_ext.Constant(0.5)),
    "Adam's counts": config.Adam(OURS, decay=0.5),
    "whole": config.OptimizationConfig(
        config.SGD(OURS, decay=0.25),
        config.DynamicLossScale(initial_scale=1.0),
        config.ParamsEma(),
        master_weights=True,
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_tells_the_rate_of_its_transformation(name):
    recipe = RECIPES[name]
    used, reported = run(recipe.make(), [GOOD] * 5, recipe)
    np.testing.assert_allclose(reported, [recipe.learning_rate_at(step) for step in range(5)], rtol=1e-6)
    if not name.startswith("Adam"):
        np.testing.assert_allclose(used, reported, rtol=1e-6)


NUMBERS = {"float": 0.5, "int": 1, "NumPy": np.float64(0.5), "array": jnp.bfloat16(0.5), "zero": 0.0}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_needs_no_count(name):
    state = optax.sgd(NUMBERS[name]).init(PARAMS)
    rate = optax_ext.metrics(state, NUMBERS[name])["learning_rate"]
    assert rate == float(NUMBERS[name])
    assert (rate.dtype, rate.shape, rate.weak_type) == (jnp.float32, (), False)


def test_a_traced_number():
    state = optax.sgd(0.1).init(PARAMS)
    assert jax.jit(lambda rate: optax_ext.metrics(state, rate))(0.25)["learning_rate"] == 0.25


def test_before_the_first_step_it_is_the_first_rate():
    for tx in (sgd, scaled(sgd), every(3, sgd), scaled(guarded(sgd))):
        assert optax_ext.metrics(tx.init(PARAMS), schedule)["learning_rate"] == schedule(0)


def test_counts_past_float32():
    count = 2**24 + 2
    state = (optax.ScaleByScheduleState(jnp.int32(count)),)
    step_at = optax_ext.PiecewiseConstantDecay([count - 2, count - 1], [1.0, 0.5, 0.25])
    assert optax_ext.metrics(state, step_at)["learning_rate"] == 0.5


# Injected hyperparameters.


@pytest.mark.parametrize("around", [lambda tx: tx, scaled, lambda tx: optax.chain(optax.ema(0.0), tx)])
def test_an_injected_rate_needs_no_argument(around):
    tx = around(optax.inject_hyperparams(optax.sgd)(schedule))
    used, reported = run(tx, [GOOD] * 3, None)
    np.testing.assert_allclose(reported, used, rtol=1e-6)
    np.testing.assert_allclose(reported, rates(0, 1, 2))
    np.testing.assert_array_equal(run(tx, [GOOD] * 3, schedule)[1], reported)


def test_an_injected_number_that_was_changed():
    tx = scaled(optax.inject_hyperparams(optax_ext.lars)(learning_rate=0.5))
    state = tx.init(PARAMS)
    assert optax_ext.metrics(state)["learning_rate"] == 0.5
    state.inner_state.hyperparams["learning_rate"] = jnp.float32(0.125)
    _, state = jax.jit(tx.update)(jnp.float32(GOOD), state, PARAMS)
    assert optax_ext.metrics(state)["learning_rate"] == 0.125


def test_an_injected_rate_around_a_loss_scale_counts_every_step():
    tx = optax.inject_hyperparams(lambda learning_rate: scaled(optax.adam(learning_rate)))(schedule)
    for rate in (None, schedule):
        np.testing.assert_allclose(run(tx, [GOOD, NAN, GOOD], rate)[1], rates(0, 1, 2))


def test_an_injected_rate_inside_injected_hyperparameters():
    inner = optax.inject_hyperparams(optax.sgd)(schedule)
    tx = optax.inject_hyperparams(optax_ext.fixed_loss_scaling)(inner=inner, scale=1.0)
    np.testing.assert_allclose(run(tx, [GOOD] * 2, None)[1], rates(0, 1))


def test_injected_rates_of_groups():
    sgds = {"body": 0.25, "head": 0.5}
    groups = {name: optax.inject_hyperparams(optax.sgd)(rate) for name, rate in sgds.items()}
    params = {"body": PARAMS, "head": PARAMS}
    state = optax.chain(optax.clip(1.0), optax.partition(groups, {"body": "body", "head": "head"})).init(params)
    assert optax_ext.metrics(state) == {"learning_rate/body": 0.25, "learning_rate/head": 0.5}
    assert optax_ext.metrics(state[1].inner_states["head"]) == {"learning_rate": 0.5}
    assert optax_ext.metrics(state, 0.75) == {"learning_rate": 0.75}
    twice = (groups["body"].init(PARAMS), groups["head"].init(PARAMS))
    with pytest.raises(ValueError, match="one injected learning_rate, or one in each group, got several of 'learning"):
        optax_ext.metrics(twice)


def test_without_argument_or_injection_there_is_no_rate():
    assert optax_ext.metrics(optax.adam(schedule).init(PARAMS)) == {}
    assert optax_ext.metrics(optax.inject_hyperparams(optax.ema)(0.5).init(PARAMS)) == {}


def test_a_parameter_that_is_called_count_is_none():
    class Counted(NamedTuple):
        count: Any  # pyright: ignore[reportIncompatibleMethodOverride]

    tx = optax.chain(optax.trace(0.9), optax.sgd(schedule))
    assert optax_ext.metrics(tx.init(Counted(PARAMS)), schedule)["learning_rate"] == schedule(0)
    with pytest.raises(ValueError, match="got none"):
        optax_ext.metrics(optax.trace(0.9).init(Counted(PARAMS)), schedule)


# Mistakes.


@pytest.mark.parametrize(
    "tx", [optax.sgd(0.1), guarded(optax.sgd(0.1)), every(2, optax.sgd(0.1)), optax.apply_every(2)]
)
@pytest.mark.parametrize("rate", [schedule, config.SGD(0.1, decay=0.5)], ids=["schedule", "recipe"])
def test_a_schedule_without_a_count_is_an_error(tx, rate):
    with pytest.raises(ValueError, match=r"must hold a step count for a schedule, got none, .* give that number, or"):
        optax_ext.metrics(tx.init(PARAMS), rate)


def test_counts_of_different_steps_are_ambiguous():
    groups = {"a": every(2, sgd), "b": sgd}
    state = optax.partition(groups, {"a": "a", "b": "b"}).init({"a": PARAMS, "b": PARAMS})
    expected = r"got several, at opt_state\.inner_states\['a'\].*, opt_state\.inner_states\['b'\].*: give the part"
    with pytest.raises(ValueError, match=expected):
        optax_ext.metrics(state, schedule)
    assert optax_ext.metrics(state.inner_states["a"], schedule)["learning_rate"] == schedule(0)


WRONG = {
    "class": (optax_ext.CosineDecay, "learning_rate must be a schedule, got the class CosineDecay: construct it"),
    "class of a recipe": (config.LARS, "learning_rate must be a schedule, got the class LARS: construct it"),
    "negative": (-0.1, "learning_rate must be greater than or equal to 0, got -0.1"),
    "NaN": (np.nan, "learning_rate must be a finite number"),
    "bool": (True, "learning_rate must be a number or a schedule, got True"),
    "text": ("0.1", "learning_rate must be a number or a schedule, got '0.1'"),
    "transformation": (sgd, "learning_rate must be a number or a schedule, got GradientTransformation"),
    "parameters": ({"kernel": PARAMS}, "learning_rate must be a number or a schedule, got {'kernel'"),
    "not a scalar": (lambda step: jnp.ones(2), r"learning_rate must be a scalar, got the shape \(2,\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_rate(name):
    rate, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        optax_ext.metrics(sgd.init(PARAMS), rate)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (config.Adafactor(0.75), [0.75, 2**-0.5, 3**-0.5]),
        (config.ScheduleFreeAdamW(0.75, warmup_steps=3), [0.25, 0.5, 0.75]),
        (config.ScheduleFreeAdamW(0.75), [0.75, 0.75, 0.75]),
        (
            config.OptimizationConfig(config.SGD(optax_ext.PolynomialDecay(1.0, 4, 0.0)), accumulate_steps=2),
            [1.0, 1.0, 1.0, 0.75],
        ),
    ],
    ids=lambda value: getattr(value, "type", ""),
)
def test_rates_that_a_number_does_not_tell(recipe, expected):
    tx, params = recipe.make(), {"w": jnp.ones(2)}
    state, rates = tx.init(params), []
    for _ in expected:
        _, state = tx.update({"w": jnp.ones(2)}, state, params)
        rates.append(float(optax_ext.metrics(state, recipe)["learning_rate"]))
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
