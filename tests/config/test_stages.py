"""What optimizers say of themselves is what they do: stages, masks and the rate, against the transformation."""

import dataclasses
import inspect
import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config

PARAMS = {
    "dense": {"kernel": jnp.array([[3.0, -4.0], [0.5, 1.0]]), "bias": jnp.array([1.0, 0.5])},
    "norm": {"scale": jnp.array([2.0, 1.0]), "bias": jnp.array([0.25, -1.0])},
}
SCHEDULE = optax_ext.PolynomialDecay(0.5, 10, 0.125)
FALLING = optax_ext.CosineDecay(0.0625, 10)
OPTIMIZERS = {
    cls
    for name in config.__all__
    if inspect.isclass(cls := getattr(config, name))
    and issubclass(cls, config.Optimizer)
    and cls is not config.Optimizer
}
SHARED = [
    {},
    {"clipvalue": 0.75, "clipnorm": 1.25},
    {"learning_rate": SCHEDULE, "decay": 0.375, "clipvalue": 0.625, "global_clipnorm": 1.5},
    {"clipnorm": 1.25, "stacked_axes": {"kernel": 0, "nowhere": [0, 1]}, "allow_unmatched": True},
    {"stacked_axes": 0},
    {"learning_rate_multipliers": {"bias": 0.375, "norm/scale": 0.0}},
    {"layer_decay": config.LayerDecay(0.625, "kernel", first=["norm"]), "stacked_axes": {"kernel": 0}},
]
LAYERWISE = [
    {"weight_decay_rate": 0.0625, "exclude_from_weight_decay": ["bias"]},
    {"weight_decay_rate": 0.0625, "exclude_from_weight_decay": ["bias", "norm"], "exclude_from_layer_adaptation": []},
    {"exclude_from_layer_adaptation": ["scale"]},
    {"weight_decay_rate": 0.0625, "exclude_from_weight_decay": ["embedding"], "allow_unmatched": True},
    {"weight_decay_rate": 0.0625, "exclude_from_weight_decay": ["rank <= 1"], "exclude_from_layer_adaptation": []},
    {"exclude_from_layer_adaptation": ["rank <= 0", "norm"], "stacked_axes": {"dense": 0, "norm": None}},
    {"min_ratio": 0.0078125, "max_ratio": 1.75, "stacked_axes": {"kernel": [1]}, "record": True},
]
DECAYING = [  # of every optimizer that derives from DecayingOptimizer
    {"weight_decay_rate": 0.0625, "learning_rate": SCHEDULE},
    {"weight_decay_rate": 0.0625, "weight_decay_times_learning_rate": False, "exclude_from_weight_decay": ["bias"]},
    {"exclude_from_weight_decay": ["rank <= 1"]},
    {"weight_decay_rate": FALLING, "learning_rate": SCHEDULE, "exclude_from_weight_decay": ["bias"]},
]
IN_GRADIENT = [  # of every optimizer that derives from GradientDecayingOptimizer
    {"weight_decay_rate": 0.0625, "weight_decay_in_gradient": True, "learning_rate": SCHEDULE},
    {"weight_decay_rate": 0.0625, "weight_decay_in_gradient": True, "exclude_from_weight_decay": ["bias"]},
]
MOMENTS = [{"beta_1": 0.75, "beta_2": 0.875, "epsilon": 0.03125}]
OWN = {
    config.SGD: [
        *DECAYING,
        *IN_GRADIENT,
        {"momentum": 0.625},
        {"momentum": 0.625, "nesterov": True, "weight_decay_rate": 0.0625},
        {"momentum": 0.625, "learning_rate_in_momentum": False, "learning_rate": SCHEDULE},
    ],
    config.LARS: [
        *LAYERWISE,
        {"momentum": 0.0, "weight_decay_rate": 0.0625},
        {"momentum": 0.625, "eeta": 0.03125, "nesterov": True},
        {"weight_decay_rate": 0.0625, "epsilon": 0.03125},
        {"momentum": 0.625, "weight_decay_rate": 0.0625, "classic_momentum": False},
        {"momentum": 0.625, "classic_momentum": False, "nesterov": True},
        {"momentum": 0.625, "learning_rate_in_momentum": False, "learning_rate": SCHEDULE},
        {"weight_decay_rate": 0.0625, "separate_norms": True, "max_ratio": 0.03125},
        {"weight_decay_rate": FALLING, "separate_norms": True, "max_ratio": 0.03125},
        {"separate_norms": True, "min_ratio": 0.0625, "exclude_from_weight_decay": ["bias"], "stacked_axes": 0},
    ],
    config.LAMB: [
        *LAYERWISE,
        *MOMENTS,
        {"decoupled_weight_decay": True, "weight_decay_rate": 0.0625, "exclude_from_weight_decay": ["bias"]},
    ],
    config.Adafactor: [
        *DECAYING,
        {"beta_2_decay": -0.625, "epsilon_1": 0.03125, "epsilon_2": 0.75},
        {"clip_threshold": 0.5, "relative_step": False, "weight_decay_rate": 0.0625, "stacked_axes": 0},
    ],
    config.Muon: [
        *DECAYING,
        {"adam_beta_1": 0.75, "adam_beta_2": 0.875, "epsilon": 0.03125, "adam_lr_ratio": 0.375},
        {"exclude_layers": ["dense"], "adam_weight_decay": 0.0, "rms_rate": None, "exclude_embeddings": False},
        {"weight_decay_rate": 0.0, "adam_weight_decay": 0.0625, "ns_steps": 2, "momentum": 0.625, "rms_rate": 0.75},
        {"weight_decay_rate": 0.0, "adam_weight_decay": 0.0, "exclude_from_weight_decay": ["bias"]},
        {"muon_a": 1.875, "muon_b": -1.25, "muon_c": 0.375, "nesterov": True, "exclude_embeddings": True},
    ],
    config.ScheduleFreeAdamW: [
        *DECAYING,
        {"beta_1": 0.75, "beta_2": 0.875, "epsilon": 0.03125},
        {"warmup_steps": 3, "weight_decay_rate": 0.0625},
    ],
    config.Adam: [*MOMENTS, {"amsgrad": True}, {"epsilon_hat": True, "round_betas": False, "beta_2": 0.875}],
    config.AdamW: [
        *MOMENTS,
        {"epsilon_hat": True, "weight_decay_rate": 0.0625, "weight_decay_times_learning_rate": True},
        {"weight_decay_rate": 0.0625, "weight_decay_times_learning_rate": False, "exclude_from_weight_decay": ["bias"]},
        {"amsgrad": True, "weight_decay_rate": 0.0625, "round_betas": True},
        {"weight_decay_rate": 0.0625, "exclude_from_weight_decay": ["bias", "norm"], "gradient_clip_norm": 0.375},
        {"weight_decay_rate": 0.0625, "include_in_weight_decay": ["norm/bias"], "exclude_from_weight_decay": ["bias"]},
        {"weight_decay_rate": 0.0625, "include_in_weight_decay": ["kernel"], "gradient_clip_norm": 0.0},
        {"weight_decay_rate": 0.0625, "exclude_from_weight_decay": ["rank <= 0"], "stacked_axes": {"dense": 0}},
        {"weight_decay_rate": 0.0625, "exclude_from_weight_decay": ["embedding"], "allow_unmatched": True},
    ],
    config.RMSprop: [
        *DECAYING,
        *IN_GRADIENT,
        {"rho": 0.75, "epsilon": 0.03125},
        {"centered": True},
        {"epsilon_in_root": True},
        {"rho": 0.75, "momentum": 0.625, "epsilon": 0.03125},
        {"momentum": 0.625, "centered": True, "epsilon_in_root": True},
        {"momentum": 0.625, "learning_rate_in_momentum": False, "initial_mean_square": 0.75, "learning_rate": SCHEDULE},
        {"momentum": 0.625, "centered": True, "initial_mean_square": 0.75},
    ],
    config.Adagrad: [
        *DECAYING,
        *IN_GRADIENT,
        {"initial_accumulator_value": 0.25, "epsilon": 0.03125},
        {"epsilon_in_root": True},
    ],
    config.Adadelta: [*DECAYING, *IN_GRADIENT, {"rho": 0.75, "epsilon": 0.03125}],
    config.Adamax: [*DECAYING, *MOMENTS],
    config.Nadam: [*DECAYING, *IN_GRADIENT, *MOMENTS, {"momentum_decay": 0.5}],
    config.Ftrl: [
        *DECAYING,
        {"learning_rate_power": -0.75, "initial_accumulator_value": 0.375, "beta": 0.625},
        {"l1_regularization_strength": 0.375, "l2_regularization_strength": 0.03125},
        {"l2_shrinkage_regularization_strength": 0.03125, "weight_decay_rate": 0.0625},
    ],
    config.Lion: [*DECAYING, {"beta_1": 0.75, "beta_2": 0.875}],
}
# SGD, Adam, LARS and Adagrad stand for what all have.
SIMILAR = tuple(cls for cls in OWN if cls not in (config.SGD, config.Adam, config.LARS, config.Adagrad))
SETTINGS = [
    pytest.param(
        cls,
        {"learning_rate": 0.25} | options,
        id=f"{cls.type}-{number}",
        marks=[pytest.mark.slow] if cls in SIMILAR and options in (*SHARED, *DECAYING[1:]) else [],
    )
    for cls, own in OWN.items()
    for number, options in enumerate([*SHARED, *own])
]
every_setting = pytest.mark.parametrize(("cls", "options"), SETTINGS)


def grads_of(step):
    return jax.tree.map(lambda p: jnp.sin(p * (step + 1)) * (step + 1), PARAMS)


def run_first(stages, grads, params=PARAMS):
    for stage in stages:
        grads, _ = stage.transformation.update(grads, stage.transformation.init(params), params)
    return grads


def words(schema):
    return " | ".join(stage.effect for stage in schema.stages())


def test_every_optimizer_and_every_field_is_tested_here():
    assert set(OWN) == OPTIMIZERS
    for cls, own in OWN.items():
        assert {name for options in [*SHARED, *own] for name in options} | {"learning_rate"} == {
            field.name for field in dataclasses.fields(cls)
        }


# ---------------------------------------------------------------------------------------------------------
# Stages


@every_setting
def test_the_stages_one_after_another_are_what_make_returns(cls, options):
    schema = cls(**options)
    whole, stages = schema.make(), schema.stages()
    assert list(whole.stages) == [stage.name for stage in stages]
    state, states = whole.init(PARAMS), tuple(stage.transformation.init(PARAMS) for stage in stages)
    chex.assert_trees_all_equal(state, states)

    @jax.jit
    def step(grads, state, states):
        updates, state = whole.update(grads, state, PARAMS)
        new = []
        for stage, old in zip(stages, states, strict=True):
            grads, after = stage.transformation.update(grads, old, PARAMS)
            new.append(after)
        return updates, state, grads, tuple(new)

    for number in range(3):
        updates, state, by_stages, states = step(grads_of(number), state, states)
        chex.assert_trees_all_close(updates, by_stages, rtol=1e-6)
        chex.assert_trees_all_close(state, states, rtol=1e-6, atol=1e-6)
    assert jax.tree.structure(state) == jax.tree.structure(states)


@every_setting
def test_the_words_are_words_and_name_the_numbers_and_the_patterns(cls, options):
    schema = cls(**options)
    said = words(schema)
    assert not re.search(r"\w=", said)
    for name, value in options.items():
        if isinstance(value, float) and (value > 0 or name == "momentum"):
            assert re.search(rf"(?<![\d.]){re.escape(f'{value:g}')}(?![\d.]\d)", said), name
        if isinstance(value, list) and options.get("weight_decay_rate") and name == "exclude_from_weight_decay":
            assert all(repr(pattern) in said or (pattern[:4] == "rank" and "the rank" in said) for pattern in value)
        if value is True and name != "allow_unmatched":
            assert words(dataclasses.replace(schema, **{name: False})) != said, name
    for stage in schema.stages():
        assert stage.name
        assert stage.effect
        assert stage.transformation is not None


@every_setting
def test_what_is_said_to_do_nothing_does_nothing_and_nothing_else_does(cls, options):
    schema = cls(**options)
    grads = grads_of(9)  # large enough to be clipped
    for stage in schema.stages():
        mask, tx = schema.masks().get(stage.name), stage.transformation
        if mask is not None and not stage.does_nothing and not any(jax.tree.leaves(mask(PARAMS))):
            continue  # no parameter of these takes part
        state = tx.init(PARAMS)
        for _ in range(2):  # momentum takes a step to begin
            after, state = tx.update(grads, state, PARAMS)
        same = all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), after, grads)))
        assert same == stage.does_nothing, stage


@pytest.mark.parametrize("cls", [config.SGD, config.LARS])
def test_the_rate_stands_inside_the_momentum_or_outside(cls):
    for inside in (True, False):
        schema = cls(SCHEDULE, momentum=0.5, learning_rate_in_momentum=inside)
        last = ["learning rate", "momentum"]
        assert [stage.name for stage in schema.stages()][-2:] == (last if inside else last[::-1])


def test_clipping_happens_in_the_order_of_the_stages():
    schema = config.AdamW(0.1, gradient_clip_norm=1.0, clipvalue=0.7)
    first = [stage.name for stage in schema.stages()][:2]
    assert first == ["clip by gradient_clip_norm", "clip by value"]
    clipped = run_first(schema.stages()[:2], jnp.array([3.0, 4.0]), jnp.ones(2))
    np.testing.assert_allclose(clipped, [0.6, 0.7], rtol=1e-6)
    schema = config.SGD(0.1, clipvalue=3.0, clipnorm=1.0)
    assert [stage.name for stage in schema.stages()][:2] == ["clip by value", "clip by norm"]
    clipped = run_first(schema.stages()[:2], jnp.array([3.0, 4.0]), jnp.ones(2))
    np.testing.assert_allclose(clipped, [0.5**0.5, 0.5**0.5], rtol=1e-6)
    schema = config.SGD(0.1, clipvalue=3.0, global_clipnorm=1.0)
    clipped = run_first(schema.stages()[:2], [jnp.array([3.0]), jnp.array([4.0])], [jnp.ones(1), jnp.ones(1)])
    np.testing.assert_allclose(np.concatenate(clipped), [0.5**0.5, 0.5**0.5], rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"exclude_from_weight_decay": ["bias"]}])
@pytest.mark.parametrize("cls", [config.LARS, config.LAMB, config.AdamW])
def test_each_stage_does_what_its_words_say(cls, options):
    schema = cls(0.25, weight_decay_rate=0.5, **options)
    by_name = {stage.name: stage for stage in schema.stages()}
    assert by_name["weight decay"].effect.startswith("add 0.5 x parameter")
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    decayed = run_first([by_name["weight decay"]], grads)

    def excluded(path):
        return bool(options) and "bias" in jax.tree_util.keystr(path)

    expected = jax.tree_util.tree_map_with_path(lambda path, p: 1 + 0.5 * p * (not excluded(path)), PARAMS)
    chex.assert_trees_all_close(decayed, expected, rtol=1e-6)
    chex.assert_trees_all_close(run_first([by_name["learning rate"]], grads), jax.tree.map(lambda g: -0.25 * g, grads))
    if "trust ratio" not in by_name:
        return
    factor = 0.001 if cls is config.LARS else 1.0

    def trust(path, p):
        return 1.0 + 0 * p if excluded(path) else factor * jnp.linalg.norm(p) / jnp.sqrt(p.size) + 0 * p

    expected = jax.tree_util.tree_map_with_path(trust, PARAMS)
    chex.assert_trees_all_close(run_first([by_name["trust ratio"]], grads), expected, rtol=1e-6)


def test_an_optimizer_of_a_user_must_say_its_stages_and_name_them_apart():
    @dataclasses.dataclass(frozen=True)
    class Silent(config.Optimizer):
        type = "tested_silent_optimizer"

    with pytest.raises(TypeError, match=r"Can't instantiate abstract class Silent .*_stages"):
        Silent(0.1)

    @dataclasses.dataclass(frozen=True)
    class Twice(config.Optimizer):
        type = "tested_twice_optimizer"

        def _stages(self):
            return [config.Stage("clip by value", "halve", optax.scale(0.5))]

    updates, _ = Twice(0.1).make().update(jnp.ones(2), Twice(0.1).make().init(jnp.ones(2)), jnp.ones(2))
    np.testing.assert_array_equal(updates, [0.5, 0.5])
    with pytest.raises(ValueError, match=r"each stage of Twice must .* a name of its own; got .*'clip by value'"):
        Twice(0.1, clipvalue=1.0).make()


# ---------------------------------------------------------------------------------------------------------
# What is around an optimizer


def test_the_stages_of_a_recipe_stand_in_their_order():
    ema = config.ParamsEma(0.875, start_step=7, initial="params")
    recipe = config.OptimizationConfig(config.SGD(0.1), config.DynamicLossScale(), ema, master_weights=True)
    stages = recipe.stages()
    names = ["unscale", "master weights", "learning rate", "ema", "adapt loss scale"]
    assert [stage.name for stage in stages] == names
    assert [stage.transformation is None for stage in stages] == [True, True, False, False, True]
    for said in ("decay 0.875", "lower at first", "starting at the first parameters", "from step 7 on"):
        assert said in stages[3].effect
    plain = config.ParamsEma(dynamic_decay=False).stage().effect
    assert plain == "average the parameters, decay 0.99, starting at 0"
    assert not any(re.search(r"\w=", stage.effect) for stage in stages)
    rising = config.ParamsEma(optax_ext.StepCosineDecay([0, 500], [0.5, 1.0]), debias=True).stage().effect
    by = "by step_cosine_decay (0.5 at step 0, 1 at step 500)"
    assert rising == f"average the parameters, decay {by}, lower at first, starting at 0, debiased"
    assert (
        config.ParamsEma(optax_ext.Constant(0.5))
        .stage()
        .effect.startswith("average the parameters, decay by constant (0.5 at step 0), lower")
    )


def test_a_recipe_without_a_wrapper_is_the_chain_of_its_stages():
    recipe = config.OptimizationConfig(config.SGD(0.25, momentum=0.5), ema=config.ParamsEma(0.875, initial="params"))
    tx, chained = recipe.make(), optax.chain(*(stage.transformation for stage in recipe.stages()))
    updates, state = tx.update(grads_of(0), tx.init(PARAMS), PARAMS)
    expected, expected_state = chained.update(grads_of(0), chained.init(PARAMS), PARAMS)
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)
    chex.assert_trees_all_close(jax.tree.leaves(state), jax.tree.leaves(expected_state), rtol=1e-6)


def test_a_loss_scale_says_whether_it_skips_and_what_it_checks():
    fixed = config.FixedLossScale(16.0, check_updates=True, count_skipped_steps=True).stages()
    assert [stage.effect for stage in fixed] == [
        "divide by the loss scale, always 16; skip the step if any gradient or new parameter is not finite; "
        "it counts as a step nevertheless"
    ]
    first, last = config.DynamicLossScale(2.0**10, 500, 4.0, 0.5).stages()
    assert first.effect == "divide by the loss scale, at first 1024; skip the step if any gradient is not finite"
    assert last.effect == "x 4 after 500 finite steps in a row; / 4 at each skip, down to 0.5"


# ---------------------------------------------------------------------------------------------------------
# Masks


@every_setting
def test_the_masks_are_what_decays_and_adapts(cls, options):
    schema = cls(**options | {"learning_rate": 0.25})
    masks = schema.masks()
    by_name = {stage.name: stage for stage in schema.stages()}
    parts = {part for name in by_name for part in name.split(" and ")}
    assert {field.stage for field in schema.pattern_fields()} == set(masks) <= parts
    for name, mask in masks.items():
        if name not in by_name or by_name[name].does_nothing:
            continue  # as the parts of a stage: its own test tells them apart
        grads = grads_of(0)
        changed = jax.tree.map(lambda a, b: bool((a != b).any()), run_first([by_name[name]], grads), grads)
        assert mask(PARAMS) == changed


def test_what_is_included_decays_whatever_is_excluded():
    schema = config.AdamW(0.1, include_in_weight_decay=["norm/bias"], exclude_from_weight_decay=["bias", "scale"])
    assert schema.masks()["weight decay"](PARAMS) == {
        "dense": {"kernel": True, "bias": False},
        "norm": {"scale": False, "bias": True},
    }
    included, excluded = schema.pattern_fields()
    assert (included.field, included.includes, included.patterns) == ("include_in_weight_decay", True, ("norm/bias",))
    assert (excluded.field, excluded.includes) == ("exclude_from_weight_decay", False)


def test_masks_accept_unmatched_patterns_where_the_optimizer_or_the_caller_does():
    lars = config.LARS(0.1, exclude_from_weight_decay=["embedding"])
    with pytest.raises(ValueError, match="'embedding' matches none"):
        lars.masks()["weight decay"](PARAMS)
    everything = jax.tree.map(lambda _: True, PARAMS)
    assert lars.masks(allow_unmatched=True)["weight decay"](PARAMS) == everything
    allowing = dataclasses.replace(lars, allow_unmatched=True)
    assert allowing.masks()["trust ratio"](PARAMS) == everything
    with pytest.raises(ValueError, match="'embedding' matches none"):
        allowing.masks(allow_unmatched=False)["trust ratio"](PARAMS)


# ---------------------------------------------------------------------------------------------------------
# The rate


@pytest.mark.parametrize("decay", [0.0, 0.375])
@pytest.mark.parametrize("learning_rate", [0.25, SCHEDULE], ids=["number", "schedule"])
def test_the_rate_at_a_step_is_the_one_that_the_step_takes(learning_rate, decay):
    schema = config.SGD(learning_rate, decay=decay)
    steps = jnp.arange(6)
    rates = schema.learning_rate_at(steps)
    assert (rates.dtype, rates.shape, rates.weak_type) == (jnp.float32, (6,), False)
    tx = schema.make()
    state, taken = tx.init(jnp.zeros(())), []
    for step in range(6):
        updates, state = tx.update(jnp.ones(()), state)
        taken.append(-updates)
        assert schema.learning_rate_at(step) == rates[step]
    np.testing.assert_allclose(rates, taken, rtol=1e-6)
    expected = [
        float(learning_rate(s) if callable(learning_rate) else learning_rate) / (1 + decay * s) for s in range(6)
    ]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    recipe = config.OptimizationConfig(schema, config.FixedLossScale(2.0))
    np.testing.assert_array_equal(recipe.learning_rate_at(steps), rates)


def test_only_a_rate_that_changes_counts_steps():
    counts = [
        optax.tree.get(config.SGD(learning_rate, decay=decay).make().init(PARAMS), "count") is not None
        for learning_rate, decay in itertools.product((0.25, SCHEDULE), (0.0, 0.5))
    ]
    assert counts == [False, True, True, True]


def test_a_rate_of_zero_everywhere_gets_a_warning_at_the_line():
    message = r"SGD: learning_rate \(constant\) is 0 at every step, so that no parameter ever moves"
    with pytest.warns(UserWarning, match=message) as warned:
        config.SGD(optax_ext.Constant(0.0))
    assert [warning.filename for warning in warned] == [__file__]
    for cls in OPTIMIZERS:
        with pytest.warns(UserWarning, match=rf"{cls.__name__}: learning_rate \(a constant 0\) is 0 at every step"):
            cls(0.0)
    data = {"optimizer": {"type": "adam", "learning_rate": {"type": "linear_warmup", "after": 0, "warmup_steps": 5}}}
    with pytest.warns(UserWarning, match=r"Adam: learning_rate \(linear_warmup, then a constant 0\) is 0") as warned:
        config.from_dict(data)
    assert [warning.filename for warning in warned] == [__file__]
    config.SGD(optax_ext.LinearWarmup(0.0, 5, warmup_learning_rate=0.5))  # a way down to 0
