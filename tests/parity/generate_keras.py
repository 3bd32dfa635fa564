"""Compute golden/keras.json again: steps of the optimizers of Keras 3, tf_keras, tensorflow_addons and PyTorch.

Each case is a row of `CASES`: a class, its config, and the generations of software that take it. All cases start at
the same small parameters and see the same gradients; the file keeps the parameters after each step, all of them in
one tensor, in the order of `initial_params`. To add a case, add a row and run. Each package wants an environment of its
own, and only the cases of the generations that are installed are computed; the others stay as they are in the file:

    python3.11 -m venv /tmp/keras && /tmp/keras/bin/pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0 keras==3.15.1
    python3.11 -m venv /tmp/addons && /tmp/addons/bin/pip install tensorflow-cpu==2.14.1 tensorflow-addons==0.23.0
    python3.11 -m venv /tmp/torch && /tmp/torch/bin/pip install torch numpy
    /tmp/keras/bin/python -m tests.parity.generate_keras --check    # report differences, write nothing
    /tmp/keras/bin/python -m tests.parity.generate_keras            # then again with each of the other two
"""

import argparse
import importlib
import importlib.metadata
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.parity import golden_data

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
NAME = "keras"
STEPS = 8
BOTH, NEWER, ALL = ("keras 3", "tf_keras"), ("keras 3",), ("keras 3", "tf_keras", "tf_keras legacy")
LEGACY, ADDONS, TORCH = ("tf_keras legacy",), ("tensorflow_addons",), ("torch",)


def halving(initial_learning_rate: float) -> dict[str, Any]:
    """Return a schedule that halves the rate every four steps."""
    fields = {"initial_learning_rate": initial_learning_rate, "decay_steps": 4, "decay_rate": 0.5}
    return {"class": "ExponentialDecay", "config": fields}


# ---------------------------------------------------------------------------------------------------------
# The cases: generations, class, config and, where given, patterns for `exclude_from_weight_decay`.

CASES: list[tuple[Any, ...]] = [
    (BOTH, "SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (BOTH, "SGD", {"learning_rate": halving(0.1), "momentum": 0.9, "weight_decay": 0.1}, ["bias", "scale"]),
    (BOTH, "RMSprop", {"learning_rate": halving(0.1), "rho": 0.8, "momentum": 0.9, "weight_decay": 0.1}, ["kernel"]),
    (BOTH, "Adagrad", {"learning_rate": 0.1, "weight_decay": 0.1}),
    (BOTH, "Adam", {"learning_rate": halving(0.1), "amsgrad": True}),
    (BOTH, "AdamW", {"learning_rate": halving(0.1), "weight_decay": 0.1}, ["bias", "scale"]),
    (ALL, "Adadelta", {"learning_rate": halving(100.0), "rho": 0.8}),
    (ALL, "Adadelta", {"learning_rate": 1.0, "epsilon": 0.01}),
    (BOTH, "Adadelta", {"learning_rate": halving(1.0), "epsilon": 0.01, "weight_decay": 0.1}, ["bias", "scale"]),
    (ALL, "Adamax", {"learning_rate": 0.1}),
    (ALL, "Adamax", {"learning_rate": halving(0.1), "beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.01}),
    (BOTH, "Adamax", {"learning_rate": halving(0.1), "weight_decay": 0.1}, ["bias", "scale"]),
    (BOTH, "Nadam", {"learning_rate": 0.1}),
    (BOTH, "Nadam", {"learning_rate": halving(0.1), "beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.01}),
    (BOTH, "Nadam", {"learning_rate": halving(0.1), "weight_decay": 0.1}, ["bias", "scale"]),
    (LEGACY, "Nadam", {"learning_rate": 0.1}),
    (LEGACY, "Nadam", {"learning_rate": 0.1, "schedule_decay": 0.5, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.01}),
    (TORCH, "NAdam", {"lr": 0.1, "betas": [0.8, 0.99], "eps": 0.01, "momentum_decay": 0.1}),
    (ALL, "Ftrl", {"learning_rate": 0.1}),
    (ALL, "Ftrl", {"learning_rate": halving(0.1), "initial_accumulator_value": 0.5, "beta": 0.5}),
    (ALL, "Ftrl", {"learning_rate": 0.1, "l1_regularization_strength": 0.5, "l2_regularization_strength": 0.25}),
    (ALL, "Ftrl", {"learning_rate": 0.1, "l2_shrinkage_regularization_strength": 0.25}),
    (ALL, "Ftrl", {"learning_rate": halving(0.1), "learning_rate_power": -0.75, "l1_regularization_strength": 0.01}),
    (ALL, "Ftrl", {"learning_rate": 0.01, "learning_rate_power": 0.0, "l2_regularization_strength": 0.25}),
    (BOTH, "Ftrl", {"learning_rate": halving(0.1), "weight_decay": 0.5}, ["bias", "scale"]),
    (BOTH, "Lion", {"learning_rate": 0.01}),
    (BOTH, "Lion", {"learning_rate": halving(0.1), "beta_1": 0.7, "beta_2": 0.8, "weight_decay": 0.1}, ["bias"]),
    (ADDONS, "AdamW", {"learning_rate": halving(0.1), "weight_decay": 0.01, "epsilon": 1e-3}, ["bias", "scale"]),
    (ADDONS, "SGDW", {"learning_rate": halving(0.1), "weight_decay": 0.01, "momentum": 0.9}, ["bias"]),
    (TORCH, "Adam", {"lr": 0.1, "betas": [0.8, 0.99], "eps": 0.01}),
    (TORCH, "Adam", {"lr": 0.1, "eps": 0.01, "amsgrad": True}),
    (TORCH, "AdamW", {"lr": 0.1, "eps": 0.01, "weight_decay": 0.1}),
]  # fmt: skip

# ---------------------------------------------------------------------------------------------------------
# Parameters and gradients: two kernels, one of rank 4, a bias that starts at zero, and a scale whose gradients are
# small; no gradient ever reaches `still`, and in one step none reaches `kernel` either.


def make_data() -> dict[str, dict[str, np.ndarray]]:
    random = np.random.default_rng(13)
    params = {
        "kernel": random.normal(size=(3, 2)),
        "bias": np.zeros(2),
        "scale": np.ones(3),
        "filter": random.normal(size=(2, 2, 1, 2)),
        "still": np.array([0.5, -1.5]),
    }
    sizes = {"kernel": 1.0, "bias": 0.1, "scale": 1e-3, "filter": 30.0, "still": 0.0}
    grads = {name: sizes[name] * random.normal(size=(STEPS, *param.shape)) for name, param in params.items()}
    grads["kernel"][3] = 0.0
    return {
        "initial_params": {name: np.float32(param) for name, param in params.items()},
        "grads": {name: np.float32(grad) for name, grad in grads.items()},
    }


# ---------------------------------------------------------------------------------------------------------
# The generations: each makes variables and an optimizer, and returns the parameters after each step.

Case = Mapping[str, Any]
Data = Mapping[str, Mapping[str, np.ndarray]]


def make_nested(config: Mapping[str, Any], schedules: Any) -> dict[str, Any]:
    """Make the schedules of a config, with classes of a module."""

    def make(value: Any) -> Any:
        is_schedule = isinstance(value, Mapping) and "class" in value
        return getattr(schedules, value["class"])(**make_nested(value["config"], schedules)) if is_schedule else value

    return {key: make(value) for key, value in config.items()}


def with_keras(case: Case, data: Data) -> list[Any]:
    """Run an optimizer of Keras 3."""
    keras: Any = importlib.import_module("keras")
    optimizer = getattr(keras.optimizers, case["class"])(**make_nested(case["config"], keras.optimizers.schedules))
    variables = {name: keras.Variable(param, name=name) for name, param in data["initial_params"].items()}
    return steps_of(optimizer, variables, case, data)


def with_tf_keras(case: Case, data: Data) -> list[Any]:
    """Run a newer optimizer of tf_keras."""
    tf_keras: Any = importlib.import_module("tf_keras")
    optimizer = getattr(tf_keras.optimizers, case["class"])
    optimizer = optimizer(**make_nested(case["config"], tf_keras.optimizers.schedules), jit_compile=False)
    return steps_of(optimizer, tensorflow_variables(data), case, data)


def with_legacy_tf_keras(case: Case, data: Data) -> list[Any]:
    """Run a legacy optimizer of tf_keras."""
    tf_keras: Any = importlib.import_module("tf_keras")
    optimizer = getattr(tf_keras.optimizers.legacy, case["class"])
    optimizer = optimizer(**make_nested(case["config"], tf_keras.optimizers.schedules))
    return steps_of(optimizer, tensorflow_variables(data), case, data)


def with_tensorflow_addons(case: Case, data: Data) -> list[Any]:
    """Run an optimizer of tensorflow_addons, which takes the patterns in its constructor."""
    optimizers: Any = importlib.import_module("tensorflow_addons.optimizers")
    schedules: Any = importlib.import_module("keras").optimizers.schedules
    config = make_nested(case["config"], schedules)
    if "exclude" in case:
        config["exclude_from_weight_decay"] = case["exclude"]
    optimizer = getattr(optimizers, case["class"])(**config)
    return steps_of(optimizer, tensorflow_variables(data), {**case, "exclude": ()}, data)


def with_torch(case: Case, data: Data) -> list[Any]:
    """Run an optimizer of PyTorch, whose rate is a number."""
    torch: Any = importlib.import_module("torch")
    variables = {name: torch.nn.Parameter(torch.tensor(param)) for name, param in data["initial_params"].items()}
    optimizer = getattr(torch.optim, case["class"])(variables.values(), **case["config"])
    params: list[Any] = []
    for step in range(STEPS):
        for name, variable in variables.items():
            variable.grad = torch.tensor(data["grads"][name][step])
        optimizer.step()
        params.append({name: variable.detach().numpy().copy() for name, variable in variables.items()})
    return params


def steps_of(optimizer: Any, variables: Mapping[str, Any], case: Case, data: Data) -> list[Any]:
    """Return the parameters of a TensorFlow model after each step."""
    tf: Any = importlib.import_module("tensorflow")
    if case.get("exclude"):
        optimizer.exclude_from_weight_decay(var_names=case["exclude"])
    params: list[Any] = []
    for step in range(STEPS):
        grads = [tf.constant(data["grads"][name][step]) for name in variables]
        optimizer.apply_gradients(zip(grads, variables.values(), strict=True))
        params.append({name: variable.numpy().copy() for name, variable in variables.items()})
    return params


def tensorflow_variables(data: Data) -> dict[str, Any]:
    tf: Any = importlib.import_module("tensorflow")
    return {name: tf.Variable(param, name=name) for name, param in data["initial_params"].items()}


# Which package each generation needs, and which runs it: `keras` is of Keras 3 only in some environments.
GENERATIONS: dict[str, tuple[str, str, Callable[[Case, Data], list[Any]]]] = {
    "keras 3": ("keras", "3.", with_keras),
    "tf_keras": ("tf_keras", "", with_tf_keras),
    "tf_keras legacy": ("tf_keras", "", with_legacy_tf_keras),
    "tensorflow_addons": ("tensorflow-addons", "", with_tensorflow_addons),
    "torch": ("torch", "", with_torch),
}


def installed_version(package: str, prefix: str) -> str | None:
    """Return the version of a package, if it is installed and its version begins as it should."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    return version if version.startswith(prefix) else None


# ---------------------------------------------------------------------------------------------------------
# The file.


def all_cases() -> list[dict[str, Any]]:
    """Return a case for each generation of each row."""
    cases: list[dict[str, Any]] = []
    for generations, class_name, config, *exclude in CASES:
        for generation in generations:
            case = {"generation": generation, "class": class_name, "config": config}
            cases.append(case | ({"exclude": exclude[0]} if exclude else {}))
    return cases


def key_of(case: Case) -> str:
    """Return what tells cases apart."""
    return repr([case[key] for key in ("generation", "class", "config")] + [case.get("exclude")])


def flat(params: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Return the numbers of all parameters one after another."""
    return np.concatenate([np.ravel(params[name]) for name in names]).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("classes", nargs="*", help="such as Ftrl; all of them if none is given")
    parser.add_argument("--check", action="store_true", help="only say how far the file is from what is returned now")
    arguments = parser.parse_args()
    path = golden_data.GOLDEN / f"{NAME}.json"
    old = golden_data.load(NAME) if path.exists() else {"cases": [], "versions": {}}
    known, versions, data = {key_of(case): case for case in old["cases"]}, old["versions"], make_data()
    names, cases, counts = list(data["initial_params"]), [], {"kept": 0, "missing": 0}
    for case in all_cases():
        package, prefix, run = GENERATIONS[case["generation"]]
        version, before = installed_version(package, prefix), known.get(key_of(case))
        wanted = not arguments.classes or case["class"] in arguments.classes
        if version is None or not wanted:
            cases += [before] if before else []
            counts["kept" if before else "missing"] += 1
            continue
        versions[case["generation"]] = version
        params = np.stack([flat(step, names) for step in run(case, data)])
        cases.append({**case, "params": params})
        apart = golden_data.deviation(params, before["params"]) if before else np.inf
        print(f"{case['generation']}: {case['class']} {case['config']}: largest difference {apart:.2g}")
    print(f"{counts['kept']} others kept as they are, {counts['missing']} not computed yet: run with their packages")
    notes = "Written by tests/parity/generate_keras.py: parameters after each step, all of them in one row."
    content = {"notes": notes, "versions": versions, **data, "cases": cases}
    if not arguments.check:
        path.write_text(golden_data.dumps(content))


if __name__ == "__main__":
    main()
