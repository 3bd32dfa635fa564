"""Compute the golden files again with TensorFlow.

It takes configs, initial parameters and gradients from the files in `golden/`, gives them to the installed TensorFlow,
and writes what it returns back to them. To add a case, add its inputs to a file by hand and run. TensorFlow wants an
environment of its own:

    python3.11 -m venv /tmp/tensorflow
    /tmp/tensorflow/bin/pip install tensorflow-cpu==2.21.0
    /tmp/tensorflow/bin/pip install --no-deps tf_keras==2.21.0 tf-models-official==2.20.0
    /tmp/tensorflow/bin/python -m tests.parity.generate --check     # report differences, write nothing
    /tmp/tensorflow/bin/python -m tests.parity.generate             # or only some: ... generate lars

`--no-deps` because Model Garden asks for half of TensorFlow's ecosystem (and `tf_keras` for the GPU build), of which
its schedules and LARS need nothing. For the same reason these two are loaded as single files: the package around
them imports all the rest.
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import itertools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tests.parity import golden_data

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf: Any = importlib.import_module("tensorflow")
tf_keras: Any = importlib.import_module("tf_keras")


def load_from_model_garden(name: str) -> ModuleType:
    package = importlib.util.find_spec("official.modeling")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).with_name("optimization") / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lr_schedule: Any = load_from_model_garden("lr_schedule")
OPTIMIZERS = {
    "LARS": load_from_model_garden("lars").LARS,
    "SGD": tf_keras.optimizers.legacy.SGD,
    "SGD_V3": tf_keras.optimizers.SGD,
    "Adam": tf_keras.optimizers.legacy.Adam,
    "AdamWeightDecay": load_from_model_garden("legacy_adamw").AdamWeightDecay,
    "LAMB": load_from_model_garden("lamb").LAMB,
    "RMSprop": tf_keras.optimizers.legacy.RMSprop,
    "Adagrad": tf_keras.optimizers.legacy.Adagrad,
}
ExponentialMovingAverage: Any = load_from_model_garden("ema_optimizer").ExponentialMovingAverage


# ---------------------------------------------------------------------------------------------------------
# Schedules: the value at each of `steps`, given as int64, which is what `iterations` is, and as the float32 that
# legacy optimizers make of it. An error is recorded as its type.


def make_schedule(spec: Mapping[str, Any]) -> Any:
    home = lr_schedule if hasattr(lr_schedule, spec["class"]) else tf_keras.optimizers.schedules
    return getattr(home, spec["class"])(**make_nested(spec["config"]))


def make_nested(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: make_schedule(value) if isinstance(value, dict) else value for key, value in config.items()}


def value_at(schedule: Any, step: int, dtype: Any) -> np.float32 | str:
    try:
        return np.float32(schedule(tf.constant(step, dtype)))
    except Exception as error:
        return type(error).__name__


def schedules(content: dict[str, Any]) -> None:
    for case in content["cases"]:
        try:
            schedule = make_schedule(case)
        except Exception as error:
            case["constructor_error"] = type(error).__name__
            continue
        case["expected"] = [value_at(schedule, step, tf.int64) for step in case["steps"]]
        with_float32 = [value_at(schedule, step, tf.float32) for step in case["steps"]]
        case.pop("expected_float32_step", None)
        if list(map(str, with_float32)) != list(map(str, case["expected"])):
            case["expected_float32_step"] = with_float32


# ---------------------------------------------------------------------------------------------------------
# LARS: parameters, momentum and the learning rate it used, after or at each of 12 steps. A slot that is not there
# yet, because its variable had no gradient, is recorded as zeros.


def lars(content: dict[str, Any]) -> None:
    for case in content["cases"]:
        data = content["data"][case["data"]]
        dtype = tf.as_dtype(case.get("dtype", "float32"))
        variables = make_variables(data["params"], dtype)
        optimizer = OPTIMIZERS["LARS"](**make_nested(case["config"]))
        overrides = {(step, name): grad for step, name, grad in case.get("grads_override", [])}
        rates, params, momentum = [], [], []
        for step in range(12):
            grads = {name: overrides.get((step, name), grad[step]) for name, grad in data["grads"].items()}
            rates.append(np.float32(optimizer._decayed_lr(dtype)))
            optimizer.apply_gradients(
                (None if grad is None else tf.cast(grad, dtype), variables[name]) for name, grad in grads.items()
            )
            params.append(values(variables))
            momentum.append(slots(optimizer, variables))
        names = {name: variable.name for name, variable in variables.items()}
        case |= {
            "excluded_weight_decay": [n for n, full in names.items() if not optimizer._use_weight_decay(full)],
            "excluded_layer_adaptation": [n for n, full in names.items() if not optimizer._do_layer_adaptation(full)],
            "learning_rates": rates,
            "params": stack(params),
            "momentum": stack(momentum),
        }


# ---------------------------------------------------------------------------------------------------------
# The other optimizers: parameters, slots and the learning rate, after or at each of 10 steps.


def adam(content: dict[str, Any]) -> None:
    for case in content["cases"]:
        data = content["data"][case["data"]]
        variables = make_variables(data["params"], tf.float32)
        inner = OPTIMIZERS[case["class"]](**make_nested(case["config"]))
        optimizer = inner
        if case.get("wrapped_in_loss_scale"):
            optimizer = tf_keras.mixed_precision.LossScaleOptimizer(inner, dynamic=False, initial_scale=1.0)
        rates, params, slot_values = [], [], {name: [] for name in case["slots"]}
        for step in range(10):
            rates.append(np.float32(inner._decayed_lr(tf.float32)))
            optimizer.apply_gradients((tf.constant(g[step]), variables[name]) for name, g in data["grads"].items())
            params.append(values(variables))
            for name, series in slot_values.items():
                series.append(slots(inner, variables, name))
        stacked = {name: stack(series) for name, series in slot_values.items()}
        case |= {"learning_rates": rates, "params": stack(params), "slots": stacked}


# ---------------------------------------------------------------------------------------------------------
# The moving average: parameters and averages after each step, before which the batch statistics are set; and, where a
# case asks for them, the parameters after averages and parameters were swapped at the end.


def ema(content: dict[str, Any]) -> None:
    for case in content["cases"]:
        dtype = tf.as_dtype(case.get("dtype", "float32"))
        variables = make_variables(case["initial_params"], dtype)
        moving_mean = tf.Variable(tf.zeros(3), name="bn/moving_mean", trainable=False)
        everything = variables | {"bn/moving_mean": moving_mean}
        inner = OPTIMIZERS[case["inner"]["class"]](**make_nested(case["inner"]["config"]))
        optimizer = ExponentialMovingAverage(inner, **case["config"])
        model = argparse.Namespace(  # all that `shadow_copy` reads of a model
            trainable_variables=list(variables.values()), variables=list(everything.values())
        )
        optimizer.shadow_copy(model)
        averaged = {name: everything[name] for name in case["averages"]}
        params, averages = [], []
        for step, stats in enumerate(case["moving_mean"]):
            moving_mean.assign(stats)
            grads = {name: tf.cast(grad[step], dtype) for name, grad in case["grads"].items()}
            optimizer.apply_gradients((grad, variables[name]) for name, grad in grads.items())
            params.append(values(variables))
            averages.append(slots(optimizer, averaged, "average"))
        case |= {"params": stack(params), "averages": stack(averages)}
        if "swapped_params" in case:
            with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
                optimizer.swap_weights()
            case["swapped_params"] = values(variables)


# ---------------------------------------------------------------------------------------------------------
# Loss scaling: at each step the scaled loss and the unscaled gradients, after it the scale, the counter (of a dynamic
# scale), the iterations of the inner optimizer, the parameters and, if ever there was one, the momentum slot.
# Gradients in float16 are unscaled in it, and then cast to float32 like their variables.


def loss_scale(content: dict[str, Any]) -> None:
    for helper in content["helpers"]:
        single_values(helper)
    for case in content["cases"]:
        loss_scale_case(case)


def single_values(helper: dict[str, Any]) -> None:
    scale = {"dynamic": False, "initial_scale": float(helper["loss_scale"])}
    optimizer = tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.legacy.SGD(), **scale)
    inputs = [tf.constant(value, helper["dtype"]) for value in golden_data.float32s(helper["values"])]
    if "callable" in helper:
        helper["get_scaled_loss"] = [np.float32(optimizer.get_scaled_loss(lambda x=x: x)()) for x in inputs]
        return
    helper["get_scaled_loss"] = [np.float32(optimizer.get_scaled_loss(x)) for x in inputs]
    helper["get_unscaled_gradients"] = [np.float32(x) for x in optimizer.get_unscaled_gradients(inputs)]


def loss_scale_case(case: dict[str, Any]) -> None:
    variables = make_variables(case["initial_params"], tf.float32)
    inner = OPTIMIZERS[case["inner"]["class"]](**make_nested(case["inner"]["config"]))
    optimizer = tf_keras.mixed_precision.LossScaleOptimizer(inner, **case["config"])
    dtype = case.get("grad_dtype", "float32")
    series: dict[str, list[Any]] = {}
    for step, loss in enumerate(golden_data.float32s(case["losses"])):
        scaled_loss = optimizer.get_scaled_loss(tf.constant(loss))
        scaled = [tf.constant(grad[step].astype(dtype)) for grad in case["scaled_grads"].values()]
        unscaled = optimizer.get_unscaled_gradients(scaled)
        optimizer.apply_gradients(
            zip([tf.cast(grad, tf.float32) for grad in unscaled], variables.values(), strict=True)
        )
        after = {
            "scaled_losses": np.float32(scaled_loss),
            "unscaled_grads": {n: np.float32(grad) for n, grad in zip(variables, unscaled, strict=True)},
            "loss_scale": np.float32(optimizer.loss_scale),
            "counter": None if optimizer.dynamic_counter is None else int(optimizer.dynamic_counter),
            "iterations": int(inner.iterations),
            "params": values(variables),
            "momentum": slots(inner, variables),
        }
        for name, value in after.items():
            series.setdefault(name, []).append(value)
    for name, numbers in series.items():
        case[name] = stack(numbers) if isinstance(numbers[0], dict) else numbers
    if not optimizer.dynamic:
        del case["counter"]
    if not any(momentum.any() for momentum in case["momentum"].values()):
        del case["momentum"]


# ---------------------------------------------------------------------------------------------------------
# Variables and their values.


def make_variables(params: Mapping[str, np.ndarray], dtype: Any) -> dict[str, Any]:
    return {name: tf.Variable(tf.cast(value, dtype), name=name) for name, value in params.items()}


def values(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: variable.numpy().astype(np.float32) for name, variable in variables.items()}


def slots(optimizer: Any, variables: Mapping[str, Any], slot_name: str = "momentum") -> dict[str, np.ndarray]:
    def slot(variable: Any) -> np.ndarray:
        try:
            return optimizer.get_slot(variable, slot_name).numpy().astype(np.float32)
        except (AttributeError, KeyError):  # an optimizer without slots, or without this one yet
            return np.zeros(variable.shape, np.float32)

    return {name: slot(variable) for name, variable in variables.items()}


def stack(steps: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([step[name] for step in steps]) for name in steps[0]}


# ---------------------------------------------------------------------------------------------------------
# The command.

FILES: dict[str, Callable[[dict[str, Any]], None]] = {
    "schedules": schedules,
    "lars": lars,
    "loss_scale": loss_scale,
    "adam": adam,
    "ema": ema,
}


def largest_difference(old: Any, new: Any) -> float:
    """Return how far two contents are apart, relative to the largest number of each tensor or series."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        return max((largest_difference(old[key], new[key]) for key in old), default=0.0)
    if isinstance(old, list) and any(isinstance(item, dict) for item in old) and len(old) == len(new):
        return max(itertools.starmap(largest_difference, zip(old, new, strict=True)))
    try:
        old, new = np.asarray(old, np.float64), np.asarray(new, np.float64)
        np.testing.assert_array_equal(np.isfinite(old), np.isfinite(new))
        np.testing.assert_array_equal(old[~np.isfinite(old)], new[~np.isfinite(new)])
    except (AssertionError, TypeError, ValueError):  # texts, errors or shapes
        return 0.0 if str(old) == str(new) else np.inf
    old, new = old[np.isfinite(old)], new[np.isfinite(new)]
    apart = np.abs(old - new).max(initial=0.0)
    return float(apart / np.abs(old).max()) if apart else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", help=f"of {', '.join(FILES)}; all of them if none is given")
    parser.add_argument(
        "--check", action="store_true", help="only say how far the files are from what TensorFlow returns"
    )
    arguments = parser.parse_args()
    packages = ("tensorflow-cpu", "tf_keras", "tf-models-official", "numpy")
    for name in arguments.files or FILES:
        path = golden_data.GOLDEN / f"{name}.json"
        old = path.read_text()
        content = golden_data.loads(old)
        FILES[name](content)
        content["versions"] = {package: importlib.metadata.version(package) for package in packages}
        new = golden_data.dumps(content)
        old_content, new_content = golden_data.loads(old), golden_data.loads(new)
        for part in content.keys() - {"versions"}:
            difference = largest_difference(old_content[part], new_content[part])
            print(f"{name}.json, {part}: largest difference {difference:.2g}")
        print(f"{name}.json: {'identical' if old == new else 'not identical'}, versions {new_content['versions']}")
        if not arguments.check:
            path.write_text(new)


if __name__ == "__main__":
    main()
