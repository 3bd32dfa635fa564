"""Dicts in and out: lossless, complete in their errors, and open to containers and to schedules of one's own."""

import collections
import dataclasses
import json
import pathlib
import typing

import jax
import ml_collections
import omegaconf
import optax
import pytest

import optax_ext
from optax_ext import config

RECIPE = config.OptimizationConfig(
    optimizer=config.LARS(
        learning_rate=optax_ext.LinearWarmup(optax_ext.CosineDecay(6.4, 10_000, offset=500), 500),
        weight_decay_rate=1e-4,
        exclude_from_weight_decay=("bias", "BatchNorm"),
        clipvalue=0.5,
    ),
    loss_scale=config.DynamicLossScale(growth_steps=100),
)
DATA = {
    "optimizer": {
        "type": "lars",
        "learning_rate": {
            "type": "linear_warmup",
            "after": {"type": "cosine_decay", "initial_learning_rate": 6.4, "decay_steps": 10_000, "offset": 500},
            "warmup_steps": 500,
        },
        "weight_decay_rate": 1e-4,
        "exclude_from_weight_decay": ["bias", "BatchNorm"],
        "clipvalue": 0.5,
    },
    "loss_scale": {"type": "dynamic", "growth_steps": 100},
}


def problems(data):
    with pytest.raises(config.ConfigError) as raised:
        config.from_dict(data)
    return {problem.path: problem.message for problem in raised.value.problems}


def test_a_recipe_is_written_with_its_tags_and_without_defaults_on_request():
    assert config.to_dict(RECIPE, exclude_defaults=True) == DATA
    everything = config.to_dict(RECIPE)
    assert everything["optimizer"]["exclude_from_layer_adaptation"] is None
    assert everything["loss_scale"]["hysteresis"] == 1
    assert config.from_dict(everything) == config.from_dict(DATA) == RECIPE
    assert json.loads(json.dumps(everything)) == everything


def test_arguments_come_in_the_order_of_the_signature():
    assert list(config.to_dict(RECIPE.optimizer))[:4] == ["type", "learning_rate", "momentum", "weight_decay_rate"]


@pytest.mark.parametrize(
    "part",
    [RECIPE.optimizer, RECIPE.loss_scale, RECIPE.optimizer.learning_rate, config.FixedLossScale(8.0), config.SGD(0.1)],
)
def test_a_part_of_a_recipe_is_a_config_too(part):
    assert config.from_dict(config.to_dict(part)) == part
    assert config.from_dict(part) is part


@pytest.mark.parametrize(
    "container",
    [
        lambda: ml_collections.ConfigDict(DATA),
        lambda: ml_collections.FrozenConfigDict(DATA),
        lambda: omegaconf.OmegaConf.create(DATA),
        lambda: {**DATA, "optimizer": omegaconf.OmegaConf.create(DATA["optimizer"])},
        lambda: collections.ChainMap(DATA),
        lambda: collections.OrderedDict(DATA),
    ],
)
def test_containers_of_config_libraries_are_mappings(container):
    assert config.from_dict(container()) == RECIPE


def test_what_omegaconf_cannot_resolve_is_a_problem_like_others():
    data = {"optimizer": omegaconf.OmegaConf.create({"type": "sgd", "learning_rate": "${missing}"})}
    assert "omegaconf cannot resolve it" in problems(data)["optimizer"]
    assert "omegaconf cannot resolve it" in problems(omegaconf.OmegaConf.create({"optimizer": "???"}))[""]


def test_eight_faults_are_eight_problems():
    data = {
        "optimizer": {
            "type": "lars",
            "learning_rate": {
                "type": "linear_warmup",
                "warmup_steps": True,
                "after": {"type": "cosine_decay", "initial_learning_rate": float("nan"), "decay_steps": -5},
            },
            "momentun": 0.9,
            "weight_decay_rate": "1e-4",
            "exclude_from_weight_decay": "bias",
        },
        "loss_scale": {"type": "dinamic"},
        "emma": {"average_decay": 0.99},
    }
    found = problems(data)
    assert list(found) == [
        "optimizer.learning_rate.after.initial_learning_rate",
        "optimizer.learning_rate.after.decay_steps",
        "optimizer.learning_rate.warmup_steps",
        "optimizer.weight_decay_rate",
        "optimizer.exclude_from_weight_decay",
        "optimizer.momentun",
        "loss_scale.type",
        "emma",
    ]
    assert found["optimizer.learning_rate.after.decay_steps"] == "must be greater than 0, got -5"
    assert found["optimizer.learning_rate.warmup_steps"] == "must be an integer, got True"
    assert found["optimizer.exclude_from_weight_decay"] == "must be a list, got 'bias': write [bias]"
    assert found["optimizer.momentun"].startswith("unknown field (did you mean 'momentum'?), accepted: learning_rate,")
    assert found["loss_scale.type"].startswith("unknown type 'dinamic' (did you mean 'dynamic'?), accepted: 'dynamic'")


@pytest.mark.parametrize(
    ("data", "path", "message"),
    [
        ({}, "", "must have an 'optimizer', or a 'type' that is one of"),
        ({"optimiser": {"type": "sgd", "learning_rate": 1}}, "optimiser", "unknown field (did you mean 'optimizer'?)"),
        ({"typo": "sgd"}, "", "got ['typo'] (did you mean 'type'?)"),
        ([], "", "must be a mapping with a 'type'"),
        (None, "", "must be a mapping with a 'type'"),
        ("lars", "", "must be a mapping with a 'type'"),
        ({"type": "lrs"}, "type", "unknown type 'lrs' (did you mean 'lars'?)"),
        ({"type": 3}, "type", "unknown type 3"),
        ({"type": None}, "type", "unknown type None"),
        ({1: 2}, "", "must have text for keys, got 1"),
        ({"optimizer": None}, "optimizer", "must be a mapping with a 'type', one of 'adadelta',"),
        ({"optimizer": {"type": "constant"}}, "optimizer.type", "unknown type 'constant', accepted: 'adadelta',"),
        ({"optimizer": {"learning_rate": 1}}, "optimizer.type", "is required: one of"),
        ({"type": "fixed"}, "scale", "is required"),
        ({"type": "fixed", "scale": 0}, "scale", "must be greater than 0, got 0"),
        ({"type": "fixed", "scale": 1, "skip_nonfinite": "no"}, "skip_nonfinite", "must be true or false, got 'no'"),
        ({"type": "dynamic", "initial_scale": 0.5}, "initial_scale", "must be in [min_scale, max_scale] = [1.0, "),
        ({"type": "dynamic", "min_scale": 8, "max_scale": 4}, "min_scale", "must be at most max_scale = 4.0, got 8.0"),
        ({"type": "fixed", "scale": 1e-40}, "scale", "must be representable in float32, got 1e-40"),
        ({"type": "LARS"}, "type", "unknown type 'LARS' (did you mean 'lars'?)"),
        (
            {"type": "lars", "optimizer": {"type": "sgd", "learning_rate": 1}},
            "type",
            "unknown field, accepted: optimizer",
        ),
        ({"type": "constant", "learning_rate": 10**5000}, "learning_rate", "must be a finite number, got int too long"),
        ({"type": "constant", "learning_rate": jax.random.key(0)}, "learning_rate", "must be a number, got"),
        ({"type": "dynamic", "multiplier": 1.0}, "multiplier", "must be greater than 1, got 1.0"),
        ({"type": "sgd", "learning_rate": 1, "momentum": 2}, "momentum", "must be less than or equal to 1, got 2"),
        (
            {"type": "sgd", "learning_rate": 1, "clipnorm": 1, "global_clipnorm": 2},
            "global_clipnorm",
            "must not be given with clipnorm, got 2.0 with 1.0",
        ),
        (
            {"type": "lars", "learning_rate": 1, "exclude_from_weight_decay": ["ok", "("]},
            "exclude_from_weight_decay.1",
            "must be a regular expression, got '('",
        ),
        (
            {"type": "lars", "learning_rate": 1, "exclude_from_weight_decay": ["a" * 1001]},
            "exclude_from_weight_decay.0",
            "must have at most 1000 characters",
        ),
    ],
)
def test_what_is_wrong_is_said(data, path, message):
    found = problems(data)
    assert list(found) == [path]
    assert message in found[path]


KERAS = {"class_name": "SGD", "config": {"learning_rate": 0.1}}
GARDEN = {"optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}}, "learning_rate": {"type": "constant", "constant": {}}}
FROM_KERAS = "is a config of Keras: translate it with `optax-ext convert FILE`, or in Python with interop.from_keras"
FROM_GARDEN = (
    "is a recipe of Model Garden: translate it with `optax-ext convert FILE`, or in Python with "
    "interop.from_model_garden"
)


@pytest.mark.parametrize(
    ("data", "path", "message"),
    [
        (KERAS, "", FROM_KERAS),
        ({"module": "keras.optimizers", **KERAS, "registered_name": None}, "", FROM_KERAS),
        (
            {"name": "SGD", "learning_rate": 0.1, "momentum": 0.9},
            "",
            "is a config of Keras: translate it with `optax-ext convert FILE`, or in Python with interop.from_keras",
        ),
        (
            {"optimizer": KERAS, "loss": "mse"},
            "optimizer",
            "is a config of Keras: translate it with `optax-ext convert FILE`, or in Python with interop.translate",
        ),
        ({"training_config": {"optimizer_config": KERAS}}, "training_config.optimizer_config", "interop.translate"),
        ({"type": "sgd", "learning_rate": KERAS}, "learning_rate", "interop.from_keras"),
        (GARDEN, "", FROM_GARDEN),
        ({"optimizer_config": GARDEN}, "", FROM_GARDEN),
        ({"task": {}, "trainer": {"optimizer_config": GARDEN}, "runtime": {}}, "", FROM_GARDEN),
        ({"trainer": {"train_steps": 5}}, "", FROM_GARDEN),
        ({"learning_rate": {"cosine": {"decay_steps": 7}}}, "", FROM_GARDEN),
        ({"warmup": {"type": "linear", "linear": {"warmup_steps": 7}}}, "", FROM_GARDEN),
    ],
)
def test_what_keras_and_model_garden_write_names_its_importer(data, path, message):
    found = problems(data)
    assert list(found) == [path]
    assert message in found[path]


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"optimizer": {"learning_rate": {"type": "constant"}}}, "optimizer.type"),
        ({"optimizer": {"type": "sgd", "learning_rate": 1}, "trainer": {}}, "trainer"),
        ({"optimizer": {"type": ["sgd"], "learning_rate": 1}}, "optimizer.type"),
        ({"name": "the best", "batch_size": 8}, ""),
        ({"name": "the best", "optimizer": {"type": "sgd", "learning_rate": 1}}, "name"),
        ({"type": "sgd", "learning_rate": 1, "name": "SGD"}, "name"),
        ({"type": "sgd", "learning_rate": 1, "trainer": {}}, "trainer"),
        ({"learning_rate": 0.1, "warmup": 5}, ""),
    ],
)
def test_what_is_nearly_ours_is_not_taken_for_theirs(data, path):
    found = problems(data)
    assert path in found
    assert "Keras" not in found[path]
    assert "Model Garden" not in found[path]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("recipe.yaml", "must be a mapping with a 'type' or an 'optimizer', got 'recipe.yaml': config.load reads"),
        (pathlib.Path("recipe.yaml"), "recipe.yaml'): config.load reads a file, and json.loads or yaml.safe_load text"),
        ({"run": {"optimizer": {}}, "seed": 1}, "got ['run', 'seed']: give what is under 'run'"),
        ({"rate": {"type": "constant", "learning_rate": 1}}, "got ['rate']: give what is under 'rate'"),
        ({"optimization": {"optimizer": {}}}, "got ['optimization']: give what is under 'optimization'"),
    ],
)
def test_what_holds_a_config_is_told_from_one(data, message):
    assert message in problems(data)[""]


def test_a_misspelled_optimizer_hides_no_other_problem():
    accepted = "optimizer, loss_scale, ema, master_weights, accumulate_steps, run"
    text = f"unknown field (did you mean 'optimizer'?), accepted: {accepted}"
    sgd = {"type": "sgd", "learning_rate": 0.1}
    for key in ("optimiser", "Optimizer", "optimizers", "optim"):
        assert problems({key: sgd}) == {key: text}
    found = problems(
        {"optimiser": {**sgd, "learning_rate": -1}, "loss_scale": {"type": "fixed", "scale": 0}, "seed": 1}
    )
    assert set(found) == {"optimiser", "optimiser.learning_rate", "loss_scale.scale", "seed"}
    assert found["optimiser"] == text
    assert found["optimiser.learning_rate"] == "must be greater than or equal to 0, got -1"
    assert "optimiser" in problems({"type": "sgd", "learning_rate": 0.1, "optimiser": {}})  # a field of no optimizer


@pytest.mark.parametrize("transformation", [optax.sgd(0.1), config.SGD(0.1).make()], ids=["of Optax", "ours"])
def test_a_transformation_is_no_optimizer_of_a_recipe(transformation):
    with pytest.raises(config.ConfigError) as raised:
        config.OptimizationConfig(transformation)
    (problem,) = raised.value.problems
    assert problem == (
        "optimizer",
        "must be an optimizer of config, got a transformation of Optax: a recipe is data, which a transformation is"
        " not; use a schema such as config.SGD(...), or chain the transformation with what make() of a recipe returns",
    )


def test_a_union_of_kinds_may_be_spelled_either_way():
    sgd = config.SGD(0.1)
    for union in (config.SGD | config.LARS, typing.Union[config.SGD, config.LARS]):  # noqa: UP007 (the other spelling)
        assert config.from_dict(config.to_dict(sgd), union) == sgd
        with pytest.raises(config.ConfigError, match="holds Constant where SGD or LARS was asked for"):
            config.from_dict(optax_ext.Constant(0.1), union)


def test_a_type_that_nobody_defined_may_wait_for_its_module():
    hint = "; if it is yours, import the module that defines it first, with --import MODULE for optax-ext"
    for unknown in ("zigzag", "our_cosine_decay"):
        assert hint in problems({"type": "sgd", "learning_rate": {"type": unknown}})["learning_rate.type"]
    for known_or_no_text in ("lars", 3):
        assert hint not in problems({"type": "sgd", "learning_rate": {"type": known_or_no_text}})["learning_rate.type"]


def test_a_bad_scale_does_not_hide_other_problems():
    found = problems({"type": "dynamic", "initial_scale": 0.5, "growth_steps": 0})
    assert list(found) == ["growth_steps", "initial_scale"]


def test_a_class_of_ones_own_does_not_displace_ours_in_the_json_schema():
    before = config.json_schema()["$defs"]["constant"]

    @dataclasses.dataclass(frozen=True)
    class Constant(optax_ext.Schedule):  # pyright: ignore[reportUnusedClass]
        type = "my_constant"
        rate: float

        def __call__(self, step):
            return jax.numpy.float32(self.rate)

    assert config.json_schema()["$defs"]["constant"] == before
    assert config.json_schema()["$defs"]["my_constant"]["required"] == ["type", "rate"]


def test_nesting_without_end_is_refused_at_once():
    deep = {"type": "constant", "learning_rate": 0.1}
    for _ in range(40):
        deep = {"type": "linear_warmup", "warmup_steps": 1, "after": deep}
    assert "at most 32 levels" in next(iter(problems(deep).values()))
    itself = {"type": "linear_warmup", "warmup_steps": 1}
    itself["after"] = itself
    assert "at most 32 levels" in next(iter(problems(itself).values()))
    wide = [0] * 1000
    assert "100000 values" in next(iter(problems({"type": "sgd", "learning_rate": [[wide] * 100] * 100}).values()))


@pytest.mark.parametrize("value", [object(), 3, None, {"type": "lars"}])
def test_only_configs_are_written(value):
    with pytest.raises(config.ConfigError, match="must be a config, got"):
        config.to_dict(value)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ({"type": "lars"}, ": config.from_dict makes one of data"),
        (config.LARS, r": construct it, LARS\(\.\.\.\)"),
        (config.LARS(0.1).make(), ": a transformation does not tell what it was made from"),
    ],
)
def test_what_could_be_a_config_is_told_how(value, hint):
    with pytest.raises(config.ConfigError, match=f"must be a config, got .*{hint}$"):
        config.to_dict(value)


def test_a_schedule_of_ones_own_loads_saves_and_is_in_the_json_schema(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Triangle(optax_ext.Schedule):
        """A rise and a fall.

        Args:
          peak: The highest rate.
        """

        type = "my_triangle"
        peak: float
        knots: tuple[int, ...] = (1, 2)

        def __call__(self, step):
            return optax_ext.Constant(self.peak)(step)

    recipe = config.SGD(learning_rate=optax_ext.LinearWarmup(Triangle(0.5, (3, 4)), 10))
    data = config.to_dict(recipe)
    assert data["learning_rate"]["after"] == {"type": "my_triangle", "peak": 0.5, "knots": [3, 4]}
    assert config.from_dict(data) == recipe
    config.save(recipe, tmp_path / "recipe.yaml")
    assert config.load(tmp_path / "recipe.yaml") == recipe
    assert problems({"type": "my_triangle", "peak": "high"}) == {"peak": "must be a number, got 'high'"}
    schema = config.json_schema()
    assert schema["$defs"]["my_triangle"]["properties"]["type"] == {"const": "my_triangle"}
    assert schema["$defs"]["my_triangle"]["properties"]["peak"]["description"] == "The highest rate."
    assert {"$ref": "#/$defs/my_triangle"} in schema["$defs"]["Schedule"]["anyOf"]
