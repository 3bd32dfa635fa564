"""Compute the recording of `examples/configs/imagenet_resnet50_float16.yaml` again with TensorFlow Model Garden 2.20.

Model Garden's factory makes schedule and optimizer from the file that the recipe is from, and the optimizer takes five
steps on variables in float64. The dynamic loss scale is left out: while it skips no step, it changes no number. FILE is
official/vision/configs/experiments/image_classification/imagenet_resnet50_gpu.yaml of github.com/tensorflow/models at
0de1746a258cd503bfc2f4a965518948c3aa59dd:

    python3.11 -m venv /tmp/tensorflow
    /tmp/tensorflow/bin/pip install tensorflow-cpu==2.21.0 gin-config==0.5.0
    /tmp/tensorflow/bin/pip install --no-deps tf_keras==2.21.0 tf-models-official==2.20.0
    /tmp/tensorflow/bin/python -m tests.examples.generate_zoo_model_garden FILE
"""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.examples.zoo_sources import draw, take_keras_steps, write

SOURCE = (
    "tensorflow/models@0de1746: official/vision/configs/experiments/image_classification/imagenet_resnet50_gpu.yaml"
)
SHAPES = {"conv/kernel": (2, 3), "bn/scale": (3,), "bn/bias": (3,), "head/kernel": (3, 2), "head/bias": (2,)}


def main() -> None:
    (file,) = sys.argv[1:]
    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # which Model Garden derives from
    optimization: Any = importlib.import_module("official.modeling.optimization")
    trainer = yaml.safe_load(Path(file).read_text())["trainer"]
    factory = optimization.OptimizerFactory(optimization.OptimizationConfig(trainer["optimizer_config"]))
    schedule = factory.build_learning_rate()
    optimizer = factory.build_optimizer(schedule)

    warmup = trainer["optimizer_config"]["warmup"]["linear"]["warmup_steps"]
    drops = trainer["optimizer_config"]["learning_rate"]["stepwise"]["boundaries"]
    steps = [0, 1, warmup // 2, warmup - 1, warmup, warmup + 1]
    steps += [step for drop in drops for step in (drop, drop + 1)] + [trainer["train_steps"] - 1]
    start = warmup - 2
    params, grads = draw(SHAPES, 1.0)
    content = {
        "rates": {"learning_rate": [[step, float(str(schedule(step).numpy()))] for step in steps]},
        "params": params,
        "grads": grads,
        "start_step": start,
        "updates": take_keras_steps(optimizer, params, grads, start),
    }
    write("imagenet_resnet50_float16", f"{SOURCE}, with Model Garden 2.20", content)


if __name__ == "__main__":
    main()
