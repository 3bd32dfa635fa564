"""Overrides: each kind of key and of value, one error for all that do not fit, and nothing else changes."""

import json
from pathlib import Path

import pytest
import yaml

import optax_ext
from optax_ext import config
from optax_ext.cli import main

RATE = optax_ext.LinearWarmup(optax_ext.CosineDecay(6.4, 10_000, offset=500), 500)
RECIPE = config.OptimizationConfig(
    optimizer=config.LARS(
        RATE,
        weight_decay_rate=1e-4,
        exclude_from_weight_decay=["bias", "BatchNorm"],
        stacked_axes={"^blocks": 0, "^blocks.x/": 1},
    )
)


def problems(*overrides, recipe=RECIPE):
    with pytest.raises(config.ConfigError) as raised:
        config.override(recipe, overrides)
    return [str(problem) for problem in raised.value.problems]


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("optimizer.momentum=0.5", ["optimizer", "momentum"], 0.5),
        ("optimizer.momentum=1e-3", ["optimizer", "momentum"], 1e-3),
        (" optimizer.momentum = 0.5 ", ["optimizer", "momentum"], 0.5),
        ("optimizer.nesterov=true", ["optimizer", "nesterov"], True),
        ("optimizer.weight_decay_rate=0", ["optimizer", "weight_decay_rate"], 0.0),
        ("optimizer.exclude_from_weight_decay=[]", ["optimizer", "exclude_from_weight_decay"], []),
        (
            "optimizer.exclude_from_weight_decay=['rank <= 1']",
            ["optimizer", "exclude_from_weight_decay"],
            ["rank <= 1"],
        ),
        ("optimizer.exclude_from_weight_decay.1=a=b", ["optimizer", "exclude_from_weight_decay", 1], "a=b"),
        ("optimizer.exclude_from_weight_decay.0=x", ["optimizer", "exclude_from_weight_decay", 0], "x"),
        ("optimizer.learning_rate.after.decay_steps=5e3", ["optimizer", "learning_rate", "after", "decay_steps"], 5000),
        ("optimizer.learning_rate=.1", ["optimizer", "learning_rate"], 0.1),
        (
            "optimizer.learning_rate={type: constant, learning_rate: 0.1}",
            ["optimizer", "learning_rate"],
            {"type": "constant", "learning_rate": 0.1},
        ),
        ("optimizer.stacked_axes.^blocks=2", ["optimizer", "stacked_axes", "^blocks"], 2),
        ("optimizer.stacked_axes.^blocks.x/=2", ["optimizer", "stacked_axes", "^blocks.x/"], 2),
        ("optimizer.stacked_axes.^layers/=2", ["optimizer", "stacked_axes", "^layers/"], 2),
        (r"optimizer.stacked_axes.'^a.b\d='=2", ["optimizer", "stacked_axes", r"^a.b\d="], 2),
        (r'optimizer.stacked_axes."^a.\\d"=2', ["optimizer", "stacked_axes", r"^a.\d"], 2),
        ("'optimizer'.'momentum'=0.5", ["optimizer", "momentum"], 0.5),
        ("loss_scale={type: fixed, scale: 8}", ["loss_scale"], {"type": "fixed", "scale": 8}),
        ("loss_scale.type=dynamic", ["loss_scale"], {"type": "dynamic"}),
        ("ema.average_decay=0.999", ["ema"], {"average_decay": 0.999}),
        ("ema=null", ["ema"], None),
        ("optimizer={type: sgd, learning_rate: 1}", ["optimizer"], {"type": "sgd", "learning_rate": 1}),
    ],
)
def test_one_value_changes_and_no_other(text, path, value):
    data = config.to_dict(RECIPE, exclude_defaults=True)
    part = data
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    assert config.override(RECIPE, [text]) == config.from_dict(data)


def test_overrides_are_applied_in_order_and_checked_together():
    changed = config.override(
        RECIPE, ["optimizer.global_clipnorm=1", "optimizer={type: sgd, learning_rate: 1}", "optimizer.momentum=0.9"]
    )
    assert changed.optimizer == config.SGD(1.0, 0.9)
    assert config.override(RECIPE, ["accumulate_steps=2", "accumulate_steps=3"]).accumulate_steps == 3
    clipped = config.override(RECIPE, ["optimizer.clipnorm=1"])
    moved = config.override(clipped, ["optimizer.global_clipnorm=1", "optimizer.clipnorm=null"])
    assert (moved.optimizer.clipnorm, moved.optimizer.global_clipnorm) == (None, 1)


def test_nothing_is_changed_by_no_overrides():
    assert config.override(RECIPE, []) == RECIPE
    assert config.override(RECIPE, {}) == RECIPE


def test_a_mapping_takes_values_of_python():
    given = {"optimizer.learning_rate": RATE, "optimizer.learning_rate.after.decay_steps": 5, "optimizer.eeta": 1}
    changed = config.override(RECIPE, {**given, "ema": config.ParamsEma(0.5)})
    assert changed.optimizer.learning_rate == optax_ext.LinearWarmup(optax_ext.CosineDecay(6.4, 5, offset=500), 500)
    assert changed.ema == config.ParamsEma(0.5)
    assert RECIPE.optimizer.learning_rate == RATE


@pytest.mark.parametrize(
    "part", [RATE, config.SGD(0.1), config.DynamicLossScale(), config.ParamsEma()], ids=lambda part: type(part).__name__
)
def test_parts_of_recipes_have_overrides_too(part):
    key = {"LinearWarmup": "warmup_steps", "SGD": "decay", "ParamsEma": "start_step"}.get(
        type(part).__name__, "growth_steps"
    )
    assert getattr(config.override(part, [f"{key}=7"]), key) == 7


def test_parts_without_a_type_are_what_they_were():
    rule = {"type": "sgd", "learning_rate": 0.1}
    group = config.from_dict({"match": ["head"], "optimizer": rule}, config.Group)
    assert config.override(group, ["start_step=10%", "optimizer.momentum=0.9"]) == config.Group(
        ["head"], config.SGD(0.1, momentum=0.9), start_step="10%"
    )
    assert isinstance(config.from_dict({"optimizer": rule}, config.Group | config.OptimizationConfig), type(RECIPE))
    decay = config.LayerDecay(0.75, r"block(\d+)")
    assert config.from_dict(config.to_dict(decay), config.LayerDecay) == decay
    assert config.override(decay, ["decay=0.5"]).decay == 0.5
    run, rate = config.Run(steps=5), optax_ext.schedules.RatePerBatch(0.1, 256)
    assert config.override(run, ["steps=7"]).steps == 7
    assert config.override(rate, ["rule=sqrt"]).rule == "sqrt"


# ---------------------------------------------------------------------------------------------------------
# Errors


def test_an_error_names_the_overrides_and_has_every_problem():
    with pytest.raises(config.ConfigError) as raised:
        config.override(
            RECIPE, ["optimizer.momentum=2", "optimizer.lerning_rate=1", "loss_scale.scale=1", "optimiser=1"]
        )
    first, *rest = str(raised.value).splitlines()
    named = "optimizer.momentum=2, optimizer.lerning_rate=1, loss_scale.scale=1, optimiser=1"
    assert first == f"OptimizationConfig with {named}: 4 problems"
    assert [line.split(":")[0].strip() for line in rest] == [
        "optimizer.momentum",
        "optimizer.lerning_rate",
        "loss_scale.type",
        "optimiser",
    ]
    assert "did you mean 'learning_rate'?" in rest[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer.momentum", "must be KEY=VALUE, such as optimizer.momentum=0.9, got 'optimizer.momentum'"),
        ("optimizer.momentum=", "optimizer.momentum: has no value after the '=': write null for none, or ''"),
        ("optimizer.momentum= \n", "optimizer.momentum: has no value after the '='"),
        ("optimizer.momentum=# 0.9", "optimizer.momentum: is empty, but for comments"),
        ("optimizer.momentum=[", "optimizer.momentum: is not YAML that can be read"),
        ("=5", "must be names with dots between them, got '' for a part of the key, which has the fields 'optimizer'"),
        ("optimizer..momentum=5", "optimizer: must be names with dots between them, got '.momentum'"),
        ("optimizer.momentum.=5", "must be names with dots between them, got ''"),
        (
            "optimizer.weight_decay_rate.x=5",
            "optimizer.weight_decay_rate: has no fields, got 0.0001, where 'x' was to be set: "
            "set optimizer.weight_decay_rate={x: ...}",
        ),
        (
            "optimizer.exclude_from_weight_decay.2=x",
            "optimizer.exclude_from_weight_decay: has 2 entries, which count from 0, got '2' for one of them; to change"
            " its length, set the whole list, optimizer.exclude_from_weight_decay=[...]",
        ),
        ("optimizer.exclude_from_weight_decay.-1=x", "has 2 entries, which count from 0, got '-1'"),
        ("optimizer.exclude_from_weight_decay.bias=x", "has 2 entries, which count from 0, got 'bias'"),
        (
            "optimizer.exclude_from_layer_adaptation.0=x",
            "optimizer.exclude_from_layer_adaptation: is not set, and so has no entry 0: set the whole list, "
            "optimizer.exclude_from_layer_adaptation=[...]",
        ),
        (
            "optimizer.stacked_axes.^a.b=1",
            "optimizer.stacked_axes: has no '^a': put a new key that has dots in quotes, '^a.b', which has the fields",
        ),
        (".".join("a" * 5000) + "=1", "must have at most 32 levels"),
    ],
    ids=lambda text: text[:30],
)
def test_what_does_not_fit(text, expected):
    (problem,) = problems(text)
    assert expected in problem


def test_an_optimizer_alone_has_no_optimizer():
    with pytest.raises(config.ConfigError) as raised:
        config.override(config.SGD(0.1), ["optimizer.momentum=0.9"])
    (problem,) = raised.value.problems
    assert problem.message == "has no 'optimizer', since it is itself of type 'sgd': set momentum"


def test_every_override_that_does_not_fit_is_told():
    assert len(problems("a", "b", "optimizer.momentum=", "optimizer.momentum=0.5")) == 3


def test_a_part_of_what_an_override_set():
    (problem,) = problems("ema=1", "ema.average_decay=2")
    assert problem.startswith("ema: has no fields, got 1")


def test_a_changed_type_keeps_the_other_fields_and_says_so():
    lars = config.override(RECIPE, ["optimizer.eeta=0.01"])
    (unknown,) = problems("optimizer.type=sgd", recipe=lars)
    assert unknown.startswith("optimizer.eeta: unknown field")
    assert unknown.endswith(
        "the fields of 'lars' stay when its type changes: to drop them, set the whole part, optimizer={type: sgd, ...}"
    )
    assert "stay when its type changes" in problems("type=sgd", recipe=config.LARS(1.0, eeta=0.5))[0]
    assert config.override(RECIPE, ["optimizer.type=lamb"]).optimizer == config.LAMB(
        RATE,
        weight_decay_rate=1e-4,
        exclude_from_weight_decay=("bias", "BatchNorm"),
        stacked_axes={"^blocks": 0, "^blocks.x/": 1},
    )
    _, last = told = problems("optimizer.type=sgd", recipe=config.override(lars, ["optimizer.record=true"]))
    assert ["stay when" in problem for problem in told] == [False, True]
    assert last.startswith("optimizer.record: unknown field")
    (other,) = problems("optimizer.type=sgd", "optimizer.momentum=2")
    assert "stay when" not in other


@pytest.mark.parametrize("overrides", ["optimizer.momentum=0.9", None, 3, {"a=1"}], ids=repr)
def test_what_are_no_overrides(overrides):
    with pytest.raises(config.ConfigError, match="overrides: 1 problem\n  must be a list of KEY=VALUE, or a mapping"):
        config.override(RECIPE, overrides)


def test_items_that_are_no_text_are_told():
    assert "must be KEY=VALUE" in problems(3)[0]
    with pytest.raises(config.ConfigError, match="the key of an override must be text, got 3"):
        config.override(RECIPE, {3: 4})


def test_only_configs_have_overrides():
    with pytest.raises(config.ConfigError, match="must be a config, got {}: config.from_dict makes one of data"):
        config.override({}, [])


def test_many_and_long_overrides_leave_the_error_readable():
    with pytest.raises(config.ConfigError) as raised:
        config.override(RECIPE, ["x" * 500 + "=1", "a\nb=1", *["c=1"] * 20])
    first = str(raised.value).splitlines()[0]
    assert len(first) < 300
    assert r"'a\nb=1', c=1" in first
    assert "and 14 more: 3 problems" in first


# ---------------------------------------------------------------------------------------------------------
# Files and the command line


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config.save(RECIPE, "recipe.yaml", exclude_defaults=True)


def test_a_file_may_leave_a_required_field_to_an_override():
    Path("open.yaml").write_text("optimizer: {type: sgd}\n")
    with pytest.raises(config.ConfigError, match="open.yaml: 1 problem\n  optimizer.learning_rate: is required"):
        config.load("open.yaml")
    loaded = config.load("open.yaml", overrides=["optimizer.learning_rate=0.1"])
    assert loaded == config.OptimizationConfig(config.SGD(0.1))
    with pytest.raises(config.ConfigError) as raised:
        config.load("open.yaml", overrides=["optimizer.momentum=2"])
    assert [problem.path for problem in raised.value.problems] == ["optimizer.learning_rate", "optimizer.momentum"]
    assert raised.value.subject == "open.yaml with optimizer.momentum=2"


def test_the_place_of_an_alias_is_set_alone():
    Path("alias.yaml").write_text(
        "{type: lars, learning_rate: 1,"
        " exclude_from_weight_decay: &names [bias], exclude_from_layer_adaptation: *names}"
    )
    lars = config.load("alias.yaml", overrides=["exclude_from_weight_decay.0=scale"])
    assert (lars.exclude_from_weight_decay, lars.exclude_from_layer_adaptation) == (("scale",), ("bias",))


def test_what_a_file_is_not_is_told_before_what_overrides_do_not_find():
    Path("keras.json").write_text('{"class_name": "SGD", "config": {"learning_rate": 0.1}}')
    with pytest.raises(config.ConfigError, match=r"keras.json: 1 problem\n  is a config of Keras"):
        config.load("keras.json", overrides=["optimizer.momentum=0.1"])
    Path("list.json").write_text("[1]")
    with pytest.raises(config.ConfigError, match=r"must be a mapping"):
        config.load("list.json", overrides=["optimizer.momentum=0.1"])


def test_the_kind_is_asked_of_the_overridden_config():
    Path("sgd.yaml").write_text("{type: sgd, learning_rate: 0.1}")
    assert config.load("sgd.yaml", config.LARS, overrides=["type=lars"]) == config.LARS(0.1)
    with pytest.raises(config.ConfigError, match=r"sgd.yaml with type=lars: 1 problem\n  holds LARS where SGD"):
        config.load("sgd.yaml", config.SGD, overrides=["type=lars"])


SET = ["--set", "optimizer.learning_rate.after.initial_learning_rate=3.2", "--set", "accumulate_steps=2"]


def test_every_command_that_reads_a_recipe_sets_fields(capsys):
    changed = config.override(RECIPE, SET[1::2])
    assert main(["convert", "recipe.yaml", *SET]) == 0
    assert config.from_dict(json.loads(capsys.readouterr().out)) == changed
    assert main(["convert", *SET, "recipe.yaml", "-o", "changed.yaml"]) == 0
    assert config.load("changed.yaml") == changed
    for command in ("describe", "plot"):
        printed = []
        for arguments in (["changed.yaml"], ["recipe.yaml", *SET]):
            assert main([command, *arguments]) == 0
            printed.append(capsys.readouterr().out.replace("changed", "recipe"))
        assert printed[0] == printed[1]
        assert "3.2" in printed[0]
    assert main(["check", "recipe.yaml", "changed.yaml", *SET]) == 0


@pytest.mark.parametrize("command", ["check", "describe", "plot", "convert"])
def test_every_command_names_the_overrides_in_its_errors(command, capsys):
    assert main([command, "recipe.yaml", "--set", "optimizer.momentum=2", "--set", "ema.average_decay=3"]) == 1
    text = "".join(capsys.readouterr())
    assert text.startswith("recipe.yaml with optimizer.momentum=2, ema.average_decay=3: 2 problems\n")


def test_convert_sets_fields_of_our_recipes_only(capsys):
    Path("keras.json").write_text('{"class_name": "SGD", "config": {"learning_rate": 0.1}}')
    assert main(["convert", "keras.json", "--set", "momentum=0.9"]) == 2
    assert "--set is for recipes of ours: convert this file first" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["schema", "--set", "momentum=0.9"])


def test_values_are_read_as_those_of_files():
    for text in ("007", "1e-3", ".5", "0x10", "off", "'5'", "[1, a]", "{a: 1}", "5 epochs", "100% - 5 epochs + 1 step"):
        Path("value.yaml").write_text(f"optimizer: {{type: sgd, learning_rate: 0.1}}\nx: {text}\n")
        told = []
        for overrides in ([], [f"x={text}"]):
            with pytest.raises(config.ConfigError) as raised:
                config.load("value.yaml", overrides=overrides)
            told.append(raised.value.problems)
        assert told[0] == told[1]
    assert yaml.safe_load("1e-3") == "1e-3"  # which is why PyYAML alone does not do
