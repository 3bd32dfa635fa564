"""transformers' TrainingArguments, with the rates and the steps of its Trainer.

`pytest -m slow tests/interop` runs the cases that differ from a quick one in their numbers; all 53, with
those of timm, passed the last time.
"""

import json

import numpy as np
import pytest

import optax_ext
from optax_ext import config, interop
from optax_ext._core.pytorch_writers import pytorch_writer
from tests.interop.pytorch_golden import DATA, GOLDEN, assert_rates, assert_steps, case_id, cases, run


def read(arguments, total=None):
    return interop.translate_training_arguments(arguments, num_training_steps=total)


@pytest.mark.parametrize("case", cases("trainer_rates", "lr_scheduler_type"), ids=case_id)
def test_rates(case):
    recipe = read(case["arguments"], case["num_training_steps"]).config
    assert_rates(recipe, case["rates"])
    assert config.from_dict(json.loads(json.dumps(config.to_dict(recipe)))) == recipe


@pytest.mark.parametrize("case", cases("trainer_steps", "optim"), ids=case_id)
def test_steps(case):
    recipe = read(case["arguments"], case["num_training_steps"]).config
    assert_rates(recipe, case["rates"])
    ours, _ = run(recipe, len(case["rates"]))
    assert_steps(ours, case["params"])


def test_every_schedule_of_transformers_is_carried_over_or_refused():
    carried = {case["arguments"].get("lr_scheduler_type") for case in GOLDEN["trainer_rates"]}
    for name in set(GOLDEN["schedulers"]) - carried:
        with pytest.raises(config.ConfigError, match=f"lr_scheduler_type: '{name}' gives a rate that depends on the"):
            read({"lr_scheduler_type": name}, 10)
    assert set(GOLDEN["schedulers"]) - carried == {"reduce_lr_on_plateau", "greedy"}


def test_every_optimizer_of_transformers_is_carried_over_or_refused():
    carried = set()
    for name in GOLDEN["optimizers"]:
        try:
            read({"optim": name}, 10)
        except config.ConfigError as error:
            assert "is not one of transformers" not in str(error)
            assert len(error.problems) == 1
        else:
            carried.add(name)
    adamw = {"adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "paged_adamw_32bit"}
    assert carried == {*adamw, "lion_32bit", "paged_lion_32bit", "sgd", "rmsprop", "adagrad"}


def test_the_loss_scale_is_that_of_torch():
    scale = read({"fp16": True}, 10).config.loss_scale
    theirs = GOLDEN["grad_scaler"]
    assert (scale.initial_scale, scale.growth_steps) == (theirs["initial_scale"], theirs["growth_steps"])
    assert scale.multiplier == theirs["multiplier"] == 1 / theirs["backoff"]
    assert read({"bf16": True}, 10).config.loss_scale is None


@pytest.mark.parametrize("total", [1000, 1001])
def test_a_warm_up_as_a_part_of_the_training(total):
    ratio, part = read({"warmup_ratio": 0.03}, total).config, read({"warmup_steps": 0.03}, total).config
    assert ratio == part
    assert ratio.optimizer.learning_rate.warmup_steps == (30 if total == 1000 else 31)
    assert read({"warmup_ratio": 0.03, "warmup_steps": 7}, total).config.optimizer.learning_rate.warmup_steps == 7


def test_reads_files(tmp_path):
    json_file, yaml_file = tmp_path / "training_args.json", tmp_path / "sft.yaml"
    arguments = {"learning_rate": 2e-4, "max_steps": 100, "output_dir": "out", "lr_scheduler_type": "cosine"}
    json_file.write_text(json.dumps(arguments))
    yaml_file.write_text("learning_rate: 2e-4\nmax_steps: 100\nlr_scheduler_type: cosine\nmodel_name_or_path: gpt2\n")
    with pytest.warns(interop.TranslationWarning, match="TrainingArguments, and ignored: 'model_name_or_path'"):
        recipe = interop.from_training_arguments(str(yaml_file))
    assert interop.from_training_arguments(json_file) == recipe
    assert [str(note) for note in read(yaml_file).notes] == [
        "not arguments of TrainingArguments, and ignored: 'model_name_or_path'"
    ]
    assert read(arguments).written_by == "training_arguments"
    pickle = tmp_path / "training_args.bin"
    pickle.write_bytes(b"PK\x03\x04")
    with pytest.raises(config.ConfigError, match=r"is a pickle, which can run any code .*json.dump\(args.to_dict\(\)"):
        interop.from_training_arguments(pickle)


def test_says_what_is_left_to_do():
    arguments = {
        "max_steps": 10,
        "gradient_accumulation_steps": 4,
        "label_smoothing_factor": 0.1,
        "neftune_noise_alpha": 5,
        "deepspeed": "ds.json",
        "lr_scheduler_type": "constant",
        "warmup_steps": 3,
        "optim_args": "a=1",
    }
    with pytest.warns(interop.TranslationWarning) as caught:
        interop.from_training_arguments(arguments)
    said = {str(warning.message).partition(":")[0] for warning in caught}
    assert said >= {"label_smoothing_factor", "neftune_noise_alpha", "deepspeed", "warmup_steps", "optim_args"}
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (
            {},
            ["max_steps: is not set, and how many steps num_train_epochs (3.0) makes depends on the data: give num_tr"],
        ),
        (
            {"max_steps": 5, "learning_rat": 1},
            ["learning_rat: is not an argument of TrainingArguments (did you mean 'le"],
        ),
        (
            {"max_steps": 5, "lr_scheduler": "cosine"},
            ["lr_scheduler: is not an argument of TrainingArguments (did you mean 'lr_scheduler_type'?)"],
        ),
        (
            {"max_steps": 5, "learning_rate": "fast", "weight_decay": -1, "adam_beta1": 1, "adam_epsilon": 0},
            [
                "learning_rate: must be a number, got 'fast'",
                "adam_beta1: must be less than 1",
                "adam_epsilon: must be gr",
                "weight_decay: must be greater than or equal to 0, got -1",
            ],
        ),
        ({"max_steps": 5, "optim": "adamw"}, ["optim: 'adamw' is not one of transformers (did you mean 'adamw_"]),
        (
            {"max_steps": 5, "adafactor": True},
            ["optim: 'adafactor' is transformers' Adafactor, whose arithmetic is not"],
        ),
        (
            {"max_steps": 5, "lr_scheduler_type": "cosin"},
            ["lr_scheduler_type: 'cosin' is not one of transformers (did"],
        ),
        (
            {"max_steps": 5, "lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycle": 1}},
            ["lr_scheduler_kwargs.num_cycle: is not an argument of 'cosine' (did you mean 'num_cycles'?), acce"],
        ),
        (
            {"max_steps": 10, "lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 3}},
            ["lr_scheduler_kwargs.num_cycles: must divide the 10 steps after the warm-up into periods of whole steps"],
        ),
        (
            {"max_steps": 11, "lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 1}},
            ["lr_scheduler_kwargs.num_cycles: makes each half wave 5.5 of the 11 steps after the warm-up long"],
        ),
        (
            {"max_steps": 9, "lr_scheduler_type": "polynomial", "learning_rate": 1e-8},
            ["lr_scheduler_kwargs.lr_end: must be less than learning_rate = 1e-08, got 1e-07, as in transformers"],
        ),
        (
            {"max_steps": 9, "lr_scheduler_type": "cosine_with_min_lr"},
            ["lr_scheduler_kwargs.min_lr: exactly one of min_lr and min_lr_rate must be given, as in transformers"],
        ),
        (
            {
                "max_steps": 9,
                "lr_scheduler_type": "warmup_stable_decay",
                "lr_scheduler_kwargs": {"decay_type": "1-sqrt"},
            },
            ["lr_scheduler_kwargs.num_decay_steps: is missing"],
        ),
        (
            {
                "max_steps": 9,
                "lr_scheduler_type": "warmup_stable_decay",
                "lr_scheduler_kwargs": {"decay_type": "exp", "warmup_type": "1-sqrt", "num_decay_steps": 4},
            },
            [
                f"lr_scheduler_kwargs.{name}_type: must be one of {known}, which no schedule here has"
                for name, known in [
                    ("warmup", "'linear', 'cosine', got '1-sqrt'"),
                    ("decay", "'linear', 'cosine', '1-sqrt', got 'exp'"),
                ]
            ],
        ),
        ({"max_steps": 9, "optim": "sgd", "optim_args": "dampening=0.1"}, ["optim_args.dampening: must be 0, got 0.1"]),
        (
            {"max_steps": 9, "optim": "sgd", "optim_args": "momentun=0.1"},
            ["optim_args.momentun: is not an argument of"],
        ),
        (
            {"max_steps": 9, "optim": "rmsprop", "optim_args": "momentum=2"},
            ["optim_args.momentum: must be less than or e"],
        ),
        ({"max_steps": 9, "warmup_steps": float("inf")}, ["warmup_steps: must be a number, got inf"]),
        (
            {"max_steps": 10**9, "lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 10**8}},
            ["lr_scheduler_kwargs.num_cycles: must be greater than 0, and at most 10000, got 100000000"],
        ),
        (
            {"max_steps": 9, "accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 4}}},
            ["accelerator_config: must not have num_steps in gradient_accumulation_kwargs: write it as gradient_accum"],
        ),
        (
            {"max_steps": 9, "deepspeed": {"optimizer": {}}},
            ["deepspeed: has an optimizer or a scheduler of DeepSpeed's"],
        ),
        (
            {"max_steps": 9, "optim": "adamw_hf", "weight_decay": 0.1, "learning_rate": 0.01},
            ["optim: 'adamw_hf' lets the updated parameters decay, which at 0.01 x 0.1 is not what AdamW here does"],
        ),
    ],
)
def test_errors(arguments, messages):
    with pytest.raises(config.ConfigError) as caught:
        interop.translate_training_arguments(arguments)
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) == len(messages), found
    for message in messages:
        assert any(text.startswith(message) for text in found), (message, found)


def test_steps_that_disagree():
    with pytest.raises(config.ConfigError, match="max_steps: is 5, but num_training_steps is 6: leave that out"):
        read({"max_steps": 5}, 6)


def test_what_rounding_does_to_restarts_is_said():
    """Of 49 periods, floating-point numbers put the start of some just before the end of those before them."""
    kwargs = {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 49}}
    translation = read({"max_steps": 490, **kwargs})
    assert translation.config.optimizer.learning_rate == optax_ext.CosineDecayRestarts(5e-5, 10, t_mul=1.0)
    late = [step for step in range(10, 490, 10) if (49.0 * (step / 490)) % 1.0 > 0.5]
    (note,) = translation.notes
    assert note.surprising
    assert len(late) > 0
    assert str(note).endswith(f"of periods {', '.join(repr(str(step)) for step in late)}; here it restarts")


def test_adamw_hf_has_epsilon_hat_and_decays_what_it_updated():
    """The second differs from AdamW here by the rate times the decay, in parts of a step."""
    arguments = {"optim": "adamw_hf", "learning_rate": 5e-5, "weight_decay": 0.1, "max_grad_norm": 0}
    ours, _ = run(read(arguments | {"lr_scheduler_type": "constant"}).config, 6)
    param, m, v, series = DATA["params"]["dense.weight"].astype(np.float64), 0.0, 0.0, []
    for t, grad in enumerate(DATA["grads"]["dense.weight"].astype(np.float64), start=1):
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
        param = param - 5e-5 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8)
        param = param - 5e-5 * 0.1 * param
        series.append(param)
    assert_steps({**ours}, {**ours, "dense.weight": np.stack(series)})


def test_who_wrote_it():
    assert pytorch_writer({"lr_scheduler_type": "linear"}) == "training_arguments"
    assert pytorch_writer({"opt": "sgd", "sched": "cosine", "warmup_ratio": 1}) == "timm"
    assert pytorch_writer({"opt": {}, "sched": "cosine"}) is None
    assert pytorch_writer({"optim": {"type": "sgd"}}) is None
    assert pytorch_writer({"learning_rate": 0.1, "class_name": "SGD"}) is None
    assert np.isfinite(GOLDEN["data"]["params"]["dense.weight"]).all()


@pytest.mark.parametrize("total", [0, -1, 2.5, "10", True])
def test_the_number_of_steps_is_a_positive_integer(total):
    with pytest.raises(
        config.ConfigError, match="problem\n  num_training_steps: must be an integer greater than 0, got"
    ):
        read({}, total)
    assert read({}, np.int64(9)) == read({}, 9)
