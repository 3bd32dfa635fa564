"""Write `data/keras_3.json` again: what Keras 3 serializes of each of its optimizers and schedules.

Keras wants an environment of its own:

    python3.11 -m venv /tmp/keras
    /tmp/keras/bin/pip install keras==3.15.1 tensorflow-cpu==2.21.0
    /tmp/keras/bin/python -m tests.interop.generate_keras_3

With `--read FILE` it reads a JSON list of configs instead, as `to_keras` writes them, and says which of these Keras
does not read as what it would serialize itself.
"""

import argparse
import copy
import importlib
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras: Any = importlib.import_module("keras")
optimizers: Any = keras.optimizers
schedules: Any = optimizers.schedules

DATA = Path(__file__).parent / "data" / "keras_3.json"
BASE = {"learning_rate": 0.25, "weight_decay": 0.5, "global_clipnorm": 2.0, "gradient_accumulation_steps": 4}
OTHER_ARGUMENTS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.5, "nesterov": True},
    "RMSprop": {"rho": 0.5, "momentum": 0.25, "epsilon": 0.5, "centered": True},
    "Adam": {"beta_1": 0.5, "beta_2": 0.25, "epsilon": 0.5, "amsgrad": True},
    "AdamW": {"beta_1": 0.5, "beta_2": 0.25, "epsilon": 0.5, "amsgrad": True},
    "Adadelta": {"rho": 0.5, "epsilon": 0.5},
    "Adagrad": {"initial_accumulator_value": 0.5, "epsilon": 0.25},
    "Adamax": {"beta_1": 0.5, "beta_2": 0.25, "epsilon": 0.5},
    "Nadam": {"beta_1": 0.5, "beta_2": 0.25, "epsilon": 0.5},
    "Ftrl": {
        "learning_rate_power": -0.25,
        "initial_accumulator_value": 0.5,
        "l1_regularization_strength": 0.25,
        "l2_regularization_strength": 0.5,
        "l2_shrinkage_regularization_strength": 0.125,
        "beta": 0.75,
    },
    "Lion": {"beta_1": 0.5, "beta_2": 0.25},
    "Lamb": {"beta_1": 0.5, "beta_2": 0.25, "epsilon": 0.5},
    "Adafactor": {
        "beta_2_decay": -0.5,
        "epsilon_1": 0.25,
        "epsilon_2": 0.5,
        "clip_threshold": 2.0,
        "relative_step": False,
    },
    "Muon": {
        "adam_beta_1": 0.5,
        "adam_beta_2": 0.25,
        "adam_weight_decay": 0.5,
        "epsilon": 0.25,
        "exclude_layers": ["head"],
        "exclude_embeddings": False,
        "muon_a": 1.0,
        "muon_b": -1.0,
        "muon_c": 0.5,
        "adam_lr_ratio": 0.5,
        "momentum": 0.5,
        "ns_steps": 3,
        "nesterov": False,
        "rms_rate": 0.5,
    },
    "ScheduleFreeAdamW": {"beta_1": 0.5, "beta_2": 0.25, "epsilon": 0.5, "warmup_steps": 7},
}


def make() -> dict[str, Any]:
    """Make each optimizer with its defaults, with other arguments, and with a schedule and an average."""
    rate = schedules.CosineDecay(0.5, 100, alpha=0.25, warmup_target=1.0, warmup_steps=10)
    made: dict[str, Any] = {}
    for name, arguments in OTHER_ARGUMENTS.items():
        optimizer = getattr(optimizers, name)
        made[name] = optimizer()
        made[f"{name}, other arguments"] = optimizer(**BASE, **arguments)
        made[f"{name}, wrapped"] = optimizer(rate, use_ema=True, ema_momentum=0.5, loss_scale_factor=8.0, clipnorm=1.0)
    made["LossScaleOptimizer"] = optimizers.LossScaleOptimizer(optimizers.Lion(0.5))
    made["LossScaleOptimizer, other arguments"] = optimizers.LossScaleOptimizer(optimizers.SGD(0.5), 64.0, 9)
    for schedule in (
        rate,
        schedules.CosineDecayRestarts(0.5, 10, 3.0, 0.5, 0.25),
        schedules.ExponentialDecay(0.5, 10, 0.75, staircase=True),
        schedules.InverseTimeDecay(0.5, 10, 0.75),
        schedules.PiecewiseConstantDecay([2, 5], [0.5, 0.25, 0.125]),
        schedules.PolynomialDecay(0.5, 10, 0.25, power=2.0, cycle=True),
    ):
        made[type(schedule).__name__] = schedule
    return made


def serialize(made: Any) -> Any:
    is_schedule = isinstance(made, schedules.LearningRateSchedule)
    return (schedules if is_schedule else optimizers).serialize(made)


def without_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_names(item) for key, item in value.items() if key != "name"}
    return value


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--read", metavar="FILE")
    arguments = parser.parse_args()
    if arguments.read is None:
        data = {"by": f"keras {importlib.metadata.version('keras')}"}
        configs = {name: serialize(made) for name, made in make().items()}
        rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(config)}" for name, config in configs.items())
        DATA.write_text(f'{{\n"by": {json.dumps(data["by"])},\n"configs": {{\n{rows}\n}}\n}}\n')
        return
    for config in json.loads(Path(arguments.read).read_text()):
        # Not `optimizers.deserialize`, which does not know Lamb.
        again = serialize(keras.saving.deserialize_keras_object(copy.deepcopy(config)))
        same = without_names(again) == without_names(config)
        print(config["class_name"], "the same" if same else f"differs: {without_names(again)}")


if __name__ == "__main__":
    main()
