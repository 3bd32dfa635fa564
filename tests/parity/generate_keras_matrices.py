"""Compute golden/keras_matrices.json again: steps of Keras's Lamb, Adafactor, Muon and ScheduleFreeAdamW.

These read parameters, or treat matrices apart, and so want other parameters than those of `generate_keras`: matrices
that are tall and wide, an embedding, and a filter whose last two axes are not its largest. `ScheduleFreeAdamW` returns
other numbers on JAX than on TensorFlow, so both backends are here. Only the cases of the chosen backend are computed;
the others stay as they are in the file:

    python3.11 -m venv /tmp/keras
    /tmp/keras/bin/pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0 keras==3.15.1 jax==0.10.2
    KERAS_BACKEND=tensorflow /tmp/keras/bin/python -m tests.parity.generate_keras_matrices --check    # writes nothing
    KERAS_BACKEND=tensorflow /tmp/keras/bin/python -m tests.parity.generate_keras_matrices
    KERAS_BACKEND=jax /tmp/keras/bin/python -m tests.parity.generate_keras_matrices
"""

import argparse
import importlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.parity import golden_data
from tests.parity.generate_keras import STEPS, flat, halving, key_of, make_nested

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
NAME = "keras_matrices"
ON_TENSORFLOW, ON_JAX = ("keras 3 on tensorflow",), ("keras 3 on jax",)
TF_KERAS = (*ON_TENSORFLOW, "tf_keras")

CASES: list[tuple[Any, ...]] = [
    (ON_TENSORFLOW, "Lamb", {"learning_rate": 0.1}),
    (ON_TENSORFLOW, "Lamb", {"learning_rate": 0.1, "weight_decay": 0.5, "epsilon": 1e-3}),
    (ON_TENSORFLOW, "Lamb", {"learning_rate": halving(0.2), "weight_decay": 0.5, "clipnorm": 1.0}, ["bias", "scale"]),
    (TF_KERAS, "Adafactor", {"learning_rate": 0.6, "weight_decay": 0.1}),
    (ON_TENSORFLOW, "Adafactor", {"learning_rate": 0.6, "relative_step": False, "epsilon_2": 0.5}),
    (TF_KERAS, "Adafactor", {"learning_rate": halving(0.3), "weight_decay": 0.1, "beta_2_decay": -0.5}, ["kernel"]),
    (ON_TENSORFLOW, "Adafactor", {"learning_rate": 0.1, "clip_threshold": 0.25, "epsilon_1": 0.01}),
    (ON_TENSORFLOW, "Muon", {"learning_rate": 0.1}),
    (ON_TENSORFLOW, "Muon", {"learning_rate": 0.1, "exclude_layers": ["head"], "exclude_embeddings": False}),
    (ON_TENSORFLOW, "Muon", {"learning_rate": 0.1, "nesterov": False, "rms_rate": None, "ns_steps": 3}),
    (ON_TENSORFLOW, "Muon", {"learning_rate": halving(0.2), "weight_decay": 0.5, "adam_weight_decay": 0.25,
        "adam_lr_ratio": 0.3, "momentum": 0.8, "muon_a": 2.0, "muon_b": -1.5, "muon_c": 0.5, "epsilon": 1e-3},
        ["bias", "wide"]),
    (ON_TENSORFLOW, "Muon", {"learning_rate": 0.1, "weight_decay": None, "adam_weight_decay": 0.25,
        "adam_beta_1": 0.5}),
    (ON_JAX, "ScheduleFreeAdamW", {"learning_rate": 0.1}),
    (ON_JAX, "ScheduleFreeAdamW", {"learning_rate": 0.1, "beta_1": 0.5, "warmup_steps": 5, "weight_decay": 0.5}),
    (ON_JAX, "ScheduleFreeAdamW", {"learning_rate": halving(0.2), "beta_2": 0.9, "warmup_steps": 3, "weight_decay": 0.5,
        "epsilon": 1e-3}, ["kernel"]),
    (ON_TENSORFLOW, "ScheduleFreeAdamW", {"learning_rate": 0.1, "warmup_steps": 5, "weight_decay": 0.5}),
]  # fmt: skip

# ---------------------------------------------------------------------------------------------------------
# Parameters and gradients: a bias that starts at zero, gradients of many sizes, a parameter that never gets one but
# zeros, and one step in which they are zero for `kernel` too.


def make_data() -> dict[str, dict[str, np.ndarray]]:
    random = np.random.default_rng(17)
    shapes = {"embedding": (5, 3), "kernel": (4, 2), "wide": (2, 3), "head": (3, 3), "filter": (3, 2, 1, 2)}
    params = {name: random.normal(size=shape) for name, shape in shapes.items()}
    params |= {"bias": np.zeros(2), "scale": np.ones(3), "still": np.array([[0.5, -1.5]])}
    sizes = {"kernel": 1.0, "wide": 1e-3, "filter": 30.0, "bias": 0.1, "scale": 1e-3, "still": 0.0}
    grads = {name: sizes.get(name, 1.0) * random.normal(size=(STEPS, *param.shape)) for name, param in params.items()}
    grads["kernel"][3] = 0.0
    return {
        "initial_params": {name: np.float32(param) for name, param in params.items()},
        "grads": {name: np.float32(grad) for name, grad in grads.items()},
    }


def run(case: Mapping[str, Any], data: Mapping[str, Any], package: Any) -> list[dict[str, np.ndarray]]:
    """Return the parameters after each step of an optimizer of Keras 3 or of tf_keras."""
    is_newer = package.__name__ == "keras"
    config = make_nested(case["config"], package.optimizers.schedules) | ({} if is_newer else {"jit_compile": False})
    optimizer = getattr(package.optimizers, case["class"])(**config)
    if case.get("exclude"):
        optimizer.exclude_from_weight_decay(var_names=case["exclude"])
    make = package.Variable if is_newer else importlib.import_module("tensorflow").Variable
    tensor = package.ops.convert_to_tensor if is_newer else importlib.import_module("tensorflow").constant
    variables = {name: make(param, name=name) for name, param in data["initial_params"].items()}
    params: list[dict[str, np.ndarray]] = []
    for step in range(STEPS):
        grads = [tensor(data["grads"][name][step]) for name in variables]
        optimizer.apply_gradients(zip(grads, variables.values(), strict=True))
        arrays = {name: package.ops.convert_to_numpy(v) if is_newer else v.numpy() for name, v in variables.items()}
        params.append({name: np.array(array) for name, array in arrays.items()})
    return params


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say how far the file is from what is returned now")
    arguments = parser.parse_args()
    keras: Any = importlib.import_module("keras")
    packages = {f"keras 3 on {keras.backend.backend()}": keras}
    if keras.backend.backend() == "tensorflow":
        packages["tf_keras"] = importlib.import_module("tf_keras")
    path, data = golden_data.GOLDEN / f"{NAME}.json", make_data()
    old = golden_data.load(NAME) if path.exists() else {"cases": [], "versions": {}}
    known, versions, cases = {key_of(case): case for case in old["cases"]}, old["versions"], []
    for generations, class_name, config, *exclude in CASES:
        for generation in generations:
            case = {"generation": generation, "class": class_name, "config": config}
            case |= {"exclude": exclude[0]} if exclude else {}
            before = known.get(key_of(case))
            if generation not in packages:
                cases += [before] if before else []
                continue
            versions[generation] = packages[generation].__version__
            steps = run(case, data, packages[generation])
            params = np.stack([flat(step, list(data["initial_params"])) for step in steps])
            cases.append({**case, "params": params})
            apart = golden_data.deviation(params, before["params"]) if before else np.inf
            print(f"{generation}: {class_name} {config}: largest difference {apart:.2g}")
    notes = "Written by tests/parity/generate_keras_matrices.py: parameters after each step, all of them in one row."
    if not arguments.check:
        path.write_text(golden_data.dumps({"notes": notes, "versions": versions, **data, "cases": cases}))


if __name__ == "__main__":
    main()
