"""Durations in words and rates for a batch: what they are in a run, in files, and in errors."""

import copy
import dataclasses
import json
import pickle
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config
from optax_ext._core.durations import PATTERN, Duration
from optax_ext.config import ConfigError, Run
from optax_ext.schedules import RatePerBatch

RECORDED = json.loads((Path(__file__).parent / "data" / "units.json").read_text())["cases"]
IMAGENET = Run(examples=1_281_167, batch_size=4096, epochs=90)

RECIPE = {
    "run": {"examples": 1_281_167, "batch_size": 4096, "epochs": 90},
    "optimizer": {
        "type": "lars",
        "learning_rate": {
            "type": "linear_warmup",
            "warmup_steps": "5 epochs",
            "after": {
                "type": "polynomial_decay",
                "initial_learning_rate": {"value": 0.3, "per_batch": 256, "rule": "linear"},
                "decay_steps": "100% - 5 epochs + 1 step",
                "offset": "5 epochs",
            },
        },
    },
    "loss_scale": {"type": "dynamic", "growth_steps": "1 epoch"},
    "ema": {"average_decay": 0.99, "start_step": "10%"},
}


def problems(call):
    with pytest.raises(ConfigError) as raised:
        call()
    return dict(raised.value.problems)


# ---------------------------------------------------------------------------------------------------------
# Arithmetic


def test_a_duration_is_that_of_big_vision():
    assert len(RECORDED) > 80
    for case in RECORDED:
        run = Run(case["examples"], case["batch_size"], case["epochs"])
        assert run.in_steps(case["words"]) == case["big_vision"], case


def test_a_duration_is_that_of_timm_and_composer_where_theirs_is_whole():
    """Theirs count full batches. A fraction of a step stays one in timm, and Composer cuts it off."""
    differing = 0
    for case in RECORDED:
        full = case["examples"] // case["batch_size"]
        run = Run(case["examples"], case["batch_size"], case["epochs"], steps_per_epoch=full)
        steps = run.in_steps(case["words"])
        if "timm" in case:
            assert steps == (max(round(case["timm"]), 1) if case["timm"] else 0), case
        if "composer" in case and steps != case["composer"]:
            differing += 1
            assert case["words"].endswith("%")
            assert steps == case["composer"] + 1
    assert 0 < differing < 20


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        ("500 steps", 500),
        ("1 step", 1),
        ("0 epochs", 0),
        ("1 epoch", 313),
        ("1.5 epochs", 469),
        ("1e-9 epochs", 1),
        ("100%", 28151),
        ("  10 % ", 2815),
        ("300k examples", 73),
        ("1.28M examples", 312),
        ("1B examples", 244141),
        ("1_281_167 examples", 313),
        ("100% - 5 epochs", 26587),
        ("100% - 5 epochs + 1 step", 26588),
        ("-5 epochs", -1564),
    ],
)
def test_words_are_steps(words, steps):
    assert IMAGENET.in_steps(words) == steps
    assert config.from_dict({"type": "cosine_decay", "initial_learning_rate": 1.0, "decay_steps": 1, "offset": words})


def test_a_half_goes_to_the_even_step():
    run = Run(examples=10, batch_size=4, epochs=1)
    assert [run.in_steps(words) for words in ("1 epoch", "3 epochs", "5 epochs")] == [2, 8, 12]  # of 2.5, 7.5, 12.5


def test_terms_are_rounded_by_themselves_so_that_what_meets_in_words_meets_in_steps():
    for batch_size in range(100, 5000, 37):
        run = Run(examples=1_281_167, batch_size=batch_size, epochs=90)
        warmup, rest = run.in_steps("5 epochs"), run.in_steps("100% - 5 epochs")
        assert warmup + rest == run.total_steps() == run.in_steps("90 epochs")


def test_amounts_are_exact():
    run = Run(examples=2**53, batch_size=3, steps=2**31 - 1)
    assert run.in_steps("0.1%") == round((2**31 - 1) / 1000)
    assert run.in_steps(f"{2**31 - 2} steps") == 2**31 - 2


def test_full_batches_may_be_counted():
    run = Run(examples=1_281_167, batch_size=4096, epochs=90, steps_per_epoch=312)
    assert (run.total_steps(), run.in_steps("5 epochs"), run.in_steps("10%")) == (28080, 1560, 2808)
    assert Run(steps_per_epoch=312, epochs=2).total_steps() == 624
    assert Run(steps=100).in_steps("10%") == 10
    assert Run(batch_size=10).in_steps("100 examples") == 10
    assert Run().total_steps() is None


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"epochs": 90, "steps": 5}, {"steps": "must not be given with epochs, got 5 with 90 epochs"}),
        (
            {"examples": 100, "batch_size": 30, "steps_per_epoch": 5},
            {"steps_per_epoch": "must be 3 or 4, the batches of 30 in 100 examples, got 5"},
        ),
        ({"batch_size": 0}, {"batch_size": "must be greater than 0, got 0"}),
        ({"epochs": 0}, {"epochs": "must be greater than 0, got 0"}),
        (
            {"epochs": 2**31, "steps_per_epoch": 1},
            {"epochs": "must be a run of at most 2147483647 steps, got 2147483648.0, which are 2147483648"},
        ),
    ],
)
def test_a_run_is_checked(fields, wrong):
    assert problems(lambda: Run(**fields)) == wrong


def test_a_run_may_have_as_many_steps_as_int32_counts():
    assert Run(epochs=2**31 - 1, steps_per_epoch=1).in_steps("100%") == 2**31 - 1
    assert Run(steps=2**31 - 1).in_steps("100% - 1 step") == 2**31 - 2


def test_what_is_no_duration_is_named():
    assert [IMAGENET.in_steps(steps) for steps in (5.0, np.int64(3))] == [5, 3]
    for duration in ("5 Epochs", "5", 5.5, True, None, 2**31):
        with pytest.raises(ValueError, match=re.escape(f"got {duration!r}")):
            IMAGENET.in_steps(duration)


def test_a_batch_is_of_all_accumulated_gradients():
    data = {"optimizer": {"type": "sgd", "learning_rate": {"value": 0.1, "per_batch": 256}}, "accumulate_steps": 3}
    wrong = "must be a multiple of accumulate_steps, 3, since it counts the examples of all of them, got 256"
    assert problems(lambda: config.from_dict({**data, "run": {"batch_size": 256}})) == {"run.batch_size": wrong}
    recipe = config.from_dict({**data, "run": {"batch_size": 768}})
    assert config.resolve(recipe).optimizer.learning_rate == pytest.approx(0.3)
    assert problems(lambda: recipe.make({"batch_size": 256})) == {"run.batch_size": f"{wrong}, in this run"}


def test_a_batch_that_divides_the_examples_has_one_number_of_steps():
    assert Run(examples=90, batch_size=30, steps_per_epoch=3).steps_per_epoch == 3
    assert "must be 3 or 4" in problems(lambda: Run(examples=90, batch_size=30, steps_per_epoch=4))["steps_per_epoch"]


@pytest.mark.parametrize(("rule", "rate"), [("linear", 4.8), ("sqrt", 1.2)])
def test_a_rate_is_that_of_the_batch(rule, rate):
    given = RatePerBatch(0.3, 256, rule)
    assert given.for_batch(4096) == pytest.approx(rate)
    for schedule in (
        optax_ext.Constant(given),
        optax_ext.CosineDecay(0.0, 10, warmup_target=given),
        optax_ext.PiecewiseConstantDecay([1], [given, 0.1]),
        optax_ext.LinearWarmup(given, 10),
        optax_ext.LinearWarmup(1.0, 10, warmup_learning_rate=given),
        optax_ext.PolynomialDecay(1.0, 10, end_learning_rate=given),
        optax_ext.PowerDecay(1.0, pre_offset_learning_rate=given),
    ):
        assert str(rate)[:3] in repr(config.resolve(schedule, IMAGENET))
    assert config.resolve(config.SGD(given), IMAGENET).learning_rate == pytest.approx(rate)


# ---------------------------------------------------------------------------------------------------------
# Recipes


def test_a_recipe_resolves_to_plain_steps():
    resolved = config.resolve(config.from_dict(RECIPE))
    after = optax_ext.PolynomialDecay(4.8, 26588, offset=1564)
    assert resolved.optimizer.learning_rate == optax_ext.LinearWarmup(after, 1564)
    assert resolved.loss_scale.growth_steps == 313
    assert resolved.ema.start_step == 2815
    assert resolved.run == IMAGENET
    assert config.resolve(resolved) is resolved


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_recipe_keeps_its_words(tmp_path, suffix):
    recipe = config.from_dict(RECIPE)
    path = tmp_path / f"recipe.{suffix}"
    config.save(recipe, path, exclude_defaults=True)
    assert config.load(path) == recipe
    assert "100% - 5 epochs + 1 step" in path.read_text()
    for copied in (pickle.loads(pickle.dumps(recipe)), copy.deepcopy(recipe), dataclasses.replace(recipe)):
        assert copied == recipe
        assert hash(copied) == hash(recipe)
        assert config.resolve(copied) == config.resolve(recipe)


def test_the_given_run_takes_the_place_of_that_of_the_recipe():
    recipe = config.from_dict(RECIPE)
    other = {"examples": 1_281_167, "batch_size": 8192, "epochs": 90}
    resolved = config.resolve(recipe, other)
    assert resolved == config.resolve(recipe, Run(**other))
    assert resolved.run == Run(**other)
    assert resolved.optimizer.learning_rate.warmup_steps == 782
    assert resolved.optimizer.learning_rate.after.initial_learning_rate == pytest.approx(9.6)


def test_what_a_recipe_does_is_that_of_the_resolved_one():
    recipe = config.from_dict(RECIPE)
    resolved = config.resolve(recipe)
    assert recipe.milestones() == resolved.milestones()
    assert recipe.learning_rate_at(1000) == resolved.learning_rate_at(1000) > 0
    assert [stage[:2] for stage in recipe.stages()] == [stage[:2] for stage in resolved.stages()]
    params = {"kernel": jnp.ones((2, 2))}
    grads = {"kernel": jnp.full((2, 2), 2.0**15)}

    def steps(tx):
        state = optax.tree.set(tx.init(params), count=jnp.int32(1000))
        return tx.update(grads, state, params)[0]["kernel"]

    bare = config.from_dict({**RECIPE, "run": None})
    expected = steps(resolved.make())
    assert (expected != 0).all()
    for tx in (recipe.make(), bare.make(IMAGENET), bare.make(run=RECIPE["run"])):
        np.testing.assert_array_equal(steps(tx), expected)


def test_a_bare_optimizer_is_made_for_a_run():
    sgd = config.SGD(optax_ext.PiecewiseConstantDecay(["50%"], [RatePerBatch(0.1, 256), 0.0]))
    tx = sgd.make(Run(batch_size=512, steps=4))
    params, moves = jnp.ones(1), []
    state = tx.init(params)
    for _ in range(4):
        updates, state = tx.update(jnp.ones(1), state, params)
        moves.append(float(updates[0]))
    np.testing.assert_allclose(moves, [-0.2, -0.2, -0.2, 0.0], rtol=1e-6)


def test_an_average_may_start_and_change_by_durations():
    data = {"average_decay": {"type": "step_cosine_decay", "boundaries": [0, "100%"], "values": [0.9, 1.0]}}
    ema = config.from_dict({**data, "start_step": "1 epoch"}, config.ParamsEma)
    assert config.resolve(ema, Run(steps=50, steps_per_epoch=5)) == config.from_dict(
        {"average_decay": {**data["average_decay"], "boundaries": [0, 50]}, "start_step": 5}, config.ParamsEma
    )


def test_parts_without_a_type_are_read_where_they_are_asked_for():
    assert config.from_dict(RECIPE["run"], Run) == IMAGENET
    assert config.from_dict({"value": 0.3, "per_batch": 256}, RatePerBatch) == RatePerBatch(0.3, 256)


def test_a_schedule_of_a_user_takes_durations():
    @dataclasses.dataclass(frozen=True)
    class Cliff(optax_ext.Schedule):
        type = "cliff_of_a_user"
        edge_steps: optax_ext.schedules.NonNegativeSteps

        def __call__(self, step):
            return jnp.where(step < self.edge_steps, 1.0, 0.0)

    cliff = config.resolve(config.from_dict({"type": "cliff_of_a_user", "edge_steps": "10%"}), Run(steps=50))
    assert [float(cliff(step)) for step in (4, 5)] == [1.0, 0.0]


def test_a_field_of_a_user_may_be_called_value():
    @dataclasses.dataclass(frozen=True)
    class ValueOfAUser(optax_ext.Schedule):
        value: float

        def __call__(self, step):
            return jnp.full(jnp.shape(step), self.value, jnp.float32)

    recipe = config.SGD(ValueOfAUser(0.5))
    assert config.from_dict(config.to_dict(recipe)) == recipe


# ---------------------------------------------------------------------------------------------------------
# Errors


def test_a_recipe_without_a_run_says_which_fields_need_one():
    recipe = config.from_dict({**RECIPE, "run": None})
    assert set(problems(recipe.make)) == {
        "optimizer.learning_rate.after.initial_learning_rate",
        "optimizer.learning_rate.after.decay_steps",
        "optimizer.learning_rate.after.offset",
        "optimizer.learning_rate.warmup_steps",
        "loss_scale.growth_steps",
        "ema.start_step",
    }
    *others, last = problems(recipe.make).values()
    assert not [message for message in others if "give" in message]
    assert last.endswith("there is none: give the recipe a run of examples, batch_size and epochs or steps")
    (of_rule,) = problems(config.SGD(RatePerBatch(0.3, 256)).make).values()  # which has no field for a run
    assert "give make or config.resolve a run" in of_rule
    for unresolved in (recipe.milestones, recipe.stages, lambda: recipe.learning_rate_at(0)):
        with pytest.raises(ConfigError, match="there is none"):
            unresolved()


def test_a_recipe_whose_run_lacks_something_is_refused_at_once():
    needs = "needs examples and batch_size of the run, got Run(steps=10)"
    assert problems(lambda: config.from_dict({**RECIPE, "run": {"steps": 10}})) == {
        "optimizer.learning_rate.after.initial_learning_rate": (
            "RatePerBatch(value=0.3, per_batch=256) needs batch_size of the run, got Run(steps=10)"
        ),
        "optimizer.learning_rate.after.decay_steps": f"'100% - 5 epochs + 1 step' {needs}",
        "optimizer.learning_rate.after.offset": f"'5 epochs' {needs}",
        "optimizer.learning_rate.warmup_steps": f"'5 epochs' {needs}",
        "loss_scale.growth_steps": f"'1 epoch' {needs}",
    }
    for words, run, needs in [
        ("9%", {}, "needs epochs or steps of the run"),
        ("9%", {"epochs": 1}, "needs examples and batch_size of the run"),
        ("9% - 1 epoch", {"batch_size": 4}, "needs examples, and epochs or steps, of the run"),
    ]:
        cosine = optax_ext.CosineDecay(1, words)
        assert needs in problems(lambda cosine=cosine, run=run: config.resolve(cosine, run))["decay_steps"]


def test_what_is_out_of_range_in_a_run_says_so():
    cosine = optax_ext.CosineDecay(1.0, "1" * 30 + " steps")
    assert "must be less than or equal to 2147483647" in problems(lambda: config.resolve(cosine, Run()))["decay_steps"]
    boundaries = optax_ext.PiecewiseConstantDecay(["50%", "3 steps"], [1.0, 0.5, 0.1])
    assert problems(lambda: config.resolve(boundaries, Run(steps=10))) == {
        "boundaries": "must be strictly increasing, got [5, 3], in this run"
    }
    recipe = config.SGD(optax_ext.CosineDecay(1.0, "100% - 5 epochs"))
    assert problems(lambda: recipe.make(Run(steps=10, steps_per_epoch=3))) == {
        "learning_rate.decay_steps": "must be greater than 0, got -5, in this run"
    }


@pytest.mark.parametrize(
    ("decay_steps", "message"),
    [
        ("0 epochs", "must be greater than 0, got '0 epochs'"),
        ("-5 epochs", "must be greater than 0, got '-5 epochs'"),
        ("5", "must be an integer, got '5'"),
        ("epochs", "must be an integer, got 'epochs'"),
        ("~5 epochs", "must be an integer, got '~5 epochs'; as a duration: it is not a number and a unit"),
        ("5 epcohs", "unknown unit 'epcohs' (did you mean 'epochs'?), accepted: steps, epochs, examples, %"),
        ("5 ba", "unknown unit 'ba' (did you mean 'steps'?)"),
        ("3k images", "unknown unit 'images' (did you mean 'examples'?)"),
        ("5 epochs 3 steps", "it is not a number and a unit, or a sum of these"),
        ("5 epochs -", "it is not a number and a unit, or a sum of these"),
        ("1__0 steps", "as a duration: it has no unit"),
        ("5ksteps", "unknown unit 'ksteps' (did you mean 'steps'?)"),
        ("", "must be an integer, got ''"),
        ("1e999999999 steps", "'1e999999999' is out of range"),
        ("1 step + " * 40 + "1 step", "it has more than 200 characters"),
        (True, "must be an integer, got True"),
        (0.5, "must be an integer, got 0.5"),
    ],
)
def test_a_wrong_duration_is_refused(decay_steps, message):
    data = {"type": "cosine_decay", "initial_learning_rate": 1.0, "decay_steps": decay_steps}
    assert message in problems(lambda: config.from_dict(data))["decay_steps"]


def test_a_wrong_rate_for_a_batch_is_refused():
    for rate, path in [({"value": 0.3}, ".per_batch"), ({"value": 0, "per_batch": 1}, ".value"), ({"a": 1}, "")]:
        data = {"type": "polynomial_decay", "initial_learning_rate": 1.0, "decay_steps": 1, "end_learning_rate": rate}
        assert set(problems(lambda data=data: config.from_dict(data))) == {f"end_learning_rate{path}"}


def test_only_learning_rates_are_for_a_batch():
    decay = {"value": 0.3, "per_batch": 256}
    wrong = problems(lambda: config.SGD(0.1, weight_decay_rate=decay))["weight_decay_rate"]
    assert wrong.startswith("must be a number or a schedule, got {")
    assert wrong.endswith(": only learning rates are for a batch")


def test_a_schedule_is_not_evaluated_without_a_run():
    schedule = optax_ext.LinearWarmup(optax_ext.CosineDecay(1.0, "90 epochs"), "5 epochs")
    for call in (lambda: schedule(3), schedule.milestones):
        with pytest.raises(ValueError, match="depends on the run: resolve the recipe first"):
            call()


def test_a_warm_up_that_ends_in_zero_warns_once_it_is_known():
    schedule = optax_ext.LinearWarmup(optax_ext.CosineDecay(1.0, "5%"), "10%")
    with pytest.warns(UserWarning, match="0 from step 5 on"):
        config.resolve(schedule, Run(steps=100))


def test_keras_gets_plain_steps():
    recipe = config.OptimizationConfig(config.SGD(optax_ext.CosineDecay(0.1, "10%")), run=Run(steps=500))
    written = optax_ext.interop.to_keras(recipe)
    assert written["config"]["learning_rate"]["config"]["decay_steps"] == 50
    with pytest.raises(ConfigError, match="learning_rate.decay_steps: '10%' depends on the run"):
        optax_ext.interop.to_keras(recipe.optimizer)


def test_editors_know_durations():
    schema = config.json_schema()["$defs"]
    (number, text) = schema["cosine_decay"]["properties"]["decay_steps"]["anyOf"]
    assert number["exclusiveMinimum"] == 0
    assert text == {"type": "string", "pattern": PATTERN}
    assert {"$ref": "#/$defs/RatePerBatch"} in schema["sgd"]["properties"]["learning_rate"]["anyOf"]
    assert schema["OptimizationConfig"]["properties"]["run"]["anyOf"][0] == {"$ref": "#/$defs/Run"}
    for words in ("5 epochs", " 10 % ", "300k examples", "100% - 5 epochs + 1 step", "-1_000 steps", "1e3 steps"):
        assert re.search(PATTERN, words)
        assert Duration(words).terms
    for words in ("5", "epochs", "5 epochs 3 steps", "5 epochs -", "5 minutes", "1__0 steps", "1_ steps", "5ksteps"):
        assert not re.search(PATTERN, words)
        with pytest.raises(ValueError, match="."):
            Duration(words)
