"""Write `data/assigned_rates.json` again: optimizers of tf_keras whose hyperparameters are assigned while they train.

/tmp/keras/bin/python tests/config/generate_assigned_rates.py                             # tf_keras==2.21.0
"""

import importlib
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf: Any = importlib.import_module("tensorflow")
tf_keras: Any = importlib.import_module("tf_keras")

DATA = Path(__file__).parent / "data" / "assigned_rates.json"
PARAMS = [1.0, -2.0, 0.5]
GRADS = [[0.1, -0.2, 0.3], [0.4, 0.1, -0.3], [-0.2, 0.5, 0.1], [0.3, 0.3, -0.6], [0.2, -0.1, 0.4], [0.1, 0.2, 0.3]]
ASSIGNED_AT = 3  # before this step
CASES: list[tuple[str, dict[str, float], dict[str, float]]] = [
    ("Adam", {"learning_rate": 0.1}, {"learning_rate": 0.01}),
    ("Adam", {"learning_rate": 0.1}, {"beta_1": 0.5, "beta_2": 0.9}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9}, {"learning_rate": 0.01, "momentum": 0.5}),
]


def trajectory(name: str, arguments: dict[str, float], assigned: dict[str, float]) -> list[list[float]]:
    optimizer = getattr(tf_keras.optimizers.legacy, name)(**arguments)
    variable = tf.Variable(PARAMS)
    found: list[list[float]] = []
    for step, grads in enumerate(GRADS):
        if step == ASSIGNED_AT:
            for key, value in assigned.items():
                if key == "learning_rate":
                    optimizer.learning_rate.assign(value)
                else:
                    setattr(optimizer, key, value)
        optimizer.apply_gradients([(tf.constant(grads), variable)])
        found.append([float(number) for number in variable.numpy()])
    return found


def main() -> None:
    cases = [
        {"class": name, "arguments": arguments, "assigned": assigned, "params": trajectory(name, arguments, assigned)}
        for name, arguments, assigned in CASES
    ]
    data = {"tf_keras": tf_keras.__version__, "initial": PARAMS, "grads": GRADS, "assigned_at": ASSIGNED_AT}
    DATA.parent.mkdir(exist_ok=True)
    DATA.write_text(json.dumps({**data, "cases": cases}) + "\n")


if __name__ == "__main__":
    main()
