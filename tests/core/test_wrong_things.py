"""What people write here out of habit, and what the error tells them to write."""

import dataclasses

import jax.numpy as jnp
import optax
import pytest

import optax_ext
from optax_ext import config
from optax_ext.config import ConfigError

COSINE = {"type": "cosine_decay", "initial_learning_rate": 0.1, "decay_steps": 9}
IN_A_RECIPE = {  # from what is read, with one word of somebody else's, to ours
    ("lars", "trust_coefficient"): "'eeta'",
    ("lars", "weight_decay"): "'weight_decay_rate'",
    ("lars", "weight_decay_mask"): "'exclude_from_weight_decay'",
    ("lars", "lr"): "'learning_rate'",
    ("lars", "allow_unmatched_patterns"): "'allow_unmatched'",
    ("adam", "eps"): "'epsilon'",
    ("adam", "b1"): "'beta_1'",
    ("adam", "b2"): "'beta_2'",
    ("adam", "betas"): "'beta_1' and 'beta_2'",
    ("adamw", "weight_decay"): "'weight_decay_rate'",
    ("rmsprop", "alpha"): "'rho'",
    ("cosine_decay", "init_value"): "'initial_learning_rate'",
    ("cosine_decay", "transition_steps"): "'decay_steps'",
    ("cosine_decay", "peak_value"): "'warmup_target'",
    ("cosine_decay", "T_max"): "'decay_steps'",
    ("cosine_decay", "lr"): "'initial_learning_rate'",
    ("polynomial_decay", "end_value"): "'end_learning_rate'",
    ("linear_warmup", "transition_steps"): "'warmup_steps'",
    ("constant", "init_value"): "'learning_rate'",
    ("dynamic", "growth_interval"): "'growth_steps'",
    ("dynamic", "init_scale"): "'initial_scale'",
    ("dynamic", "backoff_factor"): "'multiplier'",
    ("dynamic", "growth_factor"): "'multiplier'",
    ("fixed", "init_scale"): "'scale'",
}


@pytest.mark.parametrize("case", IN_A_RECIPE, ids=".".join)
def test_a_recipe_with_another_word_is_told_ours(case):
    tag, word = case
    with pytest.raises(ConfigError) as raised:
        config.from_dict({"type": tag, word: 1})
    (unknown,) = (problem for problem in raised.value.problems if problem.path == word)
    assert unknown.message.startswith(f"unknown field (did you mean {IN_A_RECIPE[case]}?), accepted: ")


@pytest.mark.parametrize(
    ("tag", "word"), [("sgd", "trust_coefficient"), ("lars", "b1"), ("adagrad", "betas"), ("cosine_decay", "end_value")]
)
def test_a_word_for_what_is_not_there_suggests_nothing_else(tag, word):
    with pytest.raises(ConfigError) as raised:
        config.from_dict({"type": tag, word: 1})
    assert any(problem.message.startswith("unknown field, accepted: ") for problem in raised.value.problems)


SGD = optax.sgd(0.1)
TO_A_FUNCTION = {
    ("eeta", "'trust_coefficient'"): lambda: optax_ext.lars(0.1, eeta=0.001),
    ("weight_decay_rate", "'weight_decay'"): lambda: optax_ext.lars(0.1, weight_decay_rate=0.001),
    ("exclude_from_weight_decay", "'weight_decay_mask'"): lambda: optax_ext.lars(0.1, exclude_from_weight_decay=["b"]),
    ("lr", "'learning_rate'"): lambda: optax_ext.lars(lr=0.1),
    ("betas", "'b1' and 'b2'"): lambda: optax_ext.lamb(0.1, betas=(0.9, 0.99)),
    ("beta_1", "'b1'"): lambda: optax_ext.lamb(0.1, beta_1=0.9),
    ("epsilon", "'eps'"): lambda: optax_ext.lamb(0.1, epsilon=0.1),
    ("growth_interval", "'growth_steps'"): lambda: optax_ext.dynamic_loss_scaling(SGD, growth_interval=5),
    ("init_scale", "'initial_scale'"): lambda: optax_ext.dynamic_loss_scaling(SGD, init_scale=5.0),
    ("loss_scale", "'scale'"): lambda: optax_ext.fixed_loss_scaling(SGD, loss_scale=5.0),
    ("ema_momentum", "'average_decay'"): lambda: optax_ext.params_ema(ema_momentum=0.9),
    ("momentum", "'average_decay'"): lambda: optax_ext.params_ema(momentum=0.9),
    ("use_num_updates", "'dynamic_decay'"): lambda: optax_ext.params_ema(use_num_updates=True),
    ("update_after_step", "'start_step'"): lambda: optax_ext.params_ema(update_after_step=10),
    ("zero_debias", "'debias'"): lambda: optax_ext.params_ema(zero_debias=True),
    ("allow_unmatched_patterns", "'allow_unmatched'"): lambda: optax_ext.path_mask(allow_unmatched_patterns=True),
}


@pytest.mark.parametrize("words", TO_A_FUNCTION, ids=lambda words: words[0])
def test_a_function_with_another_word_is_told_ours(words):
    given, ours = words
    with pytest.raises(TypeError) as raised:
        TO_A_FUNCTION[words]()
    assert f"has no argument '{given}' (did you mean {ours}?), accepted: " in str(raised.value)


CLASSES = {
    "learning_rate: must be constructed, as CosineDecay(initial": lambda: config.SGD(optax_ext.CosineDecay),
    "after: must be constructed, as CosineDecay(initial": lambda: optax_ext.LinearWarmup(optax_ext.CosineDecay, 5),
    "loss_scale: must be constructed, as DynamicLossScale(initial": lambda: config.OptimizationConfig(
        config.SGD(0.1), loss_scale=config.DynamicLossScale
    ),
    "ema: must be constructed, as ParamsEma(average_decay": lambda: config.OptimizationConfig(
        config.SGD(0.1), ema=config.ParamsEma
    ),
    "must be constructed, as CosineDecay(initial": lambda: config.from_dict(optax_ext.CosineDecay),
    "learning_rate must be a schedule, got the class CosineDecay": lambda: optax_ext.lars(optax_ext.CosineDecay),
    "weight_decay must be a schedule, got the class CosineDecay": lambda: optax_ext.lamb(
        0.1, weight_decay=optax_ext.CosineDecay
    ),
    "inner must be an optax.GradientTransformation, got <class": lambda: optax_ext.dynamic_loss_scaling(config.SGD),
    "average_decay must be a schedule, got the class CosineDecay": lambda: optax_ext.params_ema(optax_ext.CosineDecay),
    "average_decay: must be constructed, as CosineDecay(initial": lambda: config.ParamsEma(optax_ext.CosineDecay),
    "momentum must be a number, got <class": lambda: optax_ext.lars(0.1, momentum=optax_ext.CosineDecay),
}


@pytest.mark.parametrize("message", CLASSES)
def test_a_class_is_refused_where_it_is_given(message):
    with pytest.raises(ValueError, match="got") as raised:
        CLASSES[message]()
    assert message in str(raised.value)


def test_a_recipe_in_place_of_a_transformation_is_told_to_make_one():
    with pytest.raises(ValueError, match=r"got SGD\(learning_rate=0.1\): call its make\(\)"):
        optax_ext.dynamic_loss_scaling(config.SGD(0.1))


def own_schedule(step):
    return 0.1


class Callable:
    def __call__(self, step):
        return 0.1


@pytest.mark.parametrize(
    ("schedule", "name"),
    [
        (optax.cosine_decay_schedule(0.1, 5), "the Optax schedule cosine_decay_schedule(...)"),
        (optax.warmup_cosine_decay_schedule(0.0, 0.1, 5, 10), "the Optax schedule join_schedules(...)"),
        (own_schedule, "the function own_schedule"),
        (Callable(), "the function Callable"),
    ],
)
@pytest.mark.parametrize("place", [config.SGD, lambda rate: optax_ext.LinearWarmup(rate, 5)])
def test_a_function_in_a_recipe_is_told_apart(schedule, name, place):
    with pytest.raises(ConfigError) as raised:
        place(schedule)
    (problem,) = raised.value.problems
    assert problem.message == (
        f"must be a number or a schedule, got {name}: a recipe is data, which a function is not;"
        " use a schedule such as optax_ext.CosineDecay(...), or a Schedule subclass of your own"
    )


def test_a_schedule_that_only_looks_like_a_function_is_one():
    @dataclasses.dataclass(frozen=True)
    class OwnSchedule(optax_ext.Schedule):
        def __call__(self, step):
            return jnp.float32(0.1)

    assert config.SGD(OwnSchedule()).learning_rate == OwnSchedule()
    assert config.SGD(COSINE).learning_rate == optax_ext.CosineDecay(0.1, 9)
