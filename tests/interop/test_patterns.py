"""Patterns for TensorFlow's variable names find what they are meant for among JAX parameter paths."""

import itertools
import re

import pytest

from optax_ext import config, interop
from optax_ext.interop import _patterns
from optax_ext.interop._patterns import read_patterns, translate_pattern
from optax_ext.interop._report import Report


@pytest.mark.parametrize(
    ("pattern", "found", "not_found"),
    [
        ("batch_normalization", ["BatchNorm_0/scale", "bn1/weight", "batch_norm/bias", "b/batch_normalization_3/x"],
         ["conv/kernel", "LayerNorm_0/scale", "abnormal/kernel"]),
        ("LayerNorm", ["LayerNorm_0/scale", "layer_norm/bias", "encoder/ln_1/scale", "layernorm/x"],
         ["BatchNorm_0/scale", "kiln/kernel"]),
        ("layer_norm", ["LayerNorm_0/scale", "ln/scale"], ["Dense_0/kernel"]),
        ("layer_normalization", ["LayerNorm_0/scale", "layer_normalization_2/scale"], ["Dense_0/kernel"]),
        ("group_normalization", ["GroupNorm_0/scale", "gn1/scale"], ["align/kernel"]),
        ("norm", ["LayerNorm_0/scale", "RMSNorm_0/scale", "ln_f/scale", "bn/bias"], ["Dense_0/kernel"]),
        ("bias", ["Dense_0/bias"], ["Dense_0/kernel"]),
        (".*(kernel|weight):0$", ["Dense_0/kernel", "linear/weight"], ["Dense_0/kernel_scale", "Dense_0/bias"]),
        ("kernel:0", ["Dense_0/kernel"], ["Dense_0/kernel_scale"]),
        ("(gamma|beta:0)", ["BatchNorm_0/scale", "BatchNorm_0/bias"], ["Dense_0/kernel"]),
        ("beta", ["BatchNorm_0/bias", "ln/bias", "x/beta"], ["Dense_0/bias", "Dense_0/kernel"]),
        ("gamma", ["BatchNorm_0/scale"], ["Dense_0/bias"]),
        ("embeddings", ["embed/embedding"], ["Dense_0/kernel"]),
        ("(.)*", ["anything"], []),
    ],
)  # fmt: skip
def test_translation(pattern, found, not_found):
    translated = translate_pattern(pattern)
    for path in found:
        assert re.search(translated, path), path
    for path in not_found:
        assert not re.search(translated, path), path


def test_the_table_is_in_the_documentation():
    for word in ("batch_normalization", "LayerNorm", "layer_norm", "GroupNorm", "norm", "gamma", "beta", "embeddings"):
        assert f"``{word}``" in _patterns.__doc__


@pytest.mark.parametrize(
    "pattern",
    ["LayerNorm", "batch_normalization", "norm", "beta", "(?i)layer_norm/a", "bias", "kernel", ".*(kernel|weight):0$"],
)
def test_translated_once_is_translated(pattern):
    assert translate_pattern(translate_pattern(pattern)) == translate_pattern(pattern)


KINDS = {"batch": "bn", "layer": "ln", "group": "gn"}
ALONE = "(?<![a-z])(?:{})(?![a-z])"
IN_FULL = {
    **{f"{kind}_norm": f"(?i:{kind}_?norm(?:alization)?|{ALONE.format(short)})" for kind, short in KINDS.items()},
    "norm": f"(?i:norm|{ALONE.format('bn|ln|gn')})",
    "beta": f"beta|(?i:norm|{ALONE.format('bn|ln|gn')})[^/]*/bias",
}


def test_flags_of_a_pattern_stay():
    assert re.search(translate_pattern("(?i)Gamma"), "bn/scale")


@pytest.mark.parametrize("pattern", IN_FULL)
def test_what_is_short_means_what_is_said_in_full(pattern):
    parts = [
        "bn",
        "LN",
        "gn",
        "b",
        "n",
        "1",
        "_",
        "/",
        "norm",
        "Batch",
        "layer_",
        "GROUP",
        "alization",
        "/bias",
        "Beta",
        "-",
    ]
    names = ["".join(chosen) for chosen in itertools.product(parts, repeat=3)]
    short, full = re.compile(translate_pattern(pattern)), re.compile(IN_FULL[pattern])
    assert [name for name in names if bool(short.search(name)) != bool(full.search(name))] == []
    assert any(map(full.search, names))


def test_the_groups_of_a_pattern_keep_their_numbers():
    translated = translate_pattern(r"batch_normalization_\d/(x)\1$")
    assert re.search(translated, "bn_1/xx")
    assert re.search(translated, "batch_normalization_1/xx")
    assert not re.search(translated, "bn_1/x")


def test_two_spellings_of_one_thing_are_one_and_that_is_said_once():
    report = Report()
    patterns = read_patterns(["LayerNorm", "layer_norm", "bias"], "here", report, translate=True)
    assert patterns == [translate_pattern("LayerNorm"), "bias"]
    assert [note.surprising for note in report.notes] == [False, True]
    assert "'layer_norm' and 'LayerNorm' are the same pattern" in str(report.notes[1])


def test_it_can_be_turned_off():
    report = Report()
    assert read_patterns(["LayerNorm", "a:0"], "here", report, translate=False) == ["LayerNorm", "a:0"]
    assert not report.notes


@pytest.mark.parametrize("translate", [True, False])
@pytest.mark.parametrize("pattern", ["rank <= 1", "rank<=2", "rank < 2"])
def test_a_regular_expression_of_tensorflow_does_not_become_a_pattern_of_ranks(pattern, translate):
    report = Report()
    read_patterns(["bias", pattern], "here", report, translate=translate)
    (problem,) = report.problems
    assert str(problem).startswith(f"here: {pattern!r} chooses by rank here, and is a regular expression in TensorFlow")
    recipe = {"class_name": "LARS", "config": {"learning_rate": 0.1, "exclude_from_weight_decay": [pattern]}}
    with pytest.raises(config.ConfigError, match="exclude_from_weight_decay: .* chooses by rank here"):
        interop.from_keras(recipe, translate_patterns=translate)
