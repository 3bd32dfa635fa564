"""What convert writes of a translated recipe: short numbers, no defaults, and each comment above its field."""

import json
import struct
import textwrap
import warnings
from pathlib import Path

import numpy as np
import optax
import pytest
import yaml

from optax_ext import cli, config, interop
from optax_ext.cli._comments import Comment, comment_of, insert_comments
from optax_ext.cli._numbers import short_numbers


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def converted(data, capsys, *arguments):
    Path("FILE.json").write_text(json.dumps(data))
    assert cli.main(["convert", "FILE.json", *arguments]) == 0
    return capsys.readouterr().out


GARDEN = {
    "runtime": {"mixed_precision_dtype": "float16"},
    "trainer": {
        "train_steps": 300,
        "optimizer_config": {
            "optimizer": {"type": "adamw", "adamw": {"exclude_from_weight_decay": ["layer_norm"], "epsilon": 0}},
            "learning_rate": {"type": "stepwise", "stepwise": {"boundaries": [100, 200], "values": [1.0, 0.1, 1e-5]}},
            "warmup": {"type": "linear", "linear": {"warmup_steps": 5}},
        },
    },
}
WRITTEN = r"""
# Converted from FILE.json.
# trainer.train_steps: 300 is the length of the run, which a recipe does not have: see its rate with
#   `optax-ext describe --steps 300`
# runtime.mixed_precision_dtype: float16 is for the model: let its layers compute in it, and keep
#   their parameters in float32 (in Flax, dtype=jnp.float16 and param_dtype=jnp.float32)
optimizer:
  type: adamw
  learning_rate:
    type: linear_warmup
    after:
      type: piecewise_constant_decay
      boundaries: [100, 200]
      values: [1.0, 0.1, 1.0e-5]
    warmup_steps: 5
  # epsilon: 0 means 1e-07, as in TensorFlow
  epsilon: 1.0e-7
  # exclude_from_weight_decay: 'layer_norm' became '(?i)layer_?norm|(\b|[\d_])ln(\b|[\d_])', which
  #   matches JAX parameter paths
  exclude_from_weight_decay: ['(?i)layer_?norm|(\b|[\d_])ln(\b|[\d_])']
  # gradient_clip_norm: is 1.0, the default of adamw: gradients are clipped
  # gradient_clip_norm: also applies inside loss scaling, where TensorFlow skips it by mistake; 0
  #   gives TensorFlow's numbers
  gradient_clip_norm: 1.0
# loss_scale: is dynamic, as in TensorFlow, since mixed_precision_dtype is 'float16'
loss_scale:
  type: dynamic
"""


def test_a_recipe_of_model_garden(capsys):
    assert converted(GARDEN, capsys) == WRITTEN.lstrip()
    with pytest.warns(interop.TranslationWarning):
        assert config.from_dict(yaml.safe_load(WRITTEN)) == interop.from_model_garden(GARDEN)


def test_what_the_importers_warn_about_goes_to_standard_error_too(capsys):
    Path("FILE.json").write_text(json.dumps(GARDEN))
    assert cli.main(["convert", "FILE.json", "-o", "ours.yaml"]) == 0
    assert capsys.readouterr() == (
        "",
        "FILE.json: warning: optimizer.adamw.gradient_clip_norm: also applies inside loss scaling, where TensorFlow"
        " skips it by mistake; 0 gives TensorFlow's numbers\n",
    )
    assert Path("ours.yaml").read_text() == WRITTEN.lstrip()


def test_a_base_is_named_and_its_length_overridden(capsys):
    Path("base.json").write_text(json.dumps(GARDEN))
    out = converted({"trainer": {"train_steps": 100}}, capsys, "--base", "base.json")
    assert out.startswith("# Converted from FILE.json, over base.json.\n# trainer.train_steps: 100 is the length")


# What Keras wrote of an Adam with beta_1 and beta_2 of TensorFlow 1.
ADAM = {
    "class_name": "Adam",
    "config": {
        "name": "Adam",
        "learning_rate": 0.0010000000474974513,
        "decay": 0.0,
        "beta_1": 0.8999999761581421,
        "beta_2": 0.9990000128746033,
        "epsilon": 0,
        "amsgrad": True,
    },
}


def test_a_config_of_keras(capsys):
    assert converted(ADAM, capsys) == textwrap.dedent("""\
        # Converted from FILE.json.
        # Numbers that are float32 roundings of short decimals are written as these, which are the same in
        #   float32: 0.001 for 0.0010000000474974513.
        type: adam
        learning_rate: 0.001
        # epsilon: 0 means 1e-07, as in TensorFlow
        epsilon: 1.0e-7
        amsgrad: true
        """)
    everything = yaml.safe_load(converted(ADAM, capsys, "--all-fields"))
    assert everything.keys() == config.to_dict(config.Adam(0.1)).keys()
    assert (everything["beta_1"], everything["beta_2"]) == (0.9, 0.999)


def test_the_number_that_is_shown_is_one_that_is_written(capsys):
    fields = {"learning_rate": 0.5, "beta_1": 0.8999999761581421}  # which becomes the default
    with_epsilon = {"class_name": "Adam", "config": {**fields, "epsilon": 9.999999974752427e-07}}
    assert "float32: 1e-06 for 9.999999974752427e-07." in converted(with_epsilon, capsys)
    assert "float32: 0.9 for 0.8999999761581421." in converted({"class_name": "Adam", "config": fields}, capsys)


def test_numbers_of_ours_stay_as_they_are(capsys):
    config.save(interop.from_keras(ADAM), "ours.yaml")
    assert cli.main(["convert", "ours.yaml", "-o", "ours.json"]) == 0
    assert config.load("ours.json") == interop.from_keras(ADAM)
    assert config.load("ours.json").learning_rate == 0.0010000000474974513


def parameters(optimizer):
    tx, params = optimizer.make(), {"w": np.float32([0.5, -0.3, 0.2])}
    state = tx.init(params)
    for scale in (1.0, -0.3, 2.0, 0.01, 0.5):
        updates, state = tx.update({"w": np.float32([1.0, -2.0, 1e-3]) * np.float32(scale)}, state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params["w"])


def test_short_numbers_take_the_same_steps(capsys):
    short = config.from_dict(yaml.safe_load(converted(ADAM, capsys)))
    before = np.float32([0.5, -0.3, 0.2])
    moved = parameters(interop.from_keras(ADAM)) - before
    np.testing.assert_allclose(parameters(short) - before, moved, rtol=0, atol=1e-5 * np.abs(moved).max())


def float32(number):
    return struct.unpack("f", struct.pack("f", number))[0]


@pytest.mark.parametrize("decimal", [0.001, 0.01, 0.9, 0.999, 0.99, 6.4, 3e-4, 2.5e-5, 1e-7, 0.123456, 123456.5, -0.1])
def test_a_short_decimal_is_found_again(decimal):
    assert short_numbers([{"a": float32(decimal)}], {}) == [{"a": decimal}]
    assert float32(decimal) == float32(float32(decimal))


@pytest.mark.parametrize(
    "number",
    [
        *(0.1, 1 / 3, 2.0**-20, 2.0**27, 1e300, 5e-324, 0.0, float32(1 / 3), float32(0.1234567), 1e38),
        float32(0.9999),  # 1 - 0.9999 would change by 0.02 %
        float32(1e-44),  # which float32 has one digit of
    ],
)
def test_other_numbers_stay(number):
    changed = {}
    assert short_numbers({"a": number}, changed) == {"a": number}
    assert not changed


def test_what_is_no_number_stays():
    data = {"a": True, "b": None, "c": "0.0010000000474974513", "d": 3}
    assert short_numbers(data, {}) == data


# ---------------------------------------------------------------------------------------------------------
# Where comments stand.

DATA = {
    "optimizer": {
        "type": "lars",
        "learning_rate": {"type": "linear_warmup", "after": {"type": "cosine_decay", "decay_steps": 9}},
        "weight_decay_rate": 0.1,
    },
    "ema": {"average_decay": 0.9},
}
RATE = ("optimizer", "learning_rate")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("", ()),
        ("config", ()),
        ("config.weight_decay", ("optimizer", "weight_decay_rate")),
        ("optimizer.lars.weight_decay_rate", ("optimizer", "weight_decay_rate")),
        ("config.inner_optimizer.config.learning_rate.config.decay_steps", (*RATE, "after", "decay_steps")),
        ("config.learning_rate.config.after_warmup_lr_sched", (*RATE, "after")),
        ("warmup", RATE),
        ("ema.start_step", ("ema",)),
        ("runtime.loss_scale", ()),
        ("task.weight_decay", ()),
        ("task.losses.l2_weight_decay", ()),
        ("trainer.train_steps", ()),
    ],
)  # fmt: skip
def test_the_place_of_a_comment(path, place):
    comment = comment_of(interop.Note(path, "is changed", surprising=False), DATA)
    assert comment.path == place
    last = path.rpartition(".")[2]
    assert comment.text == (
        f"{last}: is changed" if comment.is_about_it else str(interop.Note(path, "is changed", False))
    )


def test_no_comment_can_add_to_a_recipe():
    text = "type: sgd\nlearning_rate: 0.1\n"
    evil = "a\nmomentum: 0.9\r\x85momentum: 0.9\u2028momentum: 0.9"
    written = insert_comments(text, [Comment((), evil), Comment(("learning_rate",), evil)])
    assert yaml.safe_load(written) == {"type": "sgd", "learning_rate": 0.1}
    assert len(written.splitlines()) == 4


def test_a_file_of_any_name(capsys):
    name = "a\nb.json"
    Path(name).write_text(json.dumps(ADAM))
    assert cli.main(["convert", name]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["type"] == "adam"


def test_keys_that_need_quotes_keep_their_comments(capsys):
    data = {"optimizer": {"type": "sgd", "stacked_axes": {"^a: #b": 0}}}
    text = config._files.yaml_text(data)
    written = insert_comments(text, [Comment(("optimizer", "stacked_axes", "^a: #b"), "one of these")])
    assert yaml.safe_load(written) == data
    assert "    # one of these\n    '^a: #b': 0\n" in written


def test_long_lists_of_patterns_are_written_one_a_line(capsys):
    patterns = [f"layer_{number}/kernel" for number in range(9)]
    lars = {"class_name": "LARS", "config": {"learning_rate": 0.1, "exclude_from_weight_decay": patterns}}
    out = converted(lars, capsys)
    assert "\nexclude_from_weight_decay:\n- layer_0/kernel\n- layer_1/kernel\n" in out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert config.from_dict(yaml.safe_load(out)) == interop.from_keras(lars)
    lars["config"]["exclude_from_weight_decay"] = ["bias", "scale"]
    assert "\nexclude_from_weight_decay: [bias, scale]\n" in converted(lars, capsys)
