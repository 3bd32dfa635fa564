"""Record rates and updates of MLPerf's reference code, for the recipes `examples/configs/mlperf_*.yaml`.

Hyperparameters come from MLCommons' reference convergence points; rates and updates from the reference code, run in
TensorFlow with variables in float64. The rates of two batches are those of Google's own schedule: see `GOOGLE`. It
wants TensorFlow 2.21 with tf_keras 2.21, and a folder with parts of three repositories:

    git clone https://github.com/mlcommons/training SOURCE/training
    git -C SOURCE/training checkout aa344c7fb900e82ed19fb94aebfed50c63ab2204
    git clone https://github.com/mlcommons/logging SOURCE/logging
    git -C SOURCE/logging checkout 7bbf792686936919201796120b970dd820331099
    # SOURCE/google/lars_util.py is Google/benchmarks/resnet/implementations/resnet-preview-TF-tpu-v4-128/lars_util.py
    # of github.com/mlcommons/training_results_v1.0 at 50619b5df63f1d646715a82c1fb8c35f271e25fa
    python -m tests.examples.generate_zoo_mlperf --source SOURCE
"""

import argparse
import importlib
import json
import os
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.examples.zoo_sources import take_keras_steps

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # which the reference's schedule derives from
tf: Any = importlib.import_module("tensorflow")
flags: Any = importlib.import_module("absl.flags")

DATA = Path(__file__).parent / "data" / "zoo"
TRAINING = "github.com/mlcommons/training@aa344c7"
LOGGING = "github.com/mlcommons/logging@7bbf792"
RESULTS = "github.com/mlcommons/training_results_v1.0@50619b5"
IMAGES = 1_281_167

EPOCHS = {1632: 37, 3264: 37, 4096: 42, 13056: 48, 32768: 58, 49152: 71, 58880: 85}  # why: see each recipe
STEPS = {67840: 31 * (IMAGES // 67840) + 1133 - 1}  # what gives the list's 1133 decay steps
GOOGLE = {8192: 6875, 65536: 1738}  # train_steps of Google's code, with which it logs the list's 6095 and 1133

Tree = dict[str, np.ndarray]
RESNET = {"conv/kernel": (2, 3), "bn/scale": (3,), "bn/bias": (3,), "head/kernel": (3, 2), "head/bias": (2,)}
BERT = {
    "embeddings/embedding": (3, 2),
    "dense/kernel": (2, 3),
    "dense/bias": (3,),
    "LayerNorm/scale": (3,),
    "LayerNorm/bias": (3,),
}


def make_data(shapes: Mapping[str, tuple[int, ...]], seed: int) -> tuple[Tree, list[Tree]]:
    """Draw parameters, and gradients of five steps, with global norms on either side of 1."""
    random = np.random.default_rng(seed)

    def draw(size: float) -> Tree:
        return {name: np.round(size * random.normal(size=shape), 4) for name, shape in shapes.items()}

    params = {name: param + name.endswith("scale") for name, param in draw(0.5).items()}
    return params, [draw(size) for size in (0.1, 1.0, 0.3, 0.05, 0.5)]


def load(folder: Path, name: str) -> Any:
    """Import a file of a folder that its imports are relative to."""
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


def stub(name: str, **attributes: Any) -> None:
    """Put a module in the place of one that is not installed, and that the numbers do not need."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:length]), types.ModuleType(parts[length - 1]))
    vars(sys.modules[name]).update(attributes)


def rates_at(session: Any, rate: Any, global_step: Any, steps: list[int]) -> list[float]:
    """Return what a tensor of TensorFlow 1 is at each step."""
    found: list[float] = []
    for step in steps:
        global_step.load(step, session)
        found.append(float(session.run(rate)))
    return found


def write(name: str, source: str, rates: dict[int, float], start: int, data: Any, updates: list[Tree]) -> None:
    """Write one recording; rates are float32's shortest decimals, updates have 10 digits."""

    def listed(tree: Tree, digits: int = 10) -> dict[str, Any]:
        short = np.vectorize(lambda number: float(f"{number:.{digits}g}"))
        return {path: short(leaf).tolist() for path, leaf in tree.items()}

    params, grads = data
    content = {
        "recipe": f"{name}.yaml",
        "source": source,
        "made_by": "real code",
        "rates": {"learning_rate": [[step, float(str(np.float32(rate)))] for step, rate in sorted(rates.items())]},
        "params": listed(params),
        "grads": [listed(grad) for grad in grads],
        "start_step": start,
        "updates": [listed(update) for update in updates],
    }
    fields = [f'  "{key}": {json.dumps(value)}' for key, value in content.items()]
    (DATA / f"{name}.json").write_text("{\n" + ",\n".join(fields) + "\n}\n")


# ---------------------------------------------------------------------------------------------------------
# ResNet-50: tensorflow2/lars_util.py and lars_optimizer.py of the reference.


def google_rates(lars_util: Any, batch: int, point: dict[str, Any], train_steps: int, steps: list[int]) -> list[float]:
    """Return what Google's `poly_rate_schedule` gives; the epoch is as in resnet_main.py, lines 284 and 285."""
    flags.FLAGS.train_batch_size, flags.FLAGS.train_steps = batch, train_steps
    flags.FLAGS.lars_base_learning_rate = float(point["opt_base_learning_rate"])
    flags.FLAGS.lars_warmup_epochs = point["opt_learning_rate_warmup_epochs"]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        global_step = tf.compat.v1.train.get_or_create_global_step()
        epoch = tf.cast(global_step, tf.float32) / (IMAGES / batch)
        rate = lars_util.poly_rate_schedule(epoch, lars_util.compute_lars_hp())
        session.run(global_step.initializer)
        return rates_at(session, rate, global_step, steps)


def lars_updates(
    optimizers: Any, point: dict[str, Any], rates: dict[int, float], start: int, data: Any, is_google: bool
) -> list[Tree]:
    legacy: Any = importlib.import_module("tensorflow.python.keras.optimizer_v2.learning_rate_schedule")

    class Recorded(legacy.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return tf.constant(rates[int(step)], tf.float64)

    params, grads = data
    optimizer = optimizers.LARSOptimizer(
        Recorded(),
        momentum=point["opt_momentum"],
        weight_decay=point["opt_weight_decay"],
        skip_list=["batch_normalization", "bias", "bn"],  # common.py, line 228
        epsilon=0.0,  # which the optimizer replaces with Keras's 1e-7
    )
    if is_google:  # its optimizer, of TensorFlow 1's contrib, takes the 0 of lars_util.py, line 32
        optimizer.epsilon = 0.0
    return take_keras_steps(optimizer, params, grads, start)


def record_resnet(source: Path) -> None:
    folder = source / "training/retired_benchmarks/resnet-tf2/tensorflow2"
    stub("tf2_common.utils.mlp_log", mlp_log=types.SimpleNamespace(mlperf_print=lambda *_: None))
    stub("REDACTED.tensorflow.contrib", opt=None)
    stub("tensorflow.python.training.training_ops")  # has moved, and is for variables of TensorFlow 1
    google = load(source / "google", "lars_util")
    del sys.modules["lars_util"]
    reference, optimizers = load(folder, "lars_util"), load(folder, "lars_optimizer")
    reference.ops = types.SimpleNamespace(convert_to_tensor_v2=tf.convert_to_tensor, name_scope_v2=tf.name_scope)
    flags.DEFINE_string("optimizer", "LARS", "")
    for name in ("weight_decay", "momentum"):  # which the schedule prints
        flags.DEFINE_float(name, 0.0, "")
    for name, default in {"train_batch_size": 0, "train_steps": 0, "num_train_images": IMAGES}.items():
        flags.DEFINE_integer(name, default, "")
    flags.FLAGS(["generate_zoo_mlperf"])

    listed = "mlperf_logging/rcp_checker/training_4.0.0/rcps_resnet.json"
    points = json.loads((source / "logging" / listed).read_text())
    for name, entry in points.items():
        batch, point = entry["BS"], entry["Hyperparams"]
        steps_per_epoch, warmup_epochs = IMAGES // batch, point["opt_learning_rate_warmup_epochs"]
        train_steps = GOOGLE.get(batch) or STEPS.get(batch) or EPOCHS[batch] * steps_per_epoch
        warmup = warmup_epochs * IMAGES // batch if batch in GOOGLE else warmup_epochs * steps_per_epoch
        start = warmup - 2
        middle, last = (warmup + train_steps) // 2, train_steps - 1
        steps = [0, 1, warmup // 2, *range(start, start + 5), middle, (middle + last) // 2, last, last + 1, last + 2]
        if batch in GOOGLE:
            values = google_rates(google, batch, point, train_steps, steps)
        else:
            schedule = reference.PolynomialDecayWithWarmup(
                batch_size=batch,
                steps_per_epoch=steps_per_epoch,
                train_steps=train_steps,
                initial_learning_rate=float(point["opt_base_learning_rate"]),
                warmup_epochs=warmup_epochs,
            )
            values = [float(schedule(tf.constant(step, tf.float32))) for step in steps]
        rates, data = dict(zip(steps, values, strict=True)), make_data(RESNET, batch)
        files = f"{TRAINING}: retired_benchmarks/resnet-tf2/tensorflow2/lars_optimizer.py"
        files += f"; {RESULTS}: Google's lars_util.py" if batch in GOOGLE else ", lars_util.py"
        write(
            f"mlperf_resnet50_lars_{batch}",
            f"{files}; {LOGGING}: {listed}, {name}",
            rates,
            start,
            data,
            lars_updates(optimizers, point, rates, start, data, is_google=batch in GOOGLE),
        )


# ---------------------------------------------------------------------------------------------------------
# BERT: optimization.py and lamb_optimizer_v1.py of the reference.


def lamb_run(
    optimization: Any, point: dict[str, Any], steps: list[int], data: tuple[Tree, list[Tree]]
) -> tuple[dict[int, float], list[Tree]]:
    """Return rates, and updates from step 0 on, of `create_optimizer` for a loss that has the gradients drawn."""
    params, grads = data
    for ours, theirs in {
        "lamb_beta_1": "opt_lamb_beta_1",
        "lamb_beta_2": "opt_lamb_beta_2",
        "lamb_weight_decay_rate": "opt_lamb_weight_decay_rate",
    }.items():
        setattr(flags.FLAGS, ours, np.float64(point[theirs]))  # a plain float would be float32 in the graph
    lamb_optimizer: Any = importlib.import_module("lamb_optimizer_v1")
    assert 10**flags.FLAGS.log_epsilon == point["opt_epsilon"]
    made: list[Any] = []

    def keep(**settings: Any) -> Any:
        made.append(lamb_optimizer.LAMBOptimizer(**settings))
        return made[-1]

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        variables = {name: v1.get_variable(name, initializer=param) for name, param in params.items()}
        given = {name: v1.placeholder(tf.float64, param.shape) for name, param in params.items()}
        loss = tf.add_n([tf.reduce_sum(given[name] * variables[name]) for name in params])
        optimization.lamb_optimizer = types.SimpleNamespace(LAMBOptimizer=keep)
        train_op = optimization.create_optimizer(
            loss,
            point["opt_base_learning_rate"],
            point["opt_learning_rate_training_steps"],
            point["num_warmup_steps"],
            use_tpu=False,
            optimizer_name="lamb",
            start_warmup_step=point["start_warmup_step"],
        )
        session.run(v1.global_variables_initializer())
        global_step = v1.train.get_global_step()
        (lamb,) = made
        rates = dict(zip(steps, rates_at(session, lamb._lr, global_step, steps), strict=True))
        session.run(global_step.initializer)
        updates: list[Tree] = []
        for grad in grads:
            before = session.run(variables)
            session.run(train_op, {given[name]: grad[name] for name in params})
            after = session.run(variables)
            updates.append({name: after[name] - before[name] for name in params})
        assert session.run(global_step) == len(grads)
    return rates, updates


def record_bert(source: Path) -> None:
    stub("tensorflow.compiler.xla.experimental.xla_sharding", xla_sharding=None)
    optimization = load(source / "training/retired_benchmarks/bert", "optimization")
    flags.FLAGS(["generate_zoo_mlperf"])
    listed = "mlperf_logging/rcp_checker/training_5.1.0/rcps_bert.json"
    points = json.loads((source / "logging" / listed).read_text())
    for name, entry in points.items():
        batch, point = entry["BS"], entry["Hyperparams"]
        total = point["opt_learning_rate_training_steps"]
        warmup = max(point["num_warmup_steps"] + point["start_warmup_step"], 0)
        around = range(warmup - 2, warmup + 3) if point["num_warmup_steps"] else []
        middle = (warmup + total) // 2
        steps = [0, 1, 2, warmup // 2, *around, middle, (middle + total) // 2, total - 1, total, total + 1]
        data = make_data(BERT, batch)
        rates, updates = lamb_run(optimization, point, steps, data)
        files = "retired_benchmarks/bert/optimization.py, lamb_optimizer_v1.py"
        source_words = f"{TRAINING}: {files}; {LOGGING}: {listed}, {name}"
        write(f"mlperf_bert_lamb_{batch}", source_words, rates, 0, data, updates)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.examples.generate_zoo_mlperf", description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="the folder with training/, logging/ and google/")
    source = parser.parse_args().source
    DATA.mkdir(parents=True, exist_ok=True)
    record_resnet(source)
    record_bert(source)


if __name__ == "__main__":
    main()
