"""Compute `data/scheduled_decay.json` again: what tensorflow_addons makes of a schedule for its weight decay.

It wants an environment of its own:

    python3.11 -m venv /tmp/addons
    /tmp/addons/bin/pip install tensorflow-cpu==2.14.1 tensorflow_addons==0.23.0
    /tmp/addons/bin/python -m tests.interop.generate_scheduled_decay

Each case has the config as Keras serializes it, and the parameters after each step.
"""

import importlib
import importlib.metadata
import os
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity import golden_data

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf: Any = importlib.import_module("tensorflow")
tfa: Any = importlib.import_module("tensorflow_addons")

FILE = Path(__file__).parent / "data" / "scheduled_decay.json"
STEPS = 3
SHAPES = {"dense/kernel": (2, 3), "dense/bias": (3,)}


def make_optimizers() -> list[Any]:
    schedules = tf.keras.optimizers.schedules
    falling = schedules.PolynomialDecay(0.25, 2, 0.0625)
    jumping = schedules.PiecewiseConstantDecay([0, 1], [0.5, 0.25, 0.125])
    cosine = schedules.CosineDecay(0.5, 5, alpha=0.25)
    return [
        tfa.optimizers.AdamW(weight_decay=falling, learning_rate=cosine, exclude_from_weight_decay=["bias"]),
        tfa.optimizers.AdamW(weight_decay=jumping, learning_rate=0.0625, epsilon=0.01, amsgrad=True),
        tfa.optimizers.SGDW(weight_decay=jumping, learning_rate=cosine, momentum=0.75, nesterov=True),
        tfa.optimizers.SGDW(weight_decay=falling, learning_rate=0.25, exclude_from_weight_decay=["kernel"]),
    ]


def run(optimizer: Any, data: dict[str, Any]) -> dict[str, Any]:
    variables = {name: tf.Variable(value, name=name) for name, value in data["params"].items()}
    series: dict[str, list[np.ndarray]] = {name: [] for name in variables}
    for step in range(STEPS):
        optimizer.apply_gradients([(data["grads"][name][step], variable) for name, variable in variables.items()])
        for name, variable in variables.items():
            series[name].append(variable.numpy())
    config = tf.keras.optimizers.serialize(optimizer)
    return {"config": config, "params": {name: np.stack(values) for name, values in series.items()}}


def main() -> None:
    random = np.random.default_rng(7)
    data = {
        "params": {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()},
        "grads": {name: random.normal(size=(STEPS, *shape)).astype(np.float32) for name, shape in SHAPES.items()},
    }
    content = {
        "notes": "Made by tests/interop/generate_scheduled_decay.py: see there.",
        "versions": {name: importlib.metadata.version(name) for name in ("tensorflow-cpu", "tensorflow-addons")},
        **data,
        "cases": [run(optimizer, data) for optimizer in make_optimizers()],
    }
    FILE.write_text(golden_data.dumps(content))


if __name__ == "__main__":
    main()
