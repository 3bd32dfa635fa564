"""The arguments of timm's train.py, with the rates and the steps of timm."""

import json

import jax
import numpy as np
import pytest
import yaml

import optax_ext
from optax_ext import config, interop
from tests.interop.pytorch_golden import DATA, GOLDEN, assert_rates, assert_steps, case_id, cases, run

PLAIN = {**GOLDEN["timm_defaults"], "smoothing": 0.0, "weight_decay": 0.0}


def read(arguments, **kwargs):
    return interop.translate_timm({**GOLDEN["timm_defaults"], **arguments}, **{"steps_per_epoch": 5, **kwargs})


@pytest.mark.parametrize("case", cases("timm_rates", "sched"), ids=case_id)
def test_rates(case):
    recipe = read(case["arguments"]).config
    assert_rates(recipe, case["rates"])
    assert config.from_dict(json.loads(json.dumps(config.to_dict(recipe)))) == recipe


@pytest.mark.parametrize("case", cases("timm_steps", "clip_mode", "sched"), ids=case_id)
def test_steps(case):
    recipe = read(case["arguments"]).config
    assert_rates(recipe, case["rates"])
    ours, states = run(recipe, len(case["params"]["dense.bias"]))
    assert_steps(ours, case["params"])
    if "averages" in case:
        for name in DATA["params"]:
            layer, _, leaf = name.partition(".")
            averages = [optax_ext.ema_params(state)[layer][leaf] for state in states]
            np.testing.assert_allclose(averages, case["averages"][name], rtol=1e-5, atol=1e-6)


def test_every_optimizer_of_timm_is_carried_over_or_refused():
    carried = set()
    for name in GOLDEN["timm_optimizers"]:
        changes = {"opt": name, "sched": "none", "weight_decay": 0.0}
        try:
            read(changes)
        except config.ConfigError as error:
            assert str(error.problems[0]).startswith(f"opt: {name!r} ")
        else:
            carried.add(name)
    sgd, adam = (
        {"sgd", "nesterov", "momentum", "fusedsgd", "fusedmomentum"},
        {"adam", "adamw", "adamwlegacy", "fusedadam", "fusedadamw"},
    )
    lars = {"lamb", "lambc", "lars", "nlars"}
    others = {"rmsprop", "rmsproptf", "rmsproptfw", "adagrad", "adadelta", "nadam", "lion"}
    assert carried == (sgd | adam | lars | others) & set(GOLDEN["timm_optimizers"])


def test_reads_files(tmp_path):
    file = tmp_path / "args.yaml"
    file.write_text(yaml.safe_dump({**PLAIN, "model": "resnet50", "aa": None, "crop_pct": 0.9}))
    translation = interop.translate_timm(file, steps_per_epoch=5)
    assert translation.written_by == "timm"
    assert translation.notes == ()
    assert interop.from_timm(str(file), steps_per_epoch=5) == translation.config


@pytest.mark.parametrize(
    ("changes", "rate"),
    [
        ({}, 0.1 * 4),
        ({"lr_base_scale": "sqrt"}, 0.1 * 2),
        ({"opt": "adamw"}, 0.1 * 2),
        ({"opt": "lamb", "lr_base_scale": "linear", "lr_base_size": 512}, 0.1 * 2),
    ],
)
def test_the_rate_of_a_batch(changes, rate):
    arguments = {"lr": None, "sched": "none", **changes}
    assert read(arguments, global_batch_size=1024).config.optimizer.learning_rate == pytest.approx(rate)
    arguments |= {"batch_size": 128, "world_size": 4, "grad_accum_steps": 2}
    assert read(arguments).config.optimizer.learning_rate == pytest.approx(rate)


def test_the_loss_scale():
    assert read({"amp": True}).config.loss_scale == config.DynamicLossScale(initial_scale=2.0**16)
    assert read({"native_amp": True}).config.loss_scale is not None
    assert read({"amp": True, "amp_dtype": "bfloat16"}).config.loss_scale is None
    assert read({}).config.loss_scale is None


def test_says_what_is_left_to_do():
    arguments = {**GOLDEN["timm_defaults"], "grad_accum_steps": 2, "warmup_steps_of_mine": 1}
    with pytest.warns(interop.TranslationWarning) as caught:
        interop.from_timm(arguments, steps_per_epoch=5)
    said = {str(warning.message).partition(":")[0] for warning in caught}
    assert said >= {"weight_decay"}
    assert {warning.filename for warning in caught} == {__file__}
    notes = [str(note) for note in read({"smoothing": 0.1, "model_ema": True, "shiny": 1}).notes]
    assert "not arguments of timm's train.py, and ignored: 'shiny'" in notes
    assert any(
        note.startswith("smoothing: is part of the loss: give it labels of optax.smooth_labels") for note in notes
    )
    assert any(note.startswith("model_ema: averages batch statistics too") for note in notes)


def test_lars_has_its_rate_outside_the_momentum():  # whose steps are those of a row of docs/migration.md
    lars = read({"opt": "lars", "weight_decay": 5e-2}).config.optimizer
    assert isinstance(lars.learning_rate, optax_ext.Schedule)
    assert (lars.separate_norms, lars.learning_rate_in_momentum, lars.momentum) == (True, False, 0.9)
    assert read({"opt": "lars", "sched": "none", "momentum": 0.0}).config.optimizer.learning_rate_in_momentum


@pytest.mark.parametrize(("opt_eps", "epsilon"), [(None, 0.0), (1e-8, 0.0), (0, 0.0), (1e-3, 1e-3)])
def test_lars_has_an_epsilon_that_is_not_the_default_which_no_norm_notices(opt_eps, epsilon):
    assert read({"opt": "lars", "sched": "none", "opt_eps": opt_eps}).config.optimizer.epsilon == epsilon


def test_rates_stay_as_they_are_after_the_last_epoch():
    rate = read({"warmup_epochs": 0, "min_lr": 0.05}).config.optimizer.learning_rate
    assert rate(59) == rate(10_000)
    np.testing.assert_allclose(jax.vmap(rate)(np.arange(3)), 0.5)


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"sched": "plateau"}, ["sched: 'plateau' gives a rate that depends on the evaluation, which no function"]),
        (
            {"sched": "cosin"},
            ["sched: 'cosin' is not one of timm (did you mean 'cosine'?), accepted: 'cosine', 'tanh'"],
        ),
        ({"opt": "adamv"}, ["opt: 'adamv' has no counterpart here that returns timm's numbers (did you mean 'adam'?)"]),
        ({"opt": "lookahead_adamw"}, ["opt: 'lookahead_adamw' wraps Lookahead around an optimizer: in Optax it is"]),
        (
            {"opt": "adam"},
            ["weight_decay: is part of the gradient in 'adam', which moments here do not see: set it to 0"],
        ),
        (
            {"opt": "larc", "sched": "none"},
            ["opt: 'larc' clips to the rate, as no LARS of a recipe does: docs/migration"],
        ),
        ({"opt": "rmsprop", "momentum": 2}, ["momentum: must be less than or equal to 1, got 2"]),
        (
            {"momentum": 0.0},
            ["opt_kwargs.momentum: must be greater than 0 with Nesterov's momentum, as in PyTorch; 'mom"],
        ),
        (
            {"opt": "lars", "sched": "none", "opt_eps": -1e-3},
            ["opt_eps: must be greater than or equal to 0, got -0.001"],
        ),
        ({"layer_decay": 0.7}, ["layer_decay: gives the layers of a model of timm rates of their own, which a recipe"]),
        (
            {"clip_grad": 0.01, "clip_mode": "agc"},
            ["clip_mode: 'agc' clips each unit by the norm of its parameters, whi"],
        ),
        ({"lr_noise": [0.4, 0.9]}, ["lr_noise: is drawn by PyTorch's generator, whose numbers are not to be had here"]),
        (
            {"opt_kwargs": {"nesterof": True}},
            ["opt_kwargs.nesterof: cannot be carried over (did you mean 'nesterov'?), "],
        ),
        (
            {"opt": "lamb", "opt_kwargs": {"grad_averaging": False}},
            ["opt_kwargs.grad_averaging: must be true: docs/migr"],
        ),
        (
            {"model_ema": True, "model_ema_warmup": True},
            ["model_ema_warmup: raises the decay by a formula that no sched"],
        ),
        (
            {"sched_on_updates": True, "sched": "tanh"},
            ["sched_on_updates: no schedule here is 'tanh' at each update: se"],
        ),
        (
            {"sched_on_updates": True, "lr_cycle_limit": 2},
            ["lr_cycle_limit: must be 1 with sched_on_updates: no schedul"],
        ),
        ({"sched_on_updates": True, "min_lr": 2.0}, ["min_lr: must be at most the learning rate, 0.5, got 2"]),
        (
            {"sched": "wsd", "decay_epochs": 50},
            ["decay_epochs: must be between 0 and the 9 epochs after the warm-up, go"],
        ),
        ({"cooldown_epochs": float("nan")}, ["cooldown_epochs: must be a number, got nan"]),
        ({"epochs": 10**9}, ["epochs: the schedule may have 10000 epochs, got 1000000000"]),
        ({"lr_cycle_mul": 1e30, "lr_cycle_limit": 99}, ["epochs: the schedule may have 10000 epochs, got inf"]),
        (
            {"sched_on_updates": True, "sched": "step", "decay_epochs": 1e-9},
            ["decay_epochs: the rate may drop 10000 ti"],
        ),
        ({"lr_decay_fn": {}, "sched": "wsd", "decay_epochs": 4}, ["lr_decay_fn: must be text, got {}"]),
        ({"lr": None, "lr_base_size": 0, "world_size": 1}, ["lr_base_size: must be greater than 0, got 0"]),
        ({"weigth_decay": 0.1}, ["weigth_decay: is not an argument of timm's train.py (did you mean 'weight_decay'?)"]),
        (
            {"epochs": "many", "warmup_prefix": 1},
            ["epochs: must be a number, got 'many'", "warmup_prefix: must be true or"],
        ),
        (
            {"weight_decay": -1, "opt_betas": [1], "opt": "adamw", "opt_eps": 0},
            [
                "weight_decay: must be greater than or equal to 0",
                "opt_kwargs.betas: must be a list of 2 numbers, got [1]",
                "opt_eps: must be greater than 0",
            ],
        ),
    ],
)
def test_errors(changes, messages):
    with pytest.raises(config.ConfigError) as caught:
        read(changes)
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) == len(messages), found
    for message in messages:
        assert any(text.startswith(message) for text in found), (message, found)


@pytest.mark.parametrize("on_updates", [False, True])
def test_numbers_that_no_file_has(on_updates):
    with pytest.raises(config.ConfigError) as caught:
        interop.translate_timm({"sched_on_updates": on_updates, "opt": "momentum"})
    assert [str(problem).partition(": give ")[2].partition(",")[0] for problem in caught.value.problems] == [
        "global_batch_size",
        "steps_per_epoch",
    ]


@pytest.mark.parametrize("opt", ["sgd", "adamw", "adamwlegacy", "lamb"])
def test_a_limit_of_0_lets_nothing_through(opt):
    recipe = read({"opt": opt, "clip_grad": 0.0, "weight_decay": 0.0}).config
    assert recipe.optimizer.global_clipnorm == 0


@pytest.mark.parametrize("count", [0, -1, 2.5, "10", True])
def test_numbers_of_steps_and_examples_are_positive_integers(count):
    with pytest.raises(config.ConfigError, match="problem\n  steps_per_epoch: must be an integer greater than 0, got"):
        read({}, steps_per_epoch=count)
    with pytest.raises(
        config.ConfigError, match="problem\n  global_batch_size: must be an integer greater than 0, got"
    ):
        read({"lr": None}, global_batch_size=count)
