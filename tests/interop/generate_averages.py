"""Write `data/averages.json` again: averages of parameters as Keras 3, tf_keras and tensorflow_addons compute them.

Each package wants an environment of its own, and the file keeps what the others wrote:

    /tmp/keras/bin/python -m tests.interop.generate_averages keras                            # keras==3.15.1
    /tmp/keras/bin/python -m tests.interop.generate_averages tf_keras                         # tf_keras==2.21.0
    /tmp/addons/bin/python -m tests.interop.generate_averages tensorflow_addons               # 0.23, tensorflow==2.14
"""

import argparse
import importlib
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf: Any = importlib.import_module("tensorflow")

DATA = Path(__file__).parent / "data" / "averages.json"
GRADS = [1.0, -0.5, 2.0, 0.25, -1.0, 0.75]


def cases(package: str, module: Any) -> list[Any]:
    """Make the optimizers of a package."""
    if package != "tensorflow_addons":
        sgd = module.optimizers.SGD
        return [sgd(0.5, use_ema=True, ema_momentum=momentum) for momentum in (0.75, 0.9)]
    arguments: list[dict[str, Any]] = [{}, {"start_step": 2}, {"dynamic_decay": True}]
    arguments.append({"start_step": 2, "dynamic_decay": True})
    sgd = tf.keras.optimizers.legacy.SGD
    return [module.optimizers.MovingAverage(sgd(0.5), 0.75, **given) for given in arguments]


def run(package: str, module: Any, optimizer: Any) -> dict[str, Any]:
    kind = module.Variable if package == "keras" else tf.Variable
    variable = kind(np.ones(1, np.float32))
    averages: list[float] = []
    for grad in GRADS:
        optimizer.apply_gradients([(tf.constant([grad]), variable)])
        if package == "tensorflow_addons":
            average = optimizer.get_slot(variable, "average")
        else:
            average = optimizer._model_variables_moving_average[0]
        averages.append(float(np.asarray(average)[0]))
    if package == "tensorflow_addons":
        config = {"class_name": "Addons>MovingAverage", "config": optimizer.get_config()}
        config["config"]["optimizer"].setdefault("module", "keras.optimizers.legacy")
    else:
        config = module.optimizers.serialize(optimizer)
    return {"config": config, "averages": averages}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("package", choices=["keras", "tf_keras", "tensorflow_addons"])
    package = parser.parse_args().package
    module = importlib.import_module(package)
    data = json.loads(DATA.read_text()) if DATA.exists() else {}
    name = f"{package} {importlib.metadata.version(package.replace('_', '-'))}"
    kept = {key: value for key, value in data.items() if not key.startswith(f"{package} ")}
    rows = kept | {"grads": GRADS, name: [run(package, module, one) for one in cases(package, module)]}
    text = json.dumps(rows, default=lambda value: value.item())
    DATA.write_text(text.replace('{"config"', '\n{"config"').replace('], "', '],\n"') + "\n")


if __name__ == "__main__":
    main()
