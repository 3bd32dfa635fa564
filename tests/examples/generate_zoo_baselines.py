"""Compute the recordings of ResNet-50's baselines without layer-wise norms again from the code of their sources.

It takes functions and classes out of the sources' files and runs their schedules and optimizers in float64 on five
gradients. The sources are clones in one folder, of which it reads the files at the commits below:

    git -C /tmp/sources clone https://github.com/mlcommons/algorithmic-efficiency
    git -C /tmp/sources clone https://github.com/mlcommons/training_results_v0.7
    git -C /tmp/sources clone https://github.com/mlcommons/training_results_v1.0
    git -C /tmp/sources clone https://github.com/google/flax

Those of Graphcore want TensorFlow 2.21 and PyYAML, the others JAX, Flax and Optax:

    python -m tests.examples.generate_zoo_baselines /tmp/sources algoperf_momentum algoperf_nadamw goyal_nesterov
    /tmp/tensorflow/bin/python -m tests.examples.generate_zoo_baselines /tmp/sources mlperf_sgd_1920 mlperf_sgd_2560
"""

import argparse
import functools
import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import numpy as np

from tests.examples.zoo_sources import Sources, Tree, draw, telling_steps, write

IMAGES = 1_281_167
ALGOPERF = "mlcommons/algorithmic-efficiency@2c90454fc05d5bdf3598b0c7651e611f132a7060"
GOOGLE = "mlcommons/training_results_v0.7@0a8a85a209c8e45b661596c382cc20f4e32fd2fe"
FLAX = "google/flax@484cc11669f773ba69d184f2f26933954797943e"  # of Google's submission, says its README
GRAPHCORE = "mlcommons/training_results_v1.0@50619b5df63f1d646715a82c1fb8c35f271e25fa"
RESNET = {"conv/kernel": (2, 3), "bn/scale": (3,), "bn/bias": (3,), "head/kernel": (3, 2), "head/bias": (2,)}
GRADIENTS = 1e-4  # of a size at which the weakest decay, 6e-6, is seen


def jax_in_float64() -> dict[str, Any]:
    """Return the modules that code of JAX wants, by the names that it knows them by."""
    jax: Any = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)
    names = {"jnp": "jax.numpy", "optax": "optax", "chex": "chex", "struct": "flax.struct"}
    return {"jax": jax, "np": np} | {name: importlib.import_module(module) for name, module in names.items()}


def rates_at(rate: Callable[[int], Any], steps: list[int]) -> dict[str, Any]:
    return {"learning_rate": [[step, float(str(np.float32(rate(step))))] for step in sorted(set(steps))]}


# ---------------------------------------------------------------------------------------------------------
# AlgoPerf: submissions of JAX, with the workload's step hint in the logs, which has since grown by 5 %.

ALGORITHMS = "algorithms"
LOGS = f"{ALGORITHMS}/baselines/logs/external_tuning/baseline/study_0/imagenet_resnet_jax/trial_1"
NADAMW = ("nadamw", "scale_by_nadam", "ScaleByAdamState", "_update_moment", "_bias_correction")


def algoperf(
    folder: Path, recipe: str, file: str, point: str, names: tuple[str, ...], schedule: str, start: int
) -> None:
    sources, world = Sources(folder, ALGOPERF), jax_in_float64()
    typing: Any = importlib.import_module("typing")
    world |= {name: getattr(typing, name) for name in ("Any", "Callable", "NamedTuple", "Optional", "Union")}
    code = sources.take(file, [*names, schedule, "init_optimizer_state"], spec=MagicMock(), **world)
    hint = json.loads(sources.text(f"{LOGS}/meta_data_0.json"))["workload.step_hint"]
    values = json.loads(sources.text(point))
    values = {name: value["feasible_points"][0] if isinstance(value, dict) else value for name, value in values.items()}
    hyperparameters = SimpleNamespace(**values)

    params, grads = draw(RESNET, GRADIENTS)
    shapes = {name: SimpleNamespace(shape_tuple=param.shape) for name, param in params.items()}
    workload = SimpleNamespace(step_hint=hint, param_shapes=shapes)
    state, update = code.init_optimizer_state(workload, None, None, hyperparameters, None)
    # The counts are the state's only integers.
    state = world["jax"].tree.map(lambda leaf: leaf + start if leaf.dtype == np.int32 else leaf, state)
    updates: list[Tree] = []
    for grad in grads:
        step, state = update({name: world["jnp"].asarray(leaf) for name, leaf in grad.items()}, state, params)
        updates.append({name: np.asarray(leaf) for name, leaf in step.items()})
        params = {name: param + updates[-1][name] for name, param in params.items()}

    # The target was set in three quarters of the hint; the baseline was given all of it.
    total = int(0.75 * hint) if file.startswith(f"{ALGORITHMS}/target") else hint
    warmup = getattr(hyperparameters, "warmup_steps", None) or int(hyperparameters.warmup_factor * total)
    decayed = warmup + int((total - warmup) * getattr(hyperparameters, "decay_steps_factor", 1))
    steps = [*telling_steps(warmup, total), *range(decayed - 1, min(decayed + 2, total))]
    rates = rates_at(getattr(code, schedule)(total, hyperparameters), steps)
    write(recipe, sources.words(), recorded(rates, draw(RESNET, GRADIENTS), start, updates))


def recorded(rates: dict[str, Any], data: tuple[Tree, list[Tree]], start: int, updates: list[Tree]) -> dict[str, Any]:
    params, grads = data
    return {"rates": rates, "params": params, "grads": grads, "start_step": start, "updates": updates}


# ---------------------------------------------------------------------------------------------------------
# Google's program of MLPerf v0.7 without LARS, with the numbers of Goyal et al. as its flags.

PROGRAM = "Google/benchmarks/resnet/implementations/resnet-research-JAX-tpu-v3-8192"
FLAGS = SimpleNamespace(learning_rate=0.1, momentum=0.9, weight_decay=1e-4, num_epochs=90, epochs_per_loop=1)


class OptimizerDef:
    """What Flax's optimizer derives from, of which it wants this alone."""

    def __init__(self, hyper_params: Any) -> None:
        self.hyper_params = hyper_params


def goyal_nesterov(folder: Path, recipe: str, batch_size: int) -> None:
    sources, flax, world = Sources(folder, GOOGLE), Sources(folder, FLAX), jax_in_float64()
    pipeline = sources.take(f"{PROGRAM}/mlperf_input_pipeline.py", ["TRAIN_IMAGES"])
    world |= {"FLAGS": FLAGS, "batch_size": batch_size, "input_pipeline": pipeline, "math": math}
    names = ("base_learning_rate", "steps_per_epoch", "steps_per_loop", "filter_weights", "filter_other")
    functions = ("piecewise_constant", "piecewise_learning_rate_fn")
    # The steps of an epoch are assigned first, and then corrected in place, by line 479.
    code = sources.take(f"{PROGRAM}/train.py", [*functions, *names], **world)
    epoch = code.steps_per_epoch * (code.steps_per_loop / (code.steps_per_epoch * FLAGS.epochs_per_loop))
    rate = code.piecewise_learning_rate_fn(code.base_learning_rate, epoch, FLAGS.num_epochs)
    classes = ["_MomentumHyperParams", "_MomentumParamState", "Momentum"]
    momentum = flax.take("flax/optim/momentum.py", classes, OptimizerDef=OptimizerDef, onp=np, **world).Momentum
    definitions = (  # as in lines 540 to 543
        (code.filter_weights, momentum(None, FLAGS.momentum, FLAGS.weight_decay, nesterov=True)),
        (code.filter_other, momentum(None, FLAGS.momentum, 0, nesterov=True)),
    )

    start = round(5 * epoch) - 2
    params, grads = draw(RESNET, GRADIENTS)
    found = {n: next(rule for matches, rule in definitions if matches(f"/{n}", None)) for n in params}
    states = {name: found[name].init_param_state(param) for name, param in params.items()}
    updates: list[Tree] = []
    for step, grad in enumerate(grads, start):
        after: Tree = {}
        for name, rule in found.items():
            settings = rule.hyper_params.replace(learning_rate=rate(step))
            new = rule.apply_param_gradient(step, settings, params[name], states[name], grad[name])
            after[name], states[name] = new
        updates.append({name: np.asarray(after[name]) - param for name, param in params.items()})
        params = {name: np.asarray(param) for name, param in after.items()}
    drops = [round(epochs * epoch) for epochs in (30, 60, 80)]
    steps = [*telling_steps(round(5 * epoch), round(90 * epoch)), *(drop + after for drop in drops for after in (0, 1))]
    content = recorded(rates_at(rate, steps), draw(RESNET, GRADIENTS), start, updates)
    write(recipe, f"{sources.words()}; {flax.words()}", content)


# ---------------------------------------------------------------------------------------------------------
# Graphcore's submissions to MLPerf v1.0.

IPU = "Graphcore/benchmarks/resnet/implementations/tensorflow"
LOSS_SCALING = 128.0  # the default of train.py, line 880


class Strategy(NamedTuple):
    """A strategy of which the code asks only whether it is the one in use."""


def mlperf_sgd(folder: Path, recipe: str, config: str) -> None:
    tf: Any = importlib.import_module("tensorflow")
    yaml: Any = importlib.import_module("yaml")
    sources, v1 = Sources(folder, GRAPHCORE), tf.compat.v1
    options = yaml.safe_load(sources.text(f"{IPU}/configs.yml"))[config]
    batch = options["replicas"] * options["batch_size"] * options["gradient_accumulation_count"]
    iterations = IMAGES * options["epochs"] // batch  # as in train.py, line 545
    options |= {"total_batch_size": batch, "base_learning_rate": math.log(options["abs_learning_rate"] / batch, 2)}
    options |= {"poly_lr_decay_power": 2.0, "summary_str": ""}
    schedule = sources.take(f"{IPU}/LR_Schedules/polynomial_decay_lr.py", ["LearningRate", "set_defaults"])
    rate = schedule.LearningRate(schedule.set_defaults(options), iterations)
    world: dict[str, Any] = {"optimizer": v1.train, "ops": v1, "math_ops": tf, "distribute": tf.distribute}
    world["ipu_multi_worker_strategy"] = SimpleNamespace(IPUMultiWorkerStrategy=Strategy)
    code = sources.take(f"{IPU}/ipu_optimizer.py", ["IPUOptimizer"], **world)

    excluded = ["beta", "gamma", "batch_norm/moving_"]  # Models/resnet.py, line 107, and train.py, line 186
    names = {
        name: name.replace("bn/scale", "batch_norm/gamma").replace("bn/bias", "batch_norm/beta") for name in RESNET
    }
    start = rate.warmup_iterations - 2
    data = params, grads = draw(RESNET, GRADIENTS)
    updates: list[Tree] = []
    with tf.Graph().as_default(), v1.Session() as session:
        variables = {n: v1.get_variable(names[n], initializer=param) for n, param in params.items()}
        given = {name: v1.placeholder(tf.float64, param.shape) for name, param in params.items()}
        learning_rate = v1.placeholder(tf.float64, ())
        optimizer = code.IPUOptimizer(
            v1.train.MomentumOptimizer(learning_rate / LOSS_SCALING, options["momentum"]),
            sharded=False,
            replicas=1,
            gradient_accumulation_count=1,
            pipelining=options["pipeline"],
            weight_decay=options["weight_decay"] * LOSS_SCALING,
            weight_decay_filter_fn=lambda name: not any(part in name for part in excluded),
        )
        train = optimizer.apply_gradients([(LOSS_SCALING * given[name], variables[name]) for name in params])
        session.run(v1.global_variables_initializer())
        for step, grad in enumerate(grads, start):
            before = session.run(variables)
            feed = {given[name]: grad[name] for name in params}
            session.run(train, feed | {learning_rate: rate.feed_dict_lr(step)})
            after = session.run(variables)
            updates.append({name: after[name] - before[name] for name in params})
    steps = telling_steps(rate.warmup_iterations, iterations)
    write(recipe, sources.words(), recorded(rates_at(rate.feed_dict_lr, steps), data, start, updates))


TARGET, BASELINE = f"{ALGORITHMS}/target_setting_algorithms", f"{ALGORITHMS}/baselines/external_tuning"
RECIPES: dict[str, Callable[[Path], None]] = {
    "algoperf_momentum": functools.partial(
        algoperf,
        recipe="algoperf_resnet50_momentum_1024",
        file=f"{TARGET}/jax_momentum.py",
        point=f"{TARGET}/imagenet_resnet/tuning_search_space.json",
        names=("sgd",),
        schedule="create_lr_schedule_fn",
        start=6_997,
    ),
    "algoperf_nadamw": functools.partial(
        algoperf,
        recipe="algoperf_resnet50_nadamw_1024",
        file=f"{BASELINE}/jax_nadamw_full_budget.py",
        point=f"{LOGS}/hparams.json",
        names=(*NADAMW, "scale_by_learning_rate"),
        schedule="jax_cosine_warmup",
        start=1_000,  # from where on 1 - b1**t is 1 in float32: Optax's correction is then AlgoPerf's
    ),
    "goyal_nesterov": functools.partial(goyal_nesterov, recipe="goyal_resnet50_nesterov_8192", batch_size=8192),
    "mlperf_sgd_1920": functools.partial(
        mlperf_sgd, recipe="mlperf_resnet50_sgd_1920", config="mk2_resnet50_mlperf_pod16_bs20"
    ),
    "mlperf_sgd_2560": functools.partial(
        mlperf_sgd, recipe="mlperf_resnet50_sgd_2560", config="mk2_resnet50_mlperf_pod64_bs20"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, help="the folder of the clones")
    parser.add_argument("baselines", nargs="+", choices=list(RECIPES))
    arguments = parser.parse_args()
    for baseline in arguments.baselines:
        RECIPES[baseline](arguments.sources)


if __name__ == "__main__":
    main()
