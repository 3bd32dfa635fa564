"""describe: the chain, the fields, the patterns and the rates, in tables."""

import dataclasses
import itertools
import json
import re
import sys
from pathlib import Path
from typing import ClassVar

import jax
import optax
import pytest

import optax_ext
from optax_ext import config
from optax_ext.cli import main
from optax_ext.cli._params import pattern_lists, read_shapes

SHAPES = {"conv1": {"kernel": [3, 3, 1, 8], "bias": [8]}, "BatchNorm_0": {"scale": [8], "bias": [8]}, "scale": []}
WARMUP = optax_ext.LinearWarmup(optax_ext.CosineDecay(6.4, 10_000, offset=500), 500)


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    Path("shapes.json").write_text(json.dumps(SHAPES))


def describe(thing, capsys, *arguments, status=0):
    config.save(thing, "thing.yaml")
    assert main(["describe", "thing.yaml", *arguments]) == status
    return capsys.readouterr()


def chain(thing):
    return thing.stages()


def names(thing):
    return [stage.name for stage in chain(thing) if not stage.does_nothing]


# ---------------------------------------------------------------------------------------------------------
# The chain


def test_the_classic_form_of_lars_puts_momentum_last():
    lars = config.LARS(0.1, weight_decay_rate=1e-4)
    assert names(lars) == ["weight decay", "trust ratio", "learning rate", "momentum"]


def test_the_popular_form_of_lars_puts_momentum_first():
    lars = config.LARS(0.1, weight_decay_rate=1e-4, classic_momentum=False)
    assert names(lars) == ["weight decay", "momentum", "trust ratio", "learning rate"]


def test_sgd_has_the_learning_rate_inside_the_momentum():
    assert names(config.SGD(0.1, momentum=0.9, nesterov=True)) == ["learning rate", "momentum"]


def test_what_does_nothing_is_not_mentioned():
    assert names(config.LARS(0.1, momentum=0.0)) == ["trust ratio", "learning rate"]
    assert names(config.SGD(0.1)) == ["learning rate"]


def test_clipping_comes_before_and_loss_scaling_around():
    sgd = config.SGD(0.1, clipvalue=1.0, global_clipnorm=2.0)
    dynamic = config.OptimizationConfig(optimizer=sgd, loss_scale=config.DynamicLossScale(hysteresis=2))
    inner = ["clip by value", "clip by global norm", "learning rate"]
    assert names(dynamic) == ["unscale", *inner, "adapt loss scale"]
    fixed = config.OptimizationConfig(optimizer=sgd, loss_scale=config.FixedLossScale(128.0))
    assert names(fixed) == ["unscale", *inner]
    assert names(config.SGD(0.1, clipnorm=1.0)) == ["clip by norm", "learning rate"]
    masters = config.OptimizationConfig(sgd, config.FixedLossScale(128.0), master_weights=True)
    assert names(masters) == ["unscale", "master weights", *inner]


def test_the_effects_name_the_numbers():
    lars = config.LARS(WARMUP, weight_decay_rate=1e-4, eeta=0.002, decay=0.5, nesterov=True)
    recipe = config.OptimizationConfig(
        optimizer=lars,
        loss_scale=config.DynamicLossScale(max_scale=65536.0, hysteresis=2, count_skipped_steps=True),
    )
    effects = " | ".join(stage.effect for stage in chain(recipe))
    for expected in ("0.0001 x", "0.002 x", "linear_warmup, then cosine_decay", "1 + 0.5 x step", "Nesterov"):
        assert expected in effects
    for expected in ("at first 32768", "counts", "up to 65536", "from number 2 in a row on"):
        assert expected in effects
    unforgiving = config.DynamicLossScale(hysteresis=3, consecutive_hysteresis=False, check_updates=True)
    assert "any gradient or new parameter is not finite" in chain(unforgiving)[0].effect
    assert "from number 3 since it last grew on" in chain(unforgiving)[-1].effect
    assert "whether finite or not" in chain(config.FixedLossScale(2.0, skip_nonfinite=False))[0].effect


def test_the_divisor_of_the_trust_ratio_of_lars_is_said_in_full():
    def ratio(**fields):
        return next(stage.effect for stage in chain(config.LARS(0.1, **fields)) if "scale each layer" in stage.effect)

    assert ratio().endswith("0.001 x norm of parameter / norm of gradient")
    assert ratio(epsilon=1e-7).endswith("/ (norm of gradient + 1e-07)")
    assert ratio(epsilon=1e-7, classic_momentum=False).endswith("/ (norm of momentum + 1e-07)")
    separate = ratio(epsilon=1e-7, separate_norms=True, weight_decay_rate=5e-5, max_ratio=2.0)
    assert separate.endswith("/ (norm of gradient + 5e-05 x norm of parameter + 1e-07), but at most 2")


def test_an_empty_list_of_patterns_excludes_nothing_and_none_is_the_other_list():
    lars = config.LARS(0.1, weight_decay_rate=1e-4, exclude_from_weight_decay=["bias"])
    assert [stage.effect.count("bias") for stage in chain(lars)] == [1, 1, 0, 0]
    lars = config.LARS(
        0.1, weight_decay_rate=1e-4, exclude_from_weight_decay=["bias"], exclude_from_layer_adaptation=()
    )
    assert [stage.effect.count("bias") for stage in chain(lars)] == [1, 0, 0, 0]


def test_an_optimizer_of_a_user_says_its_stages_and_a_loss_scale_without_words_shows_its_fields():
    @dataclasses.dataclass(frozen=True)
    class Plain(config.Optimizer):
        type = "tested_plain_optimizer"
        beta: float = 0.5

        def _stages(self):
            own = config.Stage(type(self).__name__, f"beta={self.beta}", optax.identity())
            return [own, self._learning_rate_stage()]

    @dataclasses.dataclass(frozen=True)
    class Around(config.LossScale):
        type = "tested_loss_scale"
        amount: float = 2.0

        def wrap(self, inner):
            return inner

    recipe = config.OptimizationConfig(optimizer=Plain(0.1, clipvalue=1.0), loss_scale=Around())
    assert [stage[:2] for stage in chain(recipe)][::2] == [("Around", "amount=2.0"), ("Plain", "beta=0.5")]


def test_whatever_else_a_recipe_of_a_user_has_is_said_by_it():
    @dataclasses.dataclass(frozen=True)
    class WithMore(config.OptimizationConfig):
        more: optax_ext.Constant | None = None

        def stages(self):
            stages = self.optimizer.stages()
            if self.more is not None:
                stages.append(config.Stage("more", f"learning_rate={self.more.learning_rate}", None))
            return self.loss_scale.stages(stages)

    recipe = WithMore(optimizer=config.SGD(0.1), loss_scale=config.FixedLossScale(2.0), more=optax_ext.Constant(0.5))
    assert names(recipe) == ["unscale", "learning rate", "more"]
    assert chain(recipe)[-1].effect == "learning_rate=0.5"


# Of every optimizer, with what it can do at once: the names and words of its stages.
SAID = [
    (
        config.SGD(0.1, momentum=0.9, nesterov=True, clipvalue=2.0, clipnorm=1.0),
        [
            "clip by value   each number to at most 2 either way",
            "clip by norm    each gradient by itself to a norm of at most 1",
            "learning rate   times minus the rate: a constant 0.1",
            "momentum        add 0.9 x the momentum so far, looking one step ahead (Nesterov)",
        ],
    ),
    (
        config.LARS(WARMUP, weight_decay_rate=1e-4, exclude_from_weight_decay=["bias", "BatchNorm"]),
        [
            "weight decay    add 0.0001 x parameter, except where a path has 'bias' or 'BatchNorm'",
            "trust ratio     scale each layer by 0.001 x norm of parameter / norm of gradient, except where a path has "
            "'bias' or 'BatchNorm'",
            "learning rate   times minus the rate: linear_warmup, then cosine_decay",
            "momentum        add 0.9 x the momentum so far",
        ],
    ),
    (
        config.LAMB(0.1, weight_decay_rate=0.01, exclude_from_weight_decay=["bias"], exclude_from_layer_adaptation=[]),
        [
            "moments         scale by the moments of the gradient, decays 0.9 and 0.999, epsilon 1e-06 (beside the "
            "corrected root)",
            "weight decay    add 0.01 x parameter, except where a path has 'bias'",
            "trust ratio     scale each layer by norm of parameter / norm of update",
            "learning rate   times minus the rate: a constant 0.1",
        ],
    ),
    (
        config.Adam(0.1, amsgrad=True, decay=0.5),
        [
            "moments         scale by the moments of the gradient, decays 0.9 and 0.999, epsilon 1e-07 (TensorFlow's "
            "epsilon hat), with the largest second moment so far (AMSGrad)",
            "learning rate   times minus the rate: a constant 0.1, divided by 1 + 0.5 x step",
        ],
    ),
    (
        config.AdamW(
            0.1,
            weight_decay_rate=0.01,
            include_in_weight_decay=["LayerNorm/scale"],
            exclude_from_weight_decay=["LayerNorm", "bias"],
            clipvalue=0.5,
        ),
        [
            "clip by gradient_clip_norm   all together to a norm of at most 1",
            "clip by value                each number to at most 0.5 either way",
            "moments                      scale by the moments of the gradient, decays 0.9 and 0.999, epsilon 1e-07 "
            "(TensorFlow's epsilon hat)",
            "weight decay                 add 0.01 x parameter, except where a path has 'LayerNorm' or 'bias', unless "
            "it also has 'LayerNorm/scale'",
            "learning rate                times minus the rate: a constant 0.1",
        ],
    ),
    (
        config.RMSprop(0.1, momentum=0.9, centered=True, global_clipnorm=1.0),
        [
            "clip by global norm   all together to a norm of at most 1",
            "mean square           divide by the running standard deviation (centered), decay 0.9, epsilon 1e-07 "
            "inside the root, as always with momentum",
            "learning rate         times minus the rate: a constant 0.1",
            "momentum              add 0.9 x the momentum so far",
        ],
    ),
    (
        config.Adafactor(0.1, clip_threshold=2.0),
        [
            "mean square      divide by the root of the running mean square, of matrices by the means of rows and "
            "columns, decay 1 - t**-0.8, epsilon 1e-30 in the squares",
            "clip update      the update of each parameter by itself to a root mean square of at most 2",
            "parameter size   scale by the root mean square of each parameter, but at least 0.001",
            "learning rate    times minus the rate: a constant 0.1, but at most 1 / sqrt(step + 1)",
        ],
    ),
    (
        config.Muon(0.1, exclude_layers=["head"], adam_lr_ratio=0.5, exclude_from_weight_decay=["bias"]),
        [
            "orthogonalization   of each matrix, take the momentum 0.95, looking one step ahead (Nesterov), made "
            "orthogonal by 5 steps with 3.4445, -4.775 and 2.0315, x 0.2 x the root of its longer side, except where a "
            "path has 'head' or '(?i)embedding'",
            "moments             of everything else, scale by the moments of the gradient, decays 0.9 and 0.999, "
            "epsilon 1e-07 (TensorFlow's epsilon hat), x 0.5",
            "learning rate       times minus the rate: a constant 0.1",
            "weight decay        subtract the learning rate x 0.004 x parameter of matrices, and the learning rate x "
            "0.004 x parameter of everything else, except where a path has 'bias'",
        ],
    ),
    (
        config.ScheduleFreeAdamW(0.1, warmup_steps=100),
        [
            "mean square     divide by the root of the corrected running mean square, decay 0.999, epsilon 1e-08 "
            "outside the root",
            "learning rate   times minus the rate: a constant 0.1, rising over 100 steps",
            "average         move a sequence by this, average it with equal weights, and set the parameters to 0.9 x "
            "the average + 0.1 x the sequence",
        ],
    ),
    (
        config.Adagrad(0.1),
        [
            "sum of squares   divide by the root of the sum of squares so far, at first 0.1, epsilon 1e-07 outside "
            "the root",
            "learning rate    times minus the rate: a constant 0.1",
        ],
    ),
    (
        config.Adadelta(1.0),
        [
            "mean squares    divide by the root of the running mean square of gradients, and multiply by that of "
            "updates, decay 0.95, epsilon 1e-07 inside each root",
            "learning rate   times minus the rate: a constant 1",
        ],
    ),
    (
        config.Adamax(0.1, weight_decay_rate=0.01, weight_decay_times_learning_rate=False),
        [
            "moments         divide the running mean of gradients, decay 0.9, by their largest magnitude so far, decay "
            "0.999, epsilon 1e-07",
            "learning rate   times minus the rate: a constant 0.1",
            "weight decay    subtract 0.01 x parameter",
        ],
    ),
    (
        config.Nadam(0.1, momentum_decay=0.004, weight_decay_rate=0.01),
        [
            "moments         scale by the moments of the gradient, decays 0.9 and 0.999, epsilon 1e-07 (beside the "
            "corrected root), looking one step ahead (Nesterov), momentum decay 0.004",
            "learning rate   times minus the rate: a constant 0.1",
            "weight decay    subtract the learning rate x 0.01 x parameter",
        ],
    ),
    (
        config.Ftrl(0.1, l1_regularization_strength=0.25, weight_decay_rate=0.01, exclude_from_weight_decay=["b"]),
        [
            "weight decay and ftrl   subtract the learning rate x 0.01 x parameter, except where a path has 'b', and "
            "then follow the regularized leader, power -0.5 of the sum of squares so far, at first 0.1, L1 0.25; the "
            "rate: a constant 0.1",
        ],
    ),
    (
        config.Lion(0.1, clipvalue=0.5),
        [
            "clip by value   each number to at most 0.5 either way",
            "sign            the sign of 0.9 x the momentum so far + 0.1 x the gradient, decay of the momentum 0.99",
            "learning rate   times minus the rate: a constant 0.1",
        ],
    ),
    (
        config.Optax("signum", WARMUP, beta=0.5, accumulator_dtype="bfloat16", clipvalue=0.5),
        [
            "clip by value   each number to at most 0.5 either way",
            "optax.signum    learning_rate linear_warmup, then cosine_decay, beta 0.5, accumulator_dtype bfloat16",
        ],
    ),
]


@pytest.mark.parametrize(("optimizer", "said"), SAID, ids=lambda value: getattr(value, "type", ""))
def test_every_optimizer_says_what_it_does(optimizer, said, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    lines = [line.strip() for line in describe(optimizer, capsys).out.splitlines()]
    start = lines.index("What happens to gradients, in order")
    assert lines[start - 1] == ""
    shown = lines[start + 4 : lines.index("", start + 4)]
    assert shown == [f"{number}   {line}" for number, line in enumerate(said, 1)]


def test_every_optimizer_is_tested_here():
    classes = [cls for name in config.__all__ if isinstance(cls := getattr(config, name), type)]
    ours = {cls for cls in classes if issubclass(cls, config.Optimizer)} - {config.Optimizer}
    assert {type(optimizer) for optimizer, _ in SAID if not isinstance(optimizer, config.Optax)} == ours


def test_an_optimizer_without_a_rate_shows_none(capsys):
    shown = describe(config.Optax("polyak_sgd", global_clipnorm=1.0), capsys).out
    assert "thing.yaml: an optimizer: optax.polyak_sgd\n" in shown
    assert "Learning rate" not in shown
    assert main(["plot", "thing.yaml"]) == 1
    assert capsys.readouterr().err == "thing.yaml: its optimizer has no learning rate\n"


# ---------------------------------------------------------------------------------------------------------
# Patterns and parameters


def test_patterns_match_as_in_the_optimizer():
    lars = config.LARS(0.1, exclude_from_weight_decay=["bias", "BatchNorm"], exclude_from_layer_adaptation=["scale$"])
    decay, adaptation = pattern_lists(lars, read_shapes("shapes.json"))
    assert (decay.field, adaptation.field) == ("exclude_from_weight_decay", "exclude_from_layer_adaptation")
    assert [(match.pattern, match.paths) for match in decay.matches] == [
        ("bias", ["BatchNorm_0/bias", "conv1/bias"]),
        ("BatchNorm", ["BatchNorm_0/bias", "BatchNorm_0/scale"]),
    ]
    assert tuple(decay.left) == (2, 73)
    assert [match.paths for match in adaptation.matches] == [["BatchNorm_0/scale", "scale"]]
    assert tuple(adaptation.left) == (3, 88)
    state = lars.make().init(jax.tree.map(lambda shape: jax.numpy.zeros(shape.shape), read_shapes("shapes.json")))
    assert state  # the optimizer has no objection either


def test_describe_shows_what_patterns_exclude(capsys):
    lars = config.LARS(0.1, weight_decay_rate=1e-4, exclude_from_weight_decay=["bias", "BatchNorm"])
    out = describe(lars, capsys, "--params", "shapes.json").out
    assert "2: BatchNorm_0/bias, conv1/bias" in out
    assert "weight decay for 2 of 5 parameters, 73 of 97 numbers\n" in out
    assert "as exclude_from_weight_decay" in out
    assert "layer adaptation for 2 of 5 parameters, 73 of 97 numbers\n" in out


def test_describe_shows_the_masks_of_optax(capsys):
    mask = {"include": ["conv1", "BatchNorm"], "exclude": ["bias"]}
    out = describe(config.Optax("adamw", 0.1, mask=mask), capsys, "--params", "shapes.json").out
    for row in (
        "mask.include conv1 includes 2",
        "mask.include BatchNorm includes 2",
        "mask.exclude bias excludes 2",
        "mask for 2 of 5 parameters",
    ):
        assert row in re.sub(" +", " ", out)
    wrong = config.Optax("adamw", 0.1, mask={"exclude": ["biass"]})
    assert "mask.exclude: " in describe(wrong, capsys, "--params", "shapes.json", status=1).err


def test_describe_counts_what_adamw_decays(capsys):
    shapes = {"dense": {"kernel": [4, 4], "bias": [4]}}
    Path("shapes.json").write_text(json.dumps(shapes))
    including = config.AdamW(0.1, weight_decay_rate=0.01, clipvalue=0.5, include_in_weight_decay=["kernel"])
    out = describe(including, capsys, "--params", "shapes.json").out
    assert re.search(r"include_in_weight_decay +kernel +includes 1: dense/kernel \(16 of 20 numbers\)$", out, re.M)
    assert "weight decay for 2 of 2 parameters, 20 of 20 numbers\n" in out  # those that are not included decay too
    both = dataclasses.replace(including, exclude_from_weight_decay=["dense"])
    out = describe(both, capsys, "--params", "shapes.json").out
    assert re.search(r"exclude_from_weight_decay +dense +excludes 2: dense/bias, dense/kernel", out, re.M)
    assert "weight decay for 1 of 2 parameters, 16 of 20 numbers\n" in out
    assert "as exclude_from_weight_decay" not in out
    misspelt = dataclasses.replace(both, include_in_weight_decay=["kernal"])
    captured = describe(misspelt, capsys, "--params", "shapes.json", status=1)
    assert "include_in_weight_decay: the pattern 'kernal' matches none" in captured.err
    assert "weight decay for 0 of 2 parameters, 0 of 20 numbers\n" in captured.out


def test_describe_counts_what_muon_moves(capsys):
    muon = config.Muon(0.1, exclude_layers=["^head/"], adam_weight_decay=0.0)
    shapes = {"embedder": {"embedding": [10, 4]}, "body": {"kernel": [4, 4], "bias": [4]}, "head": {"kernel": [4, 2]}}
    Path("muon.json").write_text(json.dumps(shapes))
    said = " ".join(describe(muon, capsys, "--params", "muon.json").out.split())
    assert "excludes 1: head/kernel (8 of 68 numbers)" in said
    assert "excludes 1: embedder/embedding (40 of 68 numbers)" in said
    assert "orthogonalization for 1 of 4 parameters, 16 of 68 numbers" in said
    assert "weight decay for 1 of 4 parameters, 16 of 68 numbers" in said
    without_embeddings = {name: value for name, value in shapes.items() if name != "embedder"}
    Path("muon.json").write_text(json.dumps(without_embeddings))
    describe(muon, capsys, "--params", "muon.json")  # which is no mistake, while a pattern of the user's is one:
    misspelt = dataclasses.replace(muon, exclude_layers=["^haed/"])
    assert "'^haed/' matches none" in describe(misspelt, capsys, "--params", "muon.json", status=1).err


def test_a_pattern_that_matches_nothing_is_an_error(capsys):
    lars = config.LARS(0.1, exclude_from_weight_decay=["bias", "BatchNrm"], exclude_from_layer_adaptation=["[x]"])
    out, err = describe(lars, capsys, "--params", "shapes.json", status=1)
    assert out.count("NOTHING") == 2
    assert "weight decay for 3 of 5 parameters, 81 of 97 numbers, at a rate of 0\n" in out
    assert err.startswith("thing.yaml: 2 problems\n  exclude_from_weight_decay: the pattern 'BatchNrm' matches none")
    assert "'BatchNorm_0/scale'" in err
    assert "'[x]'" in err
    recipe = config.OptimizationConfig(optimizer=lars)
    err = describe(recipe, capsys, "--params", "shapes.json", status=1).err
    assert "\n  optimizer.exclude_from_weight_decay: the pattern" in err


def test_a_pattern_that_may_match_nothing_is_none(capsys):
    lars = config.LARS(0.1, exclude_from_weight_decay=["BatchNrm"], allow_unmatched=True)
    assert "NOTHING" in describe(lars, capsys, "--params", "shapes.json").out


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ('{"a": {"b": "8"}, "c": [1, -1], "d": [true]}', "shapes.json: 3 problems\n  a/b: must be a shape"),
        ("[3, 3]", "shapes.json: must map parameter names to shapes"),
        ("{}", "shapes.json: must map parameter names to shapes"),
        ("{", "shapes.json: is not JSON"),
        ('{"a":' * 10_000, "shapes.json: is not JSON"),
    ],
    ids=["values", "list", "empty", "syntax", "depth"],
)
def test_shapes_that_are_none(shapes, message, capsys):
    Path("shapes.json").write_text(shapes)
    assert describe(config.LARS(0.1), capsys, "--params", "shapes.json", status=1).err.startswith(message)


def test_shapes_that_are_not_there(capsys):
    assert "cannot be read" in describe(config.LARS(0.1), capsys, "--params", "none.json", status=1).err


def test_only_optimizers_have_parameters(capsys):
    assert "--params" in describe(WARMUP, capsys, "--params", "shapes.json", status=2).err


# ---------------------------------------------------------------------------------------------------------
# The whole


def test_describe_a_recipe(capsys):
    recipe = config.OptimizationConfig(
        optimizer=config.LARS(WARMUP, exclude_from_weight_decay=["bias$"]), loss_scale=config.DynamicLossScale()
    )
    out = describe(recipe, capsys).out
    first = "thing.yaml: a recipe: LARS with linear_warmup, then cosine_decay, inside dynamic loss scaling"
    assert out.splitlines()[0] == first
    assert re.search(r"^ +2 +trust ratio +scale each layer by 0\.001 x", out, re.MULTILINE)
    assert re.search(r"^ +exclude_from_weight_decay +\[bias\$\] +\[\]$", out, re.MULTILINE)
    assert re.search(r"^ +decay_steps +10000 +required$", out, re.MULTILINE)
    assert "momentum  0.9" not in out
    assert re.search(r"^ +500 +6\.4 +end of warmup_steps, offset of cosine_decay$", out, re.MULTILINE)
    assert re.search(r"^ +10,500 +0 +end of decay_steps$", out, re.MULTILINE)
    assert all(line == line.rstrip() for line in out.splitlines())


def test_describe_a_schedule_and_a_loss_scale(capsys):
    out = describe(WARMUP, capsys, "--steps", "100").out
    assert out.startswith("thing.yaml: a schedule: linear_warmup, then cosine_decay\n")
    assert "What happens" not in out
    assert re.search(r"^ +99 +1\.2672 +last step$", out, re.MULTILINE)
    out = describe(config.FixedLossScale(128.0), capsys).out
    assert out.startswith("thing.yaml: a loss scale: FixedLossScale\n")
    assert "always 128" in out
    assert "Learning rate" not in out


def test_describe_shows_each_schedule_of_a_list(capsys):
    joined = optax_ext.JoinedSchedules([WARMUP, 0.25, optax_ext.Constant(0.5)], [600, 700])
    out = describe(config.SGD(joined), capsys).out
    assert "SGD with linear_warmup, then cosine_decay, then a constant 0.25, then constant" in out
    rows = ["schedules +required", "0 +linear_warmup", "decay_steps +10000 +required", "1 +0.25", "2 +constant"]
    at = [re.search(rf"^ +{row}$", out, re.MULTILINE).start() for row in rows]
    assert at == sorted(at)
    assert re.search(r"^ +600 +0.25 +start of a constant 0.25$", out, re.MULTILINE)
    words = config.SGD(optax_ext.JoinedSchedules([0.25, optax_ext.CosineDecay(0.5, "50%")], ["50%"]))
    out = describe(config.OptimizationConfig(words, run=config.Run(steps=200)), capsys).out
    assert re.search(r"^ +decay_steps +50% = 100 +required$", out, re.MULTILINE)
    assert re.search(r"^ +boundaries +\[50%\] = \[100\] +required$", out, re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Traced(optax_ext.Schedule):
    """A schedule that notes with what it is called."""

    type = "tested_traced"
    calls: ClassVar[list] = []
    peak: float
    decay_steps: int

    def __call__(self, step):
        self.calls.append(step)
        return jax.numpy.where(jax.numpy.asarray(step) < self.decay_steps, self.peak, 0.0)


@pytest.mark.parametrize("command", [["describe", "thing.yaml"], ["plot", "thing.yaml"]], ids=lambda it: it[0])
def test_a_schedule_is_evaluated_in_one_program(command, capsys):
    config.save(config.SGD(Traced(0.5, 300), decay=0.001), "thing.yaml")
    Traced.calls.clear()
    assert main(command) == 0
    assert len(Traced.calls) == 1
    assert isinstance(Traced.calls[0], jax.core.Tracer)


def test_text_in_brackets_is_not_markup(capsys):
    lars = config.LARS(0.1, exclude_from_weight_decay=["[bold]", ":smile:"])
    out = describe(lars, capsys).out
    assert "[[bold], :smile:]" in out


LONG = {
    "encoder": {
        f"transformer_blocks_{index}": {
            "multi_head_self_attention": {
                "query_projection": {"kernel": [8, 8], "bias": [8]},
                "LayerNorm_0": {"bias": [8]},
            }
        }
        for index in range(2)
    },
    "classification_head_with_a_long_name": {"BatchNorm_0": {"scale": [8], "bias": [8]}},
}


@pytest.mark.parametrize("columns", [60, 80, 100, 120, 200])
def test_no_path_is_broken_on_any_screen(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    Path("shapes.json").write_text(json.dumps(LONG))
    patterns = ["bias", "encoder/transformer_blocks_1/multi_head_self_attention/LayerNorm_0"]
    group = config.Group(["classification_head_with_a_long_name/"], config.SGD(0.1))
    inner = config.LARS(WARMUP, exclude_from_weight_decay=patterns, learning_rate_multipliers={"BatchNorm_0": 0.5})
    out = describe(config.Partition([group], rest=inner), capsys, "--params", "shapes.json").out
    words = {word.strip("[]{}',():") for word in out.split()} - {"/"}
    leaves, _ = jax.tree.flatten_with_path(LONG, is_leaf=lambda it: isinstance(it, list))
    paths = {"/".join(key.key for key in path) for path, _ in leaves}
    assert len(words & paths) >= 4
    assert {word for word in words if "/" in word or "_0" in word} <= {*paths, *patterns, *group.match, "BatchNorm_0"}
    for name in ("exclude_from_layer_adaptation", "initial_learning_rate", "learning_rate_multipliers"):
        assert name in words
    assert f"Learning rate of {group.label}\n" in out
    longest = 2 + 4 + max(map(len, paths)) + len(",")  # with its indent
    assert max(len(line) for line in out.splitlines()[1:]) <= max(columns, longest)


@pytest.mark.parametrize("columns", [80, 100, 120])
@pytest.mark.parametrize("example", ["imagenet_swav_larc_4096", "imagenet_mae_finetune_large_adamw_1024"])
def test_tables_fit_the_screen(example, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    file = Path(__file__).parents[2] / "examples" / "configs" / f"{example}.yaml"
    assert main(["describe", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[1:])) <= columns
    assert any("─" in line for line in lines)


def test_no_table_is_empty(capsys):
    assert "Fields that are not at their defaults: none\n" in describe(config.DynamicLossScale(), capsys).out
    out = describe(config.SGD(0.1), capsys, "--params", "shapes.json").out
    assert "What the patterns match: none\n" in out
    lines = out.splitlines()
    assert all(after.strip() for line, after in itertools.pairwise(lines) if "──" in line)


def test_without_rich_there_is_one_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    out, err = describe(config.SGD(0.1), capsys, status=1)
    assert (out, err) == ("", 'describe needs rich: pip install "optax_ext[plot]"\n')
