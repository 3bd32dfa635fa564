"""describe --params: how many layers each parameter holds, and patterns of ranks."""

import json
import re
from pathlib import Path

import pytest

from optax_ext import config
from optax_ext.cli import main

SHAPES = {
    "blocks": {"attention": {"kernel": [12, 8, 8], "bias": [12, 8]}, "experts": {"kernel": [12, 4, 8, 8]}},
    "head": {"kernel": [8, 4], "bias": [4]},
}


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("shapes.json").write_text(json.dumps(SHAPES))


def describe(thing, capsys, status=0):
    config.save(thing, "thing.yaml")
    assert main(["describe", "thing.yaml", "--params", "shapes.json"]) == status
    return capsys.readouterr()


def rows(out, title):
    """Return the cells of a table."""
    lines = out.splitlines()
    start = lines.index(title) + 4
    return [re.split(r" {3,}", line.strip()) for line in lines[start : lines.index("", start)]]


def test_each_parameter_in_a_stack_is_shown_with_its_layers(capsys):
    axes = {"attention": 0, "experts": [0, 1], "head": None}
    out = describe(config.LARS(0.1, stacked_axes=axes), capsys).out
    assert rows(out, "Layers per parameter") == [
        ["attention", "blocks/attention/bias", "[12, 8]", "0", "12"],
        ["attention", "blocks/attention/kernel", "[12, 8, 8]", "0", "12"],
        ["experts", "blocks/experts/kernel", "[12, 4, 8, 8]", "0, 1", "48"],
        ["head", "head/bias", "[4]", "none", "1"],
        ["head", "head/kernel", "[8, 4]", "none", "1"],
    ]
    assert ["stacked_axes", "{attention: 0, experts: [0, 1], head: None}", "None"] in rows(
        out, "Fields that are not at their defaults"
    )
    assert "How many layers" not in describe(config.LARS(0.1), capsys).out


def test_one_axis_is_that_of_every_parameter_and_counts_from_the_end_if_negative(capsys):
    for axis, counted in ((0, ["0", "12"]), (-1, ["1", "8"])):
        out = describe(config.SGD(0.1, clipnorm=1.0, stacked_axes=axis), capsys).out
        table = rows(out, "Layers per parameter")
        assert len(table) == 5
        assert table[0] == ["every parameter", "blocks/attention/bias", "[12, 8]", *counted]


def test_patterns_of_ranks_count_the_axes_of_one_layer(capsys):
    stacked = config.LARS(
        0.1, weight_decay_rate=1e-4, exclude_from_weight_decay=["rank <= 1"], stacked_axes={"^blocks/": 0}
    )
    out = describe(stacked, capsys).out
    assert "excludes 2: blocks/attention/bias, head/bias (100 of 3,972 numbers)\n" in out
    assert "weight decay for 3 of 5 parameters, 3,872 of 3,972 numbers\n" in out
    assert "layer adaptation for 3 of 5 parameters, 3,872 of 3,972 numbers\n" in out
    plain = config.LARS(0.1, weight_decay_rate=1e-4, exclude_from_weight_decay=["rank <= 1"])
    assert "excludes 1: head/bias (4 of 3,972 numbers)\n" in describe(plain, capsys).out
    too_few = config.AdamW(0.1, exclude_from_weight_decay=["rank <= 0"], stacked_axes={"^blocks/": 0})
    err = describe(too_few, capsys, status=1).err
    assert "exclude_from_weight_decay: the pattern 'rank <= 0' matches none of the 5 parameters, whose ranks are" in err
    of_layers = config.AdamW(0.1, exclude_from_weight_decay=["rank <= 0"], stacked_axes={"bias": 0})
    assert "excludes 1: head/bias" in describe(of_layers, capsys).out


def test_all_that_does_not_fit_is_reported_at_once_with_its_place(capsys):
    lars = config.LARS(
        0.1, exclude_from_weight_decay=["bais"], stacked_axes={"^blocks/": 0, "head": 1, "^blcks/": 0, "experts": 1}
    )
    out, err = describe(config.OptimizationConfig(lars), capsys, status=1)
    lines = err.splitlines()
    assert lines[0] == "thing.yaml: 4 problems"
    assert [line.partition(", of which")[0] for line in lines[1:]] == [
        "  optimizer.stacked_axes: the patterns of 'blocks/experts/kernel' must agree, got '^blocks/': 0, 'experts': 1",
        "  optimizer.stacked_axes: the parameter 'head/bias' must have axis 1, got the shape (4,), with axes -1 to 0",
        "  optimizer.stacked_axes: the pattern '^blcks/' matches none of the 5 parameters",
        "  optimizer.exclude_from_weight_decay: the pattern 'bais' matches none of the 5 parameters",
    ]
    table = rows(out, "Layers per parameter")
    assert ["^blcks/", "NOTHING"] in table
    assert ["head", "head/bias", "[4]", "DO NOT FIT"] in table
    assert ["head", "head/kernel", "[8, 4]", "1", "4"] in table
    assert "What the patterns match" not in out  # the ranks of layers are not known


def test_a_pattern_of_axes_that_may_match_nothing_is_no_problem(capsys):
    sgd = config.SGD(0.1, stacked_axes={"^blcks/": 0}, allow_unmatched=True)
    assert ["^blcks/", "NOTHING"] in rows(describe(sgd, capsys).out, "Layers per parameter")
    err = describe(config.SGD(0.1, stacked_axes={"^blcks/": 0}), capsys, status=1).err
    assert err.startswith("thing.yaml: 1 problem\n  stacked_axes: the pattern '^blcks/' matches none")


def test_a_wrong_axis_is_reported_once_and_not_by_patterns_of_ranks_too(capsys):
    lars = config.LARS(0.1, exclude_from_weight_decay=["rank <= 2"], stacked_axes={"": [0, 1]})
    err = describe(lars, capsys, status=1).err
    assert err.count("must have axis 1") == 1
    assert "rank" not in err


# What the stages of stacked, limited and separate ratios say, in whole sentences.
SAID = [
    (
        config.LARS(0.1, weight_decay_rate=0.25, separate_norms=True, min_ratio=0.5, max_ratio=2.0),
        "weight decay and trust ratio",
        "add 0.25 x parameter, and scale each layer by 0.001 x norm of parameter / (norm of gradient + 0.25 x norm of "
        "parameter), but at least 0.5 and at most 2",
    ),
    (
        config.LARS(0.1, separate_norms=True, exclude_from_weight_decay=["bias"]),
        "weight decay and trust ratio",
        "scale each layer by 0.001 x norm of parameter / norm of gradient, except where a path has 'bias'",
    ),
    (
        config.LARS(0.1, classic_momentum=False, min_ratio=0.5, stacked_axes=[0, 1]),
        "trust ratio",
        "scale each layer by 0.001 x norm of parameter / norm of momentum, but at least 0.5; a layer is an entry of "
        "axes 0 and 1",
    ),
    (
        config.LAMB(0.1, max_ratio=10, exclude_from_layer_adaptation=["rank <= 1", "norm"], stacked_axes={"a": 0}),
        "trust ratio",
        "scale each layer by norm of parameter / norm of update, but at most 10, except where a path has 'norm', or "
        "the rank of a layer is at most 1; a layer is an entry of axis 0 where a path has 'a'",
    ),
    (
        config.SGD(0.1, clipnorm=1.0, stacked_axes={"^a/": 0, "^b/": [0], "^c/": [0, 1], "^d/": None, "^e/": 0}),
        "clip by norm",
        "the gradient of each layer by itself to a norm of at most 1; a layer is an entry of axis 0 where a path has "
        "'^a/' or '^b/' or '^e/', of axes 0 and 1 where a path has '^c/'",
    ),
    (
        config.AdamW(0.1, weight_decay_rate=0.25, exclude_from_weight_decay=["rank <= 1", "rank <= 0"]),
        "weight decay",
        "add 0.25 x parameter, except where the rank is at most 1",
    ),
    (
        config.AdamW(
            0.1, weight_decay_rate=0.25, exclude_from_weight_decay=["a"], include_in_weight_decay=["rank <= 1", "b"]
        ),
        "weight decay",
        "add 0.25 x parameter, except where a path has 'a', unless it also has 'b', or the rank is at most 1",
    ),
]


@pytest.mark.parametrize(("optimizer", "name", "effect"), SAID, ids=lambda value: getattr(value, "type", ""))
def test_stages_say_what_a_layer_is_and_in_which_limits(optimizer, name, effect):
    assert {stage.name: stage.effect for stage in optimizer.stages()}[name] == effect
