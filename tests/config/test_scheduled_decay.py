"""A schedule for the weight decay of a recipe: at each step, what a number is; counted, written and said."""

import inspect

import chex
import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config

PARAMS = {"kernel": jnp.array([[3.0, -4.0], [0.5, 1.0]]), "bias": jnp.array([1.0, 0.5])}
RATES = (0.0, 0.5, 0.125)
JUMPING = optax_ext.PiecewiseConstantDecay([0, 1], RATES)
FALLING = optax_ext.PolynomialDecay(0.25, 4, 0.0625)
DINO = optax_ext.StepCosineDecay([0, 1000], [0.04, 0.4])
APART = {"weight_decay_times_learning_rate": False}
IN_GRADIENT = {"weight_decay_in_gradient": True, "exclude_from_weight_decay": ["bias"]}
CASES = [
    (config.SGD, {"learning_rate": FALLING, "momentum": 0.75}),
    (config.SGD, APART),
    (config.SGD, IN_GRADIENT),
    (config.LARS, {"exclude_from_weight_decay": ["bias"]}),
    (config.LARS, {"classic_momentum": False}),
    (config.LARS, {"separate_norms": True, "exclude_from_weight_decay": ["bias"], "exclude_from_layer_adaptation": []}),
    (config.LAMB, {"exclude_from_weight_decay": ["bias"]}),
    (config.LAMB, {"decoupled_weight_decay": True, "learning_rate": FALLING}),
    (config.AdamW, {"include_in_weight_decay": ["kernel"], "exclude_from_weight_decay": ["."]}),
    (config.AdamW, APART),
    (config.RMSprop, IN_GRADIENT),
    (config.Adagrad, {}),
    (config.Adadelta, {}),
    (config.Adamax, {}),
    (config.Nadam, {"exclude_from_weight_decay": ["bias"]}),
    (config.Ftrl, {}),
    (config.Ftrl, APART),
    (config.Lion, {"decay": 0.5}),
    (config.Adafactor, {}),
    (config.Muon, {}),
    (config.ScheduleFreeAdamW, {"warmup_steps": 2}),
]


def make(cls, options, rate):
    given = {"learning_rate": 0.25, "weight_decay_rate": rate, **options}
    return cls(**given | ({"adam_weight_decay": rate} if cls is config.Muon else {}))


def grads_of(step):
    return jax.tree.map(lambda p: jnp.sin(p * (step + 1)), PARAMS)


def test_every_optimizer_with_weight_decay_is_tested_here():
    ours = [cls for name in config.__all__ if inspect.isclass(cls := getattr(config, name))]
    assert {cls for cls, _ in CASES} == {cls for cls in ours if hasattr(cls, "weight_decay_rate")}


@pytest.mark.parametrize(
    ("cls", "options"), CASES, ids=lambda value: "-".join(value) if isinstance(value, dict) else value.type
)
def test_each_step_is_that_of_the_number(cls, options):
    # The first number is not 0 but too small to count, since a recipe whose decay is 0 has no stage of it.
    by_number = [make(cls, options, rate or 2.0**-100).make() for rate in RATES]
    tx, params = make(cls, options, JUMPING).make(), PARAMS
    state, expected_state = tx.init(params), by_number[0].init(params)
    for step, other in enumerate(by_number):
        updates, state = tx.update(grads_of(step), state, params)
        expected, expected_state = other.update(grads_of(step), expected_state, params)
        chex.assert_trees_all_close(updates, expected, rtol=2e-6, atol=1e-7)
        params = optax.apply_updates(params, updates)
    assert 3 in [int(count) for _, count in optax.tree.get_all_with_path(state, "count")]


def test_it_is_optaxs_weight_decay_with_its_state():
    adamw = config.AdamW(0.25, weight_decay_rate=DINO, epsilon_hat=False, round_betas=False, gradient_clip_norm=0.0)
    expected_tx = optax.chain(
        optax.scale_by_adam(eps=1e-7), optax.add_decayed_weights(DINO), optax.scale_by_learning_rate(0.25)
    )
    tx, params = adamw.make(), PARAMS
    state, expected_state = tx.init(params), expected_tx.init(params)
    assert jax.tree.structure(state[1].inner_state) == jax.tree.structure(expected_state[1])
    for step in range(3):
        updates, state = tx.update(grads_of(step), state, params)
        expected, expected_state = expected_tx.update(grads_of(step), expected_state, params)
        chex.assert_trees_all_close(updates, expected, rtol=1e-5)
    assert state[1].inner_state.count == expected_state[1].count == 3


@pytest.mark.parametrize("cls", [config.SGD, config.LARS, config.AdamW, config.Adafactor])
def test_bfloat16_stays_and_nothing_is_traced_again(cls):
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    tx = cls(0.25, weight_decay_rate=FALLING).make()
    state = tx.init(params)
    step = jax.jit(lambda grads, state, params: tx.update(grads, state, params))
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(state)]
    for _ in range(3):
        updates, state = step(params, state, params)
        params = optax.apply_updates(params, updates)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(updates)} == {"bfloat16"}
    assert [leaf.dtype for leaf in jax.tree.leaves(state)] == dtypes
    assert step._cache_size() == 1


def test_a_skipped_step_does_not_count():
    recipe = config.OptimizationConfig(config.SGD(0.25, weight_decay_rate=JUMPING), config.FixedLossScale(1.0))
    tx = recipe.make()
    state = tx.init(PARAMS)
    _, state = tx.update(jax.tree.map(lambda p: p * jnp.nan, PARAMS), state, PARAMS)
    assert optax.tree.get_all_with_path(state, "count")[0][1] == 0


def test_round_trip_and_json_schema(tmp_path):
    validator = jsonschema.Draft202012Validator(config.json_schema())
    for optimizer in (
        config.LARS(0.1, weight_decay_rate=optax_ext.LinearWarmup(DINO, 10)),
        config.Muon(0.1, weight_decay_rate=DINO, adam_weight_decay=FALLING),
    ):
        recipe = config.OptimizationConfig(optimizer)
        data = config.to_dict(recipe)
        assert config.from_dict(data) == recipe
        validator.validate(data)
        config.save(recipe, tmp_path / "recipe.yaml")
        assert config.load(tmp_path / "recipe.yaml") == recipe
        assert hash(config.load(tmp_path / "recipe.yaml")) == hash(recipe)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1, "weight_decay_rate: must be greater than or equal to 0, got -1"),
        (True, "weight_decay_rate: must be a number or a schedule, got True"),
        ("0.1", "weight_decay_rate: must be a number or a schedule, got '0.1'"),
        (float("nan"), "weight_decay_rate: must be a finite number, got nan"),
        (
            {"type": "constant", "learning_rate": -1},
            "weight_decay_rate.learning_rate: must be greater than or equal to 0",
        ),
        ({"type": "cosine"}, "weight_decay_rate.type: unknown type 'cosine'"),
        (optax.constant_schedule(0.1), r"weight_decay_rate: .* got the Optax schedule constant_schedule\(...\)"),
    ],
)
@pytest.mark.parametrize("cls", [config.LARS, config.Lion])
def test_what_is_wrong_is_said(cls, value, message):
    with pytest.raises(config.ConfigError, match=message):
        cls(0.1, weight_decay_rate=value)


@pytest.mark.parametrize("field", ["momentum", "eeta", "clipnorm", "decay"])
def test_other_numbers_say_that_they_take_no_schedule(field):
    for value in (DINO, {"type": "constant", "learning_rate": 0.1}):
        with pytest.raises(config.ConfigError, match=rf"{field}: must be a number, got .*: it takes no schedule"):
            config.LARS(**{"learning_rate": 0.1, field: value})


def test_words_say_which_schedule_and_its_values():
    said = "step_cosine_decay (0.04 at step 0, 0.4 at step 1000)"

    def effects(optimizer):
        return {stage.name: stage.effect for stage in optimizer.stages()}

    assert effects(config.AdamW(0.1, weight_decay_rate=DINO))["weight decay"] == f"add {said} x parameter"
    adamw = config.AdamW(0.1, weight_decay_rate=DINO, weight_decay_times_learning_rate=False)
    assert effects(adamw)["weight decay"] == f"subtract {said} x parameter"
    lion = config.Lion(0.1, weight_decay_rate=DINO, exclude_from_weight_decay=["bias"])
    expected = f"subtract the learning rate x {said} x parameter, except where a path has 'bias'"
    assert effects(lion)["weight decay"] == expected
    lars = effects(config.LARS(0.1, weight_decay_rate=DINO, separate_norms=True))["weight decay and trust ratio"]
    assert lars.startswith(f"add {said} x parameter, and scale each layer by 0.001 x norm of parameter / (norm of grad")
    assert f"(norm of gradient + {said} x norm of parameter)" in lars
    muon = effects(config.Muon(0.1, weight_decay_rate=DINO, adam_weight_decay=0.25))["weight decay"]
    assert f"rate x {said} x parameter of matrices, and the learning rate x 0.25 x parameter of everything" in muon


def test_a_schedule_that_is_zero_throughout_does_nothing():
    never = optax_ext.Constant(0.0)
    assert [stage.name for stage in config.SGD(0.1, weight_decay_rate=never).stages()] == ["learning rate"]
    for optimizer in (config.LARS(0.1, weight_decay_rate=never), config.AdamW(0.1, weight_decay_rate=never)):
        stage = next(stage for stage in optimizer.stages() if stage.name == "weight decay")
        assert stage.does_nothing
        updates, _ = stage.transformation.update(PARAMS, stage.transformation.init(PARAMS), PARAMS)
        chex.assert_trees_all_equal(updates, PARAMS)


def test_a_recipe_may_be_made_inside_jit():
    @jax.jit
    def first_update(params):
        tx = config.SGD(0.5, weight_decay_rate=FALLING).make()
        return tx.update(params, tx.init(params), params)[0]

    np.testing.assert_allclose(first_update(PARAMS)["bias"], -(0.5 + 0.5 * 0.25) * PARAMS["bias"], rtol=1e-6)


def test_durations_are_those_of_the_run():
    rising = {"type": "step_cosine_decay", "boundaries": [0, "100%"], "values": [0.04, 0.4]}
    optimizer = {"type": "adamw", "learning_rate": 0.1, "weight_decay_rate": rising}
    recipe = config.from_dict({"optimizer": optimizer, "run": {"steps": 1000}})
    resolved = config.resolve(recipe).optimizer
    assert resolved == config.AdamW(0.1, weight_decay_rate=DINO)
    assert [stage.effect for stage in recipe.stages()] == [stage.effect for stage in resolved.stages()]
    chex.assert_trees_all_equal(recipe.make().init(PARAMS), resolved.make().init(PARAMS))
    with pytest.raises(
        config.ConfigError, match=r"weight_decay_rate.boundaries.1: '100%' depends on the run, and there"
    ):
        recipe.optimizer.make()
    words = {stage.name: stage.effect for stage in recipe.optimizer.stages()}  # as far as they are known without a run
    assert words["weight decay"] == "add step_cosine_decay x parameter"
