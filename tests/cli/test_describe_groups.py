"""describe and plot of groups: which parameters are in which, by which rates and factors, and what is wrong."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import optax_ext
from optax_ext import config
from optax_ext.cli import main
from optax_ext.cli._rate import by_group, rates

SHAPES = {
    "embed": {"table": [100, 8]},
    "blocks": {"0": {"kernel": [8, 8], "bias": [8]}, "1": {"kernel": [8, 8], "bias": [8]}},
    "head": {"kernel": [8, 30], "bias": [30]},
}
DECAY = config.LayerDecay(0.5, r"^blocks/(\d+)/", first=["^embed/"])
ADAMW = config.AdamW(0.125, weight_decay_rate=0.25, exclude_from_weight_decay=["bias"])
HEAD = config.Group(["^head/"], ADAMW, name="head")
WAITING = config.Group(["bias"], config.SGD(optax_ext.PolynomialDecay(0.5, 100, 0.0)), start_step=50, name="biases")


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("shapes.json").write_text(json.dumps(SHAPES))


def describe(thing, capsys, *arguments, status=0):
    config.save(thing, "thing.yaml")
    assert main(["describe", "thing.yaml", *arguments]) == status
    return capsys.readouterr()


def table(out, heading):
    lines = [line.strip() for line in out.splitlines()]
    start = lines.index(heading) + 4
    end = lines.index("", start) if "" in lines[start:] else len(lines)
    return [re.split(r" {2,}", line) for line in lines[start:end]]


def test_groups_stages_and_rates_have_tables_of_their_own(capsys):
    partition = config.Partition([WAITING], rest=config.Frozen(), global_clipnorm=1.0)
    out = describe(config.OptimizationConfig(partition), capsys).out
    assert out.splitlines()[0] == "thing.yaml: a recipe: 2 groups: biases, rest"
    assert table(out, "In the group biases") == [["1", "learning rate", "times minus the rate: polynomial_decay"]]
    assert table(out, "In the group rest") == [["1", "frozen", "every update is zero"]]
    fields = table(out, "Fields that are not at their defaults")
    assert ["0", "Group"] in fields
    assert ["start_step", "50", "0"] in fields
    assert ["50", "0.25", "first step that moves"] in table(out, "Learning rate of biases")
    assert ["100", "0", "end of decay_steps"] in table(out, "Learning rate of biases")
    assert "Learning rate of rest" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_every_parameter_has_its_group_and_its_factor(capsys):
    partition = config.Partition(
        [HEAD], rest=config.SGD(1.0, learning_rate_multipliers={"bias": 2.0}), layer_decay=DECAY
    )
    out = describe(partition, capsys, "--params", "shapes.json").out
    assert table(out, "Groups") == [
        ["head", "^head/", "2: head/bias, head/kernel (270 of 1,214 numbers)"],
        ["rest", "every other path", "5: blocks/0/bias, blocks/0/kernel, blocks/1/bias,"],
        ["blocks/1/kernel, ... (944 of 1,214 numbers)"],
    ]
    assert table(out, "Factors of the learning rate") == [
        ["0.125", "rest", "1: embed/table (800 of 1,214 numbers)"],
        ["0.25", "rest", "1: blocks/0/kernel (64 of 1,214 numbers)"],
        ["0.5", "rest", "2: blocks/0/bias, blocks/1/kernel (72 of 1,214 numbers)"],
        ["1", "head", "2: head/bias, head/kernel (270 of 1,214 numbers)"],
        ["1", "rest", "1: blocks/1/bias (8 of 1,214 numbers)"],
    ]
    assert "weight decay for 1 of 2 parameters" in out  # of the group
    assert max(map(len, out.splitlines())) <= 80


def test_an_optimizer_alone_has_a_table_of_factors(capsys):
    stacked = {"embed": [8], "blocks": {"kernel": [3, 4]}, "head": [2]}
    Path("shapes.json").write_text(json.dumps(stacked))
    decay = config.LayerDecay(0.5, "^blocks/", first=["^embed"])
    sgd = config.SGD(1.0, layer_decay=decay, stacked_axes={"^blocks/": 0}, learning_rate_multipliers={"head": 0.0})
    out = describe(sgd, capsys, "--params", "shapes.json").out
    assert table(out, "Factors of the learning rate") == [
        ["0", "1: head (2 of 22 numbers)"],
        ["0.0625", "1: embed (8 of 22 numbers)"],
        ["0.125 to 0.5", "1: blocks/kernel (12 of 22 numbers)"],
    ]
    assert "Factors" not in describe(config.SGD(1.0), capsys, "--params", "shapes.json").out


def test_everything_that_is_wrong_is_said_at_once_with_its_place(capsys):
    adamw = config.AdamW(0.1, exclude_from_weight_decay=["embed", "scael"], learning_rate_multipliers={"haed": 2.0})
    partition = config.Partition(
        [config.Group(["^head/", "haed"], adamw), config.Group(["bias"], config.SGD(0.1))],
        rest=config.SGD(0.1, stacked_axes={"kernal": 0}),
        layer_decay=config.LayerDecay(0.5, r"^block/(\d+)"),
    )
    out, err = describe(config.OptimizationConfig(partition), capsys, "--params", "shapes.json", status=1)
    found = [line.strip().partition(": ")[0] for line in err.splitlines()[1:]]
    assert found == ["optimizer.layer_decay", "optimizer.groups.0.match", "optimizer.groups"]
    assert "'head/bias' must have one label, got '^head/|haed' by the pattern '^head/' and 'bias' by" in err
    apart = config.Partition([partition.groups[0]], rest=partition.rest)
    err = describe(apart, capsys, "--params", "shapes.json", status=1).err
    found = [line.strip().partition(": ")[0] for line in err.splitlines()[1:]]
    assert found == [
        "groups.0.match",
        "groups.0.optimizer.exclude_from_weight_decay",
        "groups.0.optimizer.learning_rate_multipliers",
        "rest.stacked_axes",
    ]
    assert "'scael' matches none of the 7 parameters" in err  # of the whole, where "embed" matches one
    assert "Factors" not in out


def test_what_init_takes_describe_takes(capsys):
    """Parameters of other groups are masked out, and their paths count: what is wrong in one place is in the other."""
    decay = config.LARS(0.1, weight_decay_rate=0.1, exclude_from_weight_decay=["embed", "rank <= 0"])
    partition = config.Partition([config.Group(["^head/"], decay)], rest=config.Frozen())
    params = {"embed": {"table": np.ones((2, 2))}, "head": {"kernel": np.ones((2, 2)), "bias": np.ones(2)}}
    partition.make().init(params)
    out = describe(partition, capsys, "--params", "shapes.json").out
    assert "NOTHING in the group" in out


def test_plot_draws_a_curve_for_each_group(capsys):
    config.save(config.Partition([WAITING, HEAD], rest=config.Frozen()), "groups.yaml")
    config.save(config.SGD(0.25), "sgd.yaml")
    assert main(["plot", "groups.yaml", "sgd.yaml", "--steps", "120"]) == 0
    names = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()[-3:]]
    assert names == ["groups, biases", "groups, head", "sgd"]
    groups = by_group(config.load("groups.yaml"))
    assert list(groups) == ["biases", "head"]
    np.testing.assert_allclose(rates(groups["biases"], [0, 49, 50, 75]), [0, 0, 0.25, 0.125], rtol=1e-6)
    assert main(["plot", "groups.yaml", "-o", "groups.png"]) == 0
    assert Path("groups.png").stat().st_size > 1000


def test_what_is_frozen_has_no_learning_rate(capsys):
    out = describe(config.Frozen(), capsys).out
    assert out.startswith("thing.yaml: an optimizer: frozen\n")
    assert "Learning rate" not in out
    assert main(["plot", "thing.yaml"]) == 1
    assert capsys.readouterr().err == "thing.yaml: its optimizer has no learning rate\n"


@pytest.mark.parametrize("columns", [80, 30])
def test_names_of_fields_deep_in_a_group_are_not_broken_unless_they_fill_half_of_the_line(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    rate = optax_ext.LinearWarmup(optax_ext.CosineDecay(0.1, 9), 1)
    group = config.Group(
        ["kernel"], config.LARS(rate, exclude_from_layer_adaptation=["a long list", "of long patterns"])
    )
    recipe = config.OptimizationConfig(config.Partition([group], rest=config.Frozen()))
    lines = [line.strip() for line in describe(recipe, capsys).out.splitlines()]
    names = ["initial_learning_rate", "exclude_from_layer_adaptation"]
    assert [any(line.startswith(f"{name} ") for line in lines) for name in names] == 2 * [columns == 80]
