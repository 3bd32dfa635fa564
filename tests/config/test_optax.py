"""Any optimizer of Optax as data: what the installed Optax has, by its signatures, and what Optax makes of it."""

import copy
import dataclasses
import inspect
import json
import pickle
import subprocess
import sys
from pathlib import Path

import chex
import cloudpickle
import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import optax
import optax.contrib
import pytest
import yaml

import optax_ext
from optax_ext import config
from optax_ext._core.tagged import members
from optax_ext.config import ConfigError, _optax_aliases
from optax_ext.config._optax_aliases import aliases, others
from tests.marks import slow_unless

ROOT = Path(optax_ext.__file__).parents[1]
SCHEDULE = optax_ext.LinearWarmup(optax_ext.CosineDecay(0.25, 20), 4)
PARAMS = {
    "kernel": jnp.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]]),
    "bias": jnp.array([[1.0, -0.5, 0.125], [0.25, 2.0, -1.0]]),
}
GRADS = jax.tree.map(lambda p: jnp.sin(3 * p), PARAMS)
# What these need besides, in Python and in `update`.
NEEDED = {
    "dpsgd": {"l2_norm_clip": 1.0, "noise_multiplier": 0.5, "seed": 1},
    "noisy_sgd": {"key": 1},
}
# Those whose first use compiles little, and whose arguments are of all kinds; the walk through all of them is slow.
QUICK = ("adamw", "lion", "sgd", "rmsprop", "noisy_sgd", "optimistic_adam_v2", "ademamix", "momo", "prodigy", "signum")
# Functions of both modules that make transformations, without saying so, and are no optimizers.
SILENT = {"hutchinson_estimator_diag_hessian"}


def loss(params, *_):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


def extra_args(name, grads, value=2.0):
    if name in ("polyak_sgd", "momo", "momo_adam"):
        return {"value": jnp.float32(value)}
    if name == "lbfgs":
        return {"value": jnp.float32(value), "grad": grads, "value_fn": loss}
    return {"obj_fn": loss} if name == "sophia" else {}


def times(tree, factor, dtype=jnp.float32):
    return jax.tree.map(lambda leaf: (leaf * jnp.float32(factor)).astype(dtype), tree)


def options_of(name):
    has_rate = "learning_rate" in {argument.name for argument in aliases()[name].arguments}
    return NEEDED.get(name, {}) | ({"learning_rate": 0.125} if has_rate and name != "lbfgs" else {})


def problems(name, **options):
    with pytest.raises(ConfigError) as raised:
        config.from_dict({"type": "optax", "name": name, **options})
    return [str(problem) for problem in raised.value.problems]


def first_update(tx, params, grads, **extra):
    tx = optax.with_extra_args_support(tx)
    return tx.update(grads, tx.init(params), params, **extra)


# ---------------------------------------------------------------------------------------------------------
# What Optax has


def test_every_optimizer_of_optax_is_known_or_is_told_why_not():
    assert len(aliases()) >= 45
    for module in (optax, optax.contrib):
        for name, function in vars(module).items():
            if name.startswith("_") or not callable(function) or isinstance(function, type):
                continue
            home = getattr(getattr(function, "func", function), "__module__", "")
            made = str(inspect.signature(function).return_annotation) if inspect.isfunction(function) else ""
            if home.startswith("optax") and ("alias" in home or "GradientTransformation" in made):
                assert (name in aliases()) != (name in others()), name
            if home.endswith("alias"):
                assert name in aliases(), name
    contributed = {name for name in vars(optax.contrib) if name.islower() and not name.startswith("_")}
    functions = {name for name in contributed if inspect.isfunction(getattr(optax.contrib, name))}
    assert functions - {*aliases()} - {*others()} - SILENT == {"schedule_free_eval_params"}


@pytest.mark.parametrize(
    ("name", "said"),
    {
        "sam": "optax.contrib.sam wraps other transformations, which cannot stand in a recipe: wrap what make()",
        "chain": "optax.chain wraps other transformations",
        "partition": "optax.partition wraps other transformations",
        "inject_hyperparams": "optax.inject_hyperparams wraps other transformations",
        "scale_by_adam": "optax.scale_by_adam is a part of optimizers",
        "reduce_on_plateau": "optax.contrib.reduce_on_plateau has no learning rate",
    }.items(),
)
def test_what_is_no_optimizer_is_told_why(name, said):
    (problem,) = problems(name)
    assert problem.startswith(f"name: must be an optimizer of Optax, got {name!r}: {said}")


@pytest.mark.parametrize("name", sorted(aliases()))
def test_every_optimizer_goes_round(name):
    optimizer = config.Optax(name, **options_of(name))
    assert isinstance(optimizer, config.Optax)
    data = config.to_dict(optimizer)
    assert data == {"type": "optax", "name": name} | data
    VALIDATOR.validate(data)
    for written in (data, config.to_dict(optimizer, exclude_defaults=True)):
        assert config.from_dict(written) == optimizer
        assert config.from_dict(json.loads(json.dumps(written))) == optimizer
        assert config.from_dict(yaml.safe_load(yaml.safe_dump(written))) == optimizer
    for twin in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer), dataclasses.replace(optimizer)):
        assert twin == optimizer
        assert type(twin) is type(optimizer)
        assert hash(twin) == hash(optimizer)
    assert eval(repr(optimizer), vars(config)) == optimizer
    signature = inspect.signature(aliases()[name].function)
    for argument in aliases()[name].arguments:
        default = options_of(name).get(argument.name, signature.parameters[argument.name].default)
        if argument.accepted is not None and isinstance(default, float | int | str | tuple):
            expected = None if "mask" in argument.name else default  # True of a mask is the same
            assert getattr(optimizer, argument.name) == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Optax, for some of its own optimizers
@pytest.mark.parametrize("name", slow_unless(lambda name: name in QUICK, sorted(aliases())))
def test_every_optimizer_is_what_optax_makes(name):
    """`pytest -m "slow or not slow" tests/config/test_optax.py`: all 49 of Optax 0.2.7 and 0.2.8 passed."""
    options, grads = options_of(name), GRADS
    if name == "dpsgd":
        grads = jax.tree.map(lambda g: jnp.stack([g, -2 * g]), grads)
    ours = config.Optax(name, **options).make()
    theirs = aliases()[name].function(**options)
    extra = extra_args(name, grads)
    updates, (state,) = first_update(ours, PARAMS, grads, **extra)
    expected, expected_state = first_update(theirs, PARAMS, grads, **extra)
    chex.assert_trees_all_equal(updates, expected)
    chex.assert_trees_all_equal(_numbers(state), _numbers(expected_state))


def _numbers(state):
    """Leave out random keys, whose numbers chex does not read."""
    return [leaf for leaf in jax.tree.leaves(state) if not jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key)]


RANDOM = ("dpsgd", "noisy_sgd", "sophia")  # whose random numbers depend on the tree


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", sorted({*aliases()} - {*RANDOM}))
def test_those_that_see_whole_parameters_are_known(name):
    """`pytest -m slow tests/config/test_optax.py`: 46 passed with Optax 0.2.7 and 0.2.8, on JAX 0.8, 0.10 and 0.12."""
    scale = jnp.linspace(0.5, 1.5, 129)
    first = {"small": jnp.tile(PARAMS["kernel"], (64, 43)) * scale, "large": jnp.tile(PARAMS["bias"], (64, 43)) * 4}
    tx = config.Optax(name, **(options_of(name) | ({"rank": 2} if name == "galore" else {}))).make()

    def updates_of_two_steps(params):
        state, found = tx.init(params), []
        for _ in range(2):
            grads = jax.tree.map(lambda p: jnp.sin(3 * p), params)
            # A loss that does not vanish beside the inner products to which momo adds it.
            updates, state = tx.update(grads, state, params, **extra_args(name, grads, 1e5))
            params = optax.apply_updates(params, updates)
            found.append(updates)
        return found

    apart = np.stack([np.stack([both["small"], both["large"]]) for both in updates_of_two_steps(first)])
    stacked = updates_of_two_steps({"both": jnp.stack([first["small"], first["large"]])})
    stacked = np.stack([both["both"] for both in stacked])
    far = np.mean(np.abs(apart - stacked)) / np.mean(np.abs(apart))
    assert (far > 0.01) == aliases()[name].sees_whole_parameters
    assert not 0.002 < far < 0.01


def test_an_optax_without_an_optimizer_says_so(monkeypatch):
    monkeypatch.delattr(optax, "lion")
    monkeypatch.delattr(optax, "adan")
    _optax_aliases._read.cache_clear()
    try:
        (problem,) = problems("adan", learning_rate=0.1)
        version = optax.__version__
        start = f"name: unknown optimizer of Optax {version}, got 'adan' (did you mean 'adam'?), accepted: 'acprop'"
        assert problem.startswith(start)
        assert "'lion'" not in problem
    finally:
        monkeypatch.undo()
        _optax_aliases._read.cache_clear()
    assert config.Optax("adan", learning_rate=0.1).name == "adan"


# ---------------------------------------------------------------------------------------------------------
# Errors

MASK = "must be {include: [patterns]}, {exclude: [patterns]}, or both, got"
WRONG = [
    ("loin", {}, "name: unknown optimizer of Optax 0.", "got 'loin' (did you mean 'lion'?), accepted: 'acprop', "),
    ("optax.contrib.muon", {}, "name: unknown optimizer of Optax 0.", "(did you mean 'muon'?), accepted"),
    (3, {}, "name: unknown optimizer of Optax 0.", "got 3, accepted: 'acprop', 'adabelief'"),
    ("lion", {"learning_rate": -1}, "learning_rate: must be greater than or equal to 0, got -1", ""),
    ("lion", {"learning_rate": None}, "learning_rate: must be a number or a schedule, got None", ""),
    ("lion", {"learning_rate": "0.1"}, "learning_rate: must be a number or a schedule, got '0.1'", ""),
    ("lion", {"b1": 9}, "b1: must be less than or equal to 1, got 9", ""),
    ("lion", {"b1": float("nan")}, "b1: must be a finite number, got nan", ""),
    ("lion", {"beta_1": 0.9}, "beta_1: unknown field (did you mean 'b1'?), accepted: name, learning_rate, b1, b2,", ""),
    ("lion", {"beta1": 0.9}, "beta1: unknown field (did you mean 'b1'?), accepted: name, learning_rate, b1, b2,", ""),
    ("lion", {"weight_decay": -1.0}, "weight_decay: must be greater than or equal to 0, got -1.0", ""),
    ("lion", {"mu_dtype": "int8"}, "mu_dtype: must be 'bfloat16', 'float16' or 'float32', got 'int8'", ""),
    ("lion", {"mask": ["bias"]}, f"mask: {MASK} ('bias',): write {{exclude: ['bias']}}", "all parameters but these"),
    ("lion", {"mask": "bias"}, f"mask: {MASK} 'bias': write {{exclude: ['bias']}} for all", ""),
    ("lion", {"mask": {}}, f"mask: {MASK} {{}}", ""),
    ("lion", {"mask": {"excude": ["a"]}}, "mask.excude: unknown field (did you mean 'exclude'?)", ""),
    ("lion", {"mask": {"exclude": ["a("]}}, "mask.exclude.0: must be a regular expression, got 'a('", ""),
    ("lion", {"clipnorm": -1}, "clipnorm: must be greater than or equal to 0, got -1", ""),
    ("sgd", {"nesterov": 1}, "nesterov: must be true or false, got 1", ""),
    ("sgd", {"momentum": True}, "momentum: must be a number, got True", ""),
    (
        "sm3",
        {"learning_rate": {"type": "constant"}},
        "learning_rate: must be a number, or a mapping of value, per_batch",
        "",
    ),
    ("lamb", {"stacked_axes": 0}, "stacked_axes: must be null for optax.lamb, which knows parameters as a whole", ""),
    ("galore", {"rank": -1}, "rank: must be greater than or equal to 0, got -1", ""),
    ("galore", {"update_proj_gap": 0}, "update_proj_gap: must be greater than 0, got 0", ""),  # NaN in Optax
    ("galore", {"rank": 2.5}, "rank: must be an integer, got 2.5", ""),
    ("adopt", {"clip_value_fn": abs}, "clip_value_fn: must be left out: it is a function, or a tree, which cannot", ""),
    ("lbfgs", {"linesearch": None}, "linesearch: must be left out: it is a transformation, which cannot stand", ""),
    ("noisy_sgd", {"seed": 1}, "seed: must be left out: it is deprecated by Optax: write key", ""),
    ("polyak_sgd", {"variant": "sps-"}, "variant: must be 'sps' or 'sps+', got 'sps-'", ""),
    ("prodigy", {"betas": [0.9]}, "betas.1: is required", ""),
    ("prodigy", {"betas": [0.9, 1.5]}, "betas.1: must be less than or equal to 1, got 1.5", ""),
    ("dog", {"init_step": ["guess", 1]}, "init_step.0: must be 'distance', 'learning_rate' or 'heuristic', got", ""),
    (
        "muon",
        {"ns_coeffs": [1, 2]},
        "ns_coeffs: must be a list of 3: a number, a number, a number, or a list, each",
        "",
    ),
    ("schedule_free_sgd", {"warmup_steps": 0}, "warmup_steps: must be greater than 0, got 0", ""),
]


@pytest.mark.parametrize(
    ("name", "options", "start", "inside"), WRONG, ids=[str(number) for number in range(len(WRONG))]
)
def test_wrong_arguments_are_named_with_what_is_accepted(name, options, start, inside):
    known = options_of(name) if name in aliases() else {}
    (problem,) = problems(name, **(known | options))
    assert problem.startswith(start)
    assert inside in problem


def test_all_problems_come_at_once_in_python_as_from_data():
    with pytest.raises(ConfigError) as raised:
        config.Optax("lion", b1=9, clipvalue=-1, mask={"include": "b"}, beta_2=1)
    assert raised.value.subject == "Optax"
    said = [str(problem) for problem in raised.value.problems]
    assert [line.partition(":")[0] for line in said] == ["learning_rate", "b1", "mask.include", "clipvalue", "beta_2"]
    assert said == problems("lion", b1=9, clipvalue=-1, mask={"include": "b"}, beta_2=1)
    with pytest.raises(ConfigError, match=r"optimizer\.b1: must be less than"):
        config.from_dict({"optimizer": {"type": "optax", "name": "lion", "learning_rate": 0.1, "b1": 9}})
    assert config.Optax("sgd", 0.1, 0.9, True) == config.Optax("sgd", learning_rate=0.1, momentum=0.9, nesterov=True)
    with pytest.raises(ConfigError, match=r"takes 7 arguments by position \(name, learning_rate, .*, got also True"):
        config.Optax("adam", 0.1, 0.9, 0.999, 1e-8, 0.0, None, True)
    with pytest.raises(ConfigError, match="name: is required: one of 'acprop', "):
        config.Optax(learning_rate=0.1)
    with pytest.raises(ConfigError, match="name: must be 'lion', got 'adamw'"):
        dataclasses.replace(config.Optax("lion", 0.1), name="adamw")


def test_a_rate_of_zero_is_warned_of():
    with pytest.warns(UserWarning, match=r"optax\.lion: learning_rate \(a constant 0\) is 0 at every step"):
        config.Optax("lion", 0.0)


# ---------------------------------------------------------------------------------------------------------
# Its class


def test_the_classes_of_optimizers_take_no_tag_and_no_place():
    optimizer = config.Optax("lion", 1e-4)
    assert members(config.UpdateRule)["optax"] is config.Optax
    assert type(optimizer) is not config.Optax
    assert type(optimizer) is type(config.Optax("lion", learning_rate=0.1))
    assert repr(optimizer) == "Optax(name='lion', learning_rate=0.0001)"
    assert optimizer != config.Optax("lion", 1e-4, b1=0.5)
    assert optimizer != config.Optax("signum", 1e-4)
    assert cloudpickle.loads(cloudpickle.dumps(optimizer)) == optimizer
    assert config.from_dict(config.to_dict(optimizer), config.Optax) == optimizer
    names = list(inspect.signature(config.Optax).parameters)
    assert names == ["name", "positional", "arguments"]


def test_a_class_that_derives_from_it_adds_its_fields():
    @dataclasses.dataclass(frozen=True, init=False)
    class Noted(config.Optax):
        type = "tested_noted_optax"
        note: str = dataclasses.field(default="", kw_only=True)

    noted = config.from_dict({"type": "tested_noted_optax", "name": "lion", "learning_rate": 0.1, "note": "first"})
    assert isinstance(noted, Noted)
    assert (noted.note, noted.b1) == ("first", 0.9)
    assert config.from_dict(config.to_dict(noted)) == noted == copy.copy(noted)
    other = config.from_dict({"type": "tested_noted_optax", "name": "sign_sgd", "learning_rate": 0.1})
    assert members(config.UpdateRule)["tested_noted_optax"] is Noted
    assert isinstance(other, Noted)


def test_numbers_and_dtypes_of_jax_are_taken():
    lion = config.Optax("lion", np.float32(0.5), b1=jnp.float32(0.5), mu_dtype=jnp.bfloat16)
    assert config.to_dict(lion, exclude_defaults=True) == {
        "type": "optax",
        "name": "lion",
        "learning_rate": 0.5,
        "b1": 0.5,
        "mu_dtype": "bfloat16",
    }
    _, (state,) = first_update(lion.make(), PARAMS, GRADS)
    assert state[0].mu["kernel"].dtype == jnp.bfloat16
    assert config.Optax("adafactor").dtype_momentum == "float32"
    with pytest.raises(ConfigError, match=r"mask: must be \{include.* got a function: a recipe is data"):
        config.Optax("lion", 0.1, mask=optax_ext.path_mask(exclude=["bias"]))


# ---------------------------------------------------------------------------------------------------------
# What it does


def test_masks_are_those_of_the_patterns():
    tree = {"kernel": True, "bias": False}
    for mask in ({"exclude": ["bias"]}, {"include": ["kernel", "bias"], "exclude": ["^b"]}, {"include": ["kernel"]}):
        adamw = config.Optax("adamw", learning_rate=0.5, weight_decay=0.5, mask=mask)
        updates, _ = first_update(adamw.make(), PARAMS, GRADS)
        expected, _ = first_update(optax.adamw(0.5, weight_decay=0.5, mask=tree), PARAMS, GRADS)
        chex.assert_trees_all_equal(updates, expected)
        assert adamw.masks()["mask"](PARAMS) == tree
    everywhere, _ = first_update(optax.adamw(0.5, weight_decay=0.5), PARAMS, GRADS)
    assert (everywhere["bias"] != expected["bias"]).any()


def test_ranks_in_masks_are_of_layers_and_patterns_must_match():
    ranks = config.Optax("adamw", 0.1, mask={"exclude": ["rank <= 1"]}, stacked_axes={"bias": 0}, clipnorm=1.0)
    assert ranks.masks()["mask"](PARAMS) == {"kernel": True, "bias": False}
    assert "the rank of a layer is at most 1" in ranks.stages()[-1].effect
    wrong = config.Optax("adamw", 0.1, mask={"exclude": ["biass"]})
    with pytest.raises(ValueError, match="'biass'"):
        wrong.make().init(PARAMS)
    dataclasses.replace(wrong, allow_unmatched=True).make().init(PARAMS)


def test_both_masks_of_lars_are_passed_and_none_is_every_parameter():
    options = {"learning_rate": 0.5, "weight_decay": 0.5}
    lars = config.Optax("lars", **options, trust_ratio_mask={"exclude": ["bias"]})
    updates, _ = first_update(lars.make(), PARAMS, GRADS)
    expected, _ = first_update(optax.lars(**options, trust_ratio_mask={"kernel": True, "bias": False}), PARAMS, GRADS)
    chex.assert_trees_all_equal(updates, expected)
    assert [(field.field, field.includes) for field in lars.pattern_fields()] == [("trust_ratio_mask.exclude", False)]


def test_schedules_are_passed_and_rates_are_told():
    sgd = config.Optax("sgd", SCHEDULE, momentum=0.5)
    ours, theirs = sgd.make(), optax.sgd(SCHEDULE, momentum=0.5)
    state, expected_state = ours.init(PARAMS), theirs.init(PARAMS)
    for step in range(3):
        updates, state = ours.update(GRADS, state, PARAMS)
        expected, expected_state = theirs.update(GRADS, expected_state, PARAMS)
        chex.assert_trees_all_equal(updates, expected)
        assert sgd.learning_rate_at(step) == SCHEDULE(step)
    assert sgd.milestones() == SCHEDULE.milestones()
    assert sgd.in_words() == "optax.sgd with linear_warmup, then cosine_decay"
    decaying = config.Optax("adamw", 0.1, weight_decay=SCHEDULE)
    assert "weight_decay linear_warmup, then cosine_decay (0 at step 0, " in decaying.stages()[0].effect
    assert config.Optax("ademamix", 0.1, b3=optax_ext.Constant(0.5), alpha=SCHEDULE).alpha == SCHEDULE


def test_rates_are_those_that_the_optimizer_has():
    warm = config.Optax("schedule_free_sgd", 0.5, warmup_steps=4)
    by_optax = optax.warmup_constant_schedule(0.0, 0.5, 4)
    np.testing.assert_allclose(warm.learning_rate_at(jnp.arange(6)), jax.vmap(by_optax)(jnp.arange(6)), rtol=1e-6)
    assert [tuple(milestone) for milestone in warm.milestones()] == [(4, "end of warmup_steps")]
    for without in (config.Optax("polyak_sgd"), config.Optax("adafactor"), config.Optax("lbfgs")):
        assert without.learning_rates() == {}
        assert without.milestones() == ()
        assert without.in_words() == f"optax.{without.name}"
        with pytest.raises(ValueError, match="must have one learning rate for that, got none"):
            without.learning_rate_at(0)


def test_durations_and_rates_for_a_batch_are_resolved():
    warm = {"type": "optax", "name": "schedule_free_sgd", "warmup_steps": "2 epochs"}
    warm["learning_rate"] = {"value": 0.5, "per_batch": 4}
    recipe = config.from_dict({"optimizer": warm, "run": {"examples": 24, "batch_size": 8}})
    assert config.from_dict(config.to_dict(recipe)) == recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    VALIDATOR.validate(config.to_dict(recipe))
    plain = config.resolve(recipe).optimizer
    assert plain == config.Optax("schedule_free_sgd", 1.0, warmup_steps=6)
    assert recipe.make().init(PARAMS)
    with pytest.raises(ConfigError, match=r"warmup_steps: .*depends on the run"):
        recipe.optimizer.make()
    with pytest.raises(ValueError, match="depends on the run"):
        recipe.optimizer.stages()
    assert problems("lion", learning_rate=0.1, weight_decay=warm["learning_rate"])  # is no rate
    assert config.Optax("sm3", optax_ext.schedules.RatePerBatch(0.5, 4)).learning_rate.per_batch == 4


@pytest.mark.parametrize(
    ("name", "field"), [("adafactor", "decay_offset"), ("galore", "update_proj_gap"), ("sophia", "update_interval")]
)
def test_what_counts_steps_in_optax_takes_durations(name, field):
    recipe = config.Optax(name, **{field: "2 epochs"}, **({} if name == "adafactor" else {"learning_rate": 0.1}))
    VALIDATOR.validate(config.to_dict(recipe))
    assert getattr(config.resolve(recipe, {"steps_per_epoch": 3}), field) == 6


def test_the_rate_can_be_changed_while_it_trains():
    tx = config.Optax("lion", 0.25, clipvalue=1.0).make(hyperparameters=["learning_rate", "clipvalue"])
    state = optax.tree.set(tx.init(PARAMS), learning_rate=jnp.float32(0.5))
    updates, _ = tx.update(GRADS, state, PARAMS)
    chex.assert_trees_all_close(updates, first_update(config.Optax("lion", 0.5).make(), PARAMS, GRADS)[0], rtol=1e-6)
    with pytest.raises(ConfigError, match="b1 is fixed when the transformation is made"):
        config.Optax("lion", 0.25).make(hyperparameters=["b1"])


def test_metrics_tell_the_rate():
    for rate, expected in ((0.25, 0.25), (SCHEDULE, float(SCHEDULE(0)))):
        recipe = config.OptimizationConfig(config.Optax("sgd", rate), config.FixedLossScale(8.0))
        assert optax_ext.metrics(recipe.make().init(PARAMS), recipe)["learning_rate"] == expected
    recipe = config.Optax("polyak_sgd")
    assert "learning_rate" not in optax_ext.metrics(recipe.make().init(PARAMS), recipe)


def test_the_stage_says_all_that_optax_is_given():
    def said(name, **options):
        stage = config.Optax(name, **options).stages()[-1]
        return f"{stage.name}: {stage.effect}"

    assert said("lion", learning_rate=0.1, mask={"include": ["kernel"], "exclude": ["norm"]}) == (
        "optax.lion: learning_rate a constant 0.1, b1 0.9, b2 0.99, weight_decay 0.001, mask only where a path has "
        "'kernel', and there except where a path has 'norm'"
    )
    assert said("sgd", learning_rate=0.1, momentum=0.9, nesterov=True) == (
        "optax.sgd: learning_rate a constant 0.1, momentum 0.9, nesterov"
    )
    assert said("adafactor", multiply_by_parameter_scale=False, clipping_threshold=None).startswith(
        "optax.adafactor: no learning_rate, min_dim_size_to_factor 128, decay_rate 0.8, decay_offset 0, "
        "no multiply_by_parameter_scale, no clipping_threshold, dtype_momentum float32,"
    )
    assert said("prodigy").startswith("optax.contrib.prodigy: learning_rate a constant 1, betas (0.9, 0.999), ")


def test_clipping_comes_first_and_integers_stay():
    sgd = config.Optax("sgd", 1.0, global_clipnorm=1.0)
    assert [stage.name for stage in sgd.stages()] == ["clip by global norm", "optax.sgd"]
    params = {"w": jnp.ones(2), "table": jnp.arange(2)}
    updates, _ = first_update(sgd.make(), params, {"w": jnp.array([3.0, 4.0]), "table": jnp.zeros(2)})
    np.testing.assert_allclose(updates["w"], [-0.6, -0.8], rtol=1e-6)
    np.testing.assert_array_equal(updates["table"], [0, 0])
    axes = config.Optax("adam", 0.1, stacked_axes=3)
    assert axes.stages()[0].does_nothing
    with pytest.raises(ValueError, match="stacked_axes"):
        axes.make().init(params)


@pytest.mark.parametrize("name", slow_unless(lambda name: name == "lion", ["lion", "prodigy", "muon", "adafactor"]))
def test_it_stands_inside_of_all_wrappers(name):
    recipe = config.OptimizationConfig(
        config.Optax(name, learning_rate=0.25, clipvalue=0.75),
        config.DynamicLossScale(initial_scale=2.0**10),
        config.ParamsEma(0.5, dynamic_decay=False),
        master_weights=True,
        accumulate_steps=2,
    )
    assert [stage.name for stage in recipe.stages()][3:5] == ["clip by value", aliases()[name].full_name]
    tx, alone = recipe.make(), optax.chain(optax.clip(0.75), aliases()[name].function(learning_rate=0.25))
    half = jax.tree.map(lambda p: p.astype(jnp.float16), PARAMS)
    state, params = tx.init(half), half
    expected_state, expected = alone.init(PARAMS), PARAMS
    step = jax.jit(tx.update)
    # The means of gradients that count are 1 and 0.5 times these; the overflow halves the scale.
    for factor, scale in ((0.5, 1024), (1.5, 1024), (jnp.inf, 1024), (0.25, 512), (0.75, 512)):
        assert state.loss_scale == scale
        updates, state = step(times(GRADS, factor * scale, jnp.float16), state, params)
        params = optax.apply_updates(params, updates)
    for factor in (1.0, 0.5):
        updates, expected_state = alone.update(times(GRADS, factor), expected_state, expected)
        expected = optax.apply_updates(expected, updates)
    chex.assert_trees_all_close(times(params, 1.0), expected, rtol=4e-3, atol=2e-3)


def test_the_loss_reaches_the_optimizer_through_the_wrappers():
    recipe = config.OptimizationConfig(config.Optax("polyak_sgd"), config.DynamicLossScale(), config.ParamsEma(0.5))
    tx, alone = recipe.make(), optax.polyak_sgd()
    state = tx.init(PARAMS)
    value, grads = optax_ext.value_and_grad(loss, state)(PARAMS)
    updates, state = tx.update(grads, state, PARAMS, value=value)
    expected, _ = alone.update(jax.grad(loss)(PARAMS), alone.init(PARAMS), PARAMS, value=loss(PARAMS))
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)


# ---------------------------------------------------------------------------------------------------------
# The JSON Schema, and when Optax is imported

SCHEMA = config.json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_json_schema_has_a_definition_for_each_optimizer():
    names = {reference["$ref"].rpartition(".")[2] for reference in SCHEMA["$defs"]["optax"]["anyOf"]}
    assert names == {*aliases()}
    lion = SCHEMA["$defs"]["optax.lion"]
    assert (lion["properties"]["type"], lion["properties"]["name"]["const"]) == ({"const": "optax"}, "lion")
    assert lion["required"] == ["type", "name", "learning_rate"]
    assert lion["properties"]["b1"]["default"] == 0.9
    assert lion["properties"]["mask"]["description"].startswith("Patterns on paths")
    assert lion["properties"]["clipnorm"]["description"].startswith("Maximum norm")
    assert not any(":" in field["description"][:6] for field in lion["properties"].values() if "description" in field)


@pytest.mark.parametrize(
    "wrong", [{"name": "loin"}, {"b1": 2}, {"beta_1": 0.5}, {"mask": ["bias"]}, {"mu_dtype": "int8"}, {"rank": 2}]
)
def test_the_json_schema_refuses_what_from_dict_refuses(wrong):
    data = {"type": "optax", "name": "lion", "learning_rate": 0.1, "mask": {"exclude": ["bias"]}}
    VALIDATOR.validate({"optimizer": data})
    assert not VALIDATOR.is_valid({"optimizer": data | wrong})
    with pytest.raises(ConfigError):
        config.from_dict({"optimizer": data | wrong})


def test_a_recipe_without_it_does_not_import_optax():
    script = """
import sys
from optax_ext import config
config.from_dict({"optimizer": {"type": "lion", "learning_rate": 0.1}})
before = "optax" in sys.modules, "jax" in sys.modules
config.from_dict({"optimizer": {"type": "optax", "name": "lion", "learning_rate": 0.1}})
print(*before, "optax" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.split() == ["False", "False", "True"], run.stderr
