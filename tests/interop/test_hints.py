"""What an error of Model Garden's importer advises does lead to a recipe: each piece of advice is followed.

The first six sources are real files that have to be refused; who follows all that their error says gets a recipe.
"""

import copy

import pytest

from optax_ext import config, interop

COSINE = {"initial_learning_rate": 0.1, "decay_steps": 100}
RATE = {"learning_rate": {"type": "cosine", "cosine": COSINE}}
RECIPE = {"optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}}, **RATE, "warmup": {"type": "linear"}}
BASE = {**RECIPE, "warmup": {"type": "linear", "linear": {"warmup_steps": 5}}}
LAMB = {"type": "lamb", "lamb": {"weight_decay_rate": 0.01, "exclude_from_weight_decay": ["LayerNorm", "bias"]}}
DYMOW = {"momentum": 0.937, "momentum_start": 0.8, "nesterov": True, "warmup_steps": 5550, "weight_decay": 0.0005}


def experiment(runtime=None, **sections):
    return {"runtime": runtime or {}, "trainer": {"train_steps": 9, "optimizer_config": {**RECIPE, **sections}}}


def whole(**sections):
    return experiment(warmup={"type": None}, **sections)


def set_(source, path, value):
    """Return a source with another value at a path, None for no such key."""
    source = copy.deepcopy(source)
    *keys, last = path.split(".")
    node = source
    for key in keys:
        node = node.setdefault(key, {})
    if value is None:
        node.pop(last)
    else:
        node[last] = value
    return source


def edit(*changes):
    """Return the function that makes all these changes to a source; where they are sections, in its trainer."""

    def follow(source):
        for path, value in changes:
            of_recipe = path.partition(".")[0] in ("optimizer", "learning_rate", "warmup", "ema")
            source = set_(source, f"trainer.optimizer_config.{path}" if of_recipe else path, value)
        return source, None

    return follow


def with_base(source):
    return source, BASE


EPOCH = {"type": "cosine_epoch", "cosine_epoch": {**COSINE, "steps_per_epoch": 1850}}

# What is refused, what its error advises, what follows that.
ADVICE = [
    # m008
    (
        {"layer_wise_distillation": {"num_steps": 9}, "optimizer": {"optimizer": LAMB}, "runtime": {}},
        ["move what is under it to trainer.optimizer_config", "learning_rate.type: is missing", "add what is missing"],
        lambda source: ({"trainer": {"optimizer_config": {**source["optimizer"], **RATE}}, "runtime": {}}, None),
    ),
    # m009
    (
        {"trainer": {"optimizer_config": {"optimizer": {"sgd": {"warmup_steps": 500}}, **RATE}}},
        ["optimizer.sgd.warmup_steps: unknown field", "optimizer.type: is missing (the block 'sgd' alone"],
        edit(("optimizer.type", "sgd"), ("optimizer.sgd.warmup_steps", None)),
    ),
    # m010 and m011
    ({"trainer": {"optimizer_config": RATE}}, ["optimizer.type: is missing", "config of that one as base"], with_base),
    (
        {
            "trainer": {
                "optimizer_config": {"learning_rate": {"cosine": COSINE}, "warmup": {"linear": {"warmup_steps": 9}}}
            }
        },
        ["learning_rate.type", "warmup.type", "optimizer.type", "config of that one as base"],
        with_base,
    ),
    # m024 and m025
    (
        whole(optimizer={"type": "sgd_dymow", "sgd_dymow": DYMOW}),
        [
            "optimizer.type: 'sgd_dymow' is not one of Model Garden's own types",
            "one of 'sgd', ",
            "a block of that name",
        ],
        edit(("optimizer", {"type": "sgd", "sgd": {"momentum": 0.937, "nesterov": True}})),
    ),
    (
        whole(optimizer={"type": "sgd_dymow", "sgd_dymow": DYMOW}, learning_rate=EPOCH),
        ["learning_rate.type: 'cosine_epoch' is not", "optimizer.type: 'sgd_dymow' is not", "a block of that name"],
        edit(("optimizer", {"type": "sgd"}), ("learning_rate", {"type": "cosine", "cosine": COSINE})),
    ),
    # and what else there is
    (
        {"runtime": {}, **BASE},
        [
            "optimizer: is not read",
            "move it to trainer.optimizer_config.optimizer",
            "learning_rate: is not read",
            "warmup: is not read",
        ],
        lambda _: ({"runtime": {}, "trainer": {"optimizer_config": BASE}}, None),
    ),
    (
        {"trainer": BASE},
        ["move it to trainer.optimizer_config.warmup"],
        lambda _: ({"trainer": {"optimizer_config": BASE}}, None),
    ),
    ({"trainr": {"optimizer_config": BASE}}, ["did you mean 'trainer'?"], lambda s: ({"trainer": s["trainr"]}, None)),
    (
        {"task": {}, "student": {"optimizer": LAMB}, "trainer": {}},
        ["give the optimizer in trainer.optimizer_config"],
        lambda _: ({"task": {}, "trainer": {"optimizer_config": {"optimizer": LAMB, **RATE}}}, None),
    ),
    (
        {"task": {"differential_privacy_config": {"clipping_norm": 1}}, "trainer": {"optimizer_config": BASE}},
        ["set it to null"],
        edit(("task.differential_privacy_config", None)),
    ),
    (experiment(), ["warmup.linear.warmup_steps: is missing"], edit(("warmup.linear.warmup_steps", 9))),
    (whole(optimizer={"type": "sgdd"}), ["(did you mean 'sgd'?)"], edit(("optimizer.type", "sgd"))),
    (
        whole(optimizer={"type": "slide"}),
        ["choose one of 'sgd'", "with a block of that name"],
        edit(("optimizer", LAMB)),
    ),
    (whole(optimizer={"type": "sgd", "sgd": None}), ["optimizer.sgd: is null"], edit(("optimizer.sgd", {}))),
    (
        whole(optimizer={"type": "adamw", "adamw": {"weight_decay": 0.1}}),
        ["did you mean 'weight_decay_rate'?"],
        edit(("optimizer.adamw", {"weight_decay_rate": 0.1})),
    ),
    (
        whole(optimizer={"type": "rmsprop", "rmsprop": {"decay": 0.9}}),
        ["unknown field, accepted: clipnorm,"],
        edit(("optimizer.rmsprop.decay", None)),
    ),
    (
        whole(learning_rate={"type": "cosine", "cosine": COSINE, "initial_learning_rate": 0.2}),
        ["give only one of them"],
        edit(("learning_rate.initial_learning_rate", None)),
    ),
    (
        whole(learning_rate={"type": "cosine", "cosine": COSINE, "cosin": {}}),
        ["did you mean 'cosine'?"],
        edit(("learning_rate.cosin", None)),
    ),
    (
        whole(ema={"clipnorm": 1.0}),
        ["set it for the optimizer"],
        edit(("ema.clipnorm", None), ("optimizer.sgd.clipnorm", 1.0)),
    ),
    (whole(ema=""), ["or null for none"], edit(("ema", None))),
    (
        whole(optimizer={"type": "lars", "lars": {"exclude_from_weight_decay": ["bias", "rank <= 1"]}}),
        ["drop it, or add it to the recipe once it is translated"],
        edit(("optimizer.lars.exclude_from_weight_decay", ["bias"])),
    ),
    *(
        (
            set_(whole(), "runtime", {"mixed_precision_dtype": "float16", "loss_scale": "big"}),
            ["must be 'dynamic', a number or null"],
            edit(("runtime.loss_scale", value)),
        )
        for value in ("dynamic", 128, None)
    ),
    *(
        (
            set_(whole(), "runtime.mixed_precision_dtype", "half"),
            [f"'{dtype}'"],
            edit(("runtime.mixed_precision_dtype", dtype)),
        )
        for dtype in ("float32", "float16", "bfloat16")
    ),
    (
        set_(whole(), "task", {"losses": {"l2_weight_decay": "small"}}),
        ["must be a number"],
        edit(("task.losses.l2_weight_decay", 0.0)),
    ),
    ({"optimizer_config": None}, ["is null"], lambda _: ({"optimizer_config": BASE}, None)),
]


@pytest.mark.filterwarnings("ignore::optax_ext.interop.TranslationWarning")
@pytest.mark.parametrize(("source", "advice", "follow"), ADVICE, ids=[entry[1][0][:60] for entry in ADVICE])
def test_who_follows_the_advice_gets_a_recipe(source, advice, follow):
    with pytest.raises(config.ConfigError) as caught:
        interop.from_model_garden(source)
    for text in advice:
        assert text in str(caught.value)
    followed, base = follow(source)
    assert isinstance(interop.from_model_garden(followed, base), config.OptimizationConfig)


def test_a_pattern_of_ranks_is_added_to_the_translated_recipe():
    lars = {"type": "lars", "lars": {"exclude_from_weight_decay": ["bias"]}}
    data = config.to_dict(interop.from_model_garden({"optimizer": lars, **RATE}))
    data["optimizer"]["exclude_from_weight_decay"].append("rank <= 1")
    assert config.from_dict(data).optimizer.exclude_from_weight_decay == ("bias", "rank <= 1")


@pytest.mark.parametrize(
    ("source", "advice", "read"),
    [
        ({"class_name": "SGD", "config": {}}, "read it with interop.from_keras", interop.from_keras),
        ({"type": "sgd", "learning_rate": 0.1}, "read it with config.from_dict", config.from_dict),
        ({"optimizer": {"type": "sgd", "learning_rate": 0.1}}, "read it with config.from_dict", config.from_dict),
    ],
)
def test_what_others_wrote_is_read_by_what_the_error_names(source, advice, read):
    with pytest.raises(config.ConfigError, match=advice):
        interop.from_model_garden(source)
    assert read(source).make()
