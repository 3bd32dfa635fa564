"""Train, save and train on with the real Keras, for the tests of `interop.state_from_file`.

Each run takes 3 steps with given gradients, saves the model with its optimizer, and takes 4 more steps. In
`data/states/` are the files as Keras wrote them, compressed by gzip, and in `runs.json` the gradients, and of every
run the parameters when it was saved and at its end. The two generations of Keras need processes of their own:

    /tmp/tensorflow/bin/python -m tests.interop.generate_states tf_keras
    /tmp/tensorflow/bin/python -m tests.interop.generate_states keras
    /tmp/tensorflow/bin/python -m tests.interop.generate_states keras_2    # Keras 2.2 and 2.3, as tf_keras keeps them

`tests/parity/generate.py` says how to make the environment; `transformers==4.46.3` is in it as well.
"""

import argparse
import gzip
import importlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity import golden_data

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
DATA = Path(__file__).parent / "data" / "states"
SHAPES = {"dense/kernel": (3, 2), "dense/bias": (2,), "twin/kernel": (2, 2), "twin/bias": (2,)}
SAVED, END = 3, 7
RNG = np.random.default_rng(13)
INITIAL = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
GRADS = {name: RNG.normal(size=(END, *shape)).astype(np.float32) for name, shape in SHAPES.items()}


def make_model(keras: Any) -> Any:
    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((3,)), layers.Dense(2, name="dense"), layers.Dense(2, name="twin")], name="model"
    )
    model.set_weights(list(INITIAL.values()))
    return model


def run(
    keras: Any, name: str, suffix: str, optimizer: Any, *, scale: Callable[[], Any] | None = None
) -> dict[str, Any]:
    """Return the parameters at both ends of the second part of a run, whose file is left in `data/states/`."""
    tf: Any = importlib.import_module("tensorflow")
    model = make_model(keras)
    model.compile(optimizer, "mse")

    def values() -> dict[str, np.ndarray]:
        return {name: np.asarray(value) for name, value in zip(SHAPES, model.get_weights(), strict=True)}

    def step(n: int) -> None:
        optimizer: Any = model.optimizer
        if hasattr(optimizer, "get_scaled_loss"):  # of tf_keras; that of Keras 3 unscales in apply_gradients
            grads = optimizer.get_unscaled_gradients([optimizer.get_scaled_loss(grad[n]) for grad in GRADS.values()])
        else:
            factor = 1 if scale is None else scale()
            grads = [tf.constant(grad[n]) * factor for grad in GRADS.values()]
        model.optimizer.apply_gradients(list(zip(grads, model.trainable_variables, strict=True)))

    for n in range(SAVED):
        step(n)
    path = DATA / f"{name}.{suffix}"
    model.save(path)
    saved = values()
    for n in range(SAVED, END):
        step(n)
    compress(path)
    found = {"file": path.name, "saved": saved, "end": values()}
    if getattr(optimizer, "use_ema", False):
        found["averages_at_end"] = dict(
            zip(SHAPES, map(np.asarray, optimizer._model_variables_moving_average), strict=True)
        )
    return found


def compress(path: Path) -> None:
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()


# ---------------------------------------------------------------------------------------------------------
# The runs


def of_tf_keras() -> list[dict[str, Any]]:
    keras: Any = importlib.import_module("tf_keras")
    parity: Any = importlib.import_module("tests.parity.generate")
    lars, adamw = (parity.load_from_model_garden(name) for name in ("lars", "legacy_adamw"))
    transformers: Any = importlib.import_module("transformers.optimization_tf")
    legacy, newer, schedules = keras.optimizers.legacy, keras.optimizers, keras.optimizers.schedules
    scaled = keras.mixed_precision.LossScaleOptimizer
    cosine = schedules.CosineDecay(0.1, 10)
    older = {
        "lars_classic": lars.LARS(cosine, weight_decay_rate=0.01, nesterov=True),
        "lars_popular": lars.LARS(0.1, weight_decay_rate=0.01, classic_momentum=False),
        "sgd": legacy.SGD(cosine, momentum=0.9, nesterov=True),
        "sgd_decay": legacy.SGD(0.1, decay=0.3),
        "adam": legacy.Adam(0.1, amsgrad=True),
        "adam_scaled": scaled(legacy.Adam(0.1), initial_scale=1024.0, dynamic_growth_steps=2),
        "adamw_model_garden": adamw.AdamWeightDecay(0.1, weight_decay_rate=0.05, gradient_clip_norm=0.0),
        "adamw_transformers": transformers.AdamWeightDecay(0.1, weight_decay_rate=0.05),
        "rmsprop": legacy.RMSprop(0.1),
        "rmsprop_momentum": legacy.RMSprop(cosine, momentum=0.9, centered=True),
        "adagrad": legacy.Adagrad(0.1, decay=0.2),
    }
    runs = [run(keras, f"older_{name}", "h5", optimizer) for name, optimizer in older.items()]
    makers: dict[str, Callable[[], Any]] = {
        "sgd": lambda: newer.SGD(0.1, momentum=0.9, nesterov=True),
        "sgd_plain": lambda: newer.SGD(cosine),
        "adam": lambda: newer.Adam(cosine, amsgrad=True),
        "adam_scaled": lambda: scaled(newer.Adam(0.1), initial_scale=1024.0, dynamic_growth_steps=2),
        "adamw": lambda: newer.AdamW(0.1, weight_decay=0.05),
        "rmsprop": lambda: newer.RMSprop(0.1, momentum=0.9, centered=True),
        "adagrad": lambda: newer.Adagrad(0.1),
    }
    for suffix in ("h5", "keras"):
        runs += [run(keras, f"newer_{name}", suffix, make()) for name, make in makers.items()]
    return runs


def of_keras() -> list[dict[str, Any]]:
    keras: Any = importlib.import_module("keras")
    optimizers = keras.optimizers
    cosine = optimizers.schedules.CosineDecay(0.1, 10)
    makers: dict[str, Callable[[], Any]] = {
        "sgd": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        "sgd_plain": lambda: optimizers.SGD(0.1),
        "adam": lambda: optimizers.Adam(cosine, amsgrad=True),
        "adamw": lambda: optimizers.AdamW(0.1, weight_decay=0.05),
        "adamw_ema": lambda: optimizers.AdamW(0.1, weight_decay=0.05, use_ema=True, ema_momentum=0.5),
        "sgd_accumulated": lambda: optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=4),
        "adam_accumulated": lambda: optimizers.Adam(0.1, gradient_accumulation_steps=2),
        "rmsprop": lambda: optimizers.RMSprop(0.1, momentum=0.9, centered=True),
        "adagrad": lambda: optimizers.Adagrad(cosine),
    }
    runs: list[dict[str, Any]] = []
    for suffix in ("h5", "keras"):
        runs += [run(keras, f"keras_{name}", suffix, make()) for name, make in makers.items()]
        optimizer = optimizers.LossScaleOptimizer(optimizers.Adam(0.1), initial_scale=1024.0, dynamic_growth_steps=2)
        scale = lambda optimizer=optimizer: optimizer.dynamic_scale if optimizer.built else 1024.0  # noqa: E731
        made = run(keras, "keras_adam_scaled", suffix, optimizer, scale=scale)
        numbers = {"loss_scale": float(optimizer.dynamic_scale), "counter": int(optimizer.step_counter)}
        runs.append({**made, "scale_at_end": numbers})
    return runs


def of_keras_2() -> list[dict[str, Any]]:
    """Take steps as Keras 2.2 and TensorFlow 1 did: in a graph, by optimizers whose variables have no names."""
    tf: Any = importlib.import_module("tensorflow")
    keras: Any = importlib.import_module("tf_keras")
    backend: Any = importlib.import_module("tf_keras.src.backend")
    v1: Any = importlib.import_module("tf_keras.src.optimizers.optimizer_v1")
    tf.compat.v1.disable_v2_behavior()
    runs: list[dict[str, Any]] = []
    for name, make in {
        "sgd": lambda: v1.SGD(0.1, momentum=0.9),
        "adam": lambda: v1.Adam(0.1),
        "rmsprop": lambda: v1.RMSprop(0.1),
        "adagrad": lambda: v1.Adagrad(0.1),
    }.items():
        keras.backend.clear_session()
        model = make_model(keras)
        model.compile(make(), "mse")
        feeds = [tf.compat.v1.placeholder(tf.float32, shape) for shape in SHAPES.values()]
        optimizer = model.optimizer
        optimizer.get_gradients = lambda loss, params, feeds=feeds: feeds
        with keras.backend.name_scope("training"), keras.backend.name_scope(type(optimizer).__name__):
            updates = optimizer.get_updates(tf.constant(0.0), model.trainable_weights)
        session = backend.get_session(updates)
        path, at = DATA / f"keras_2_{name}.h5", {}
        for n in range(END):
            if n == SAVED:
                model.save(path)
                at["saved"] = dict(zip(SHAPES, model.get_weights(), strict=True))
            session.run(updates, dict(zip(feeds, (grad[n] for grad in GRADS.values()), strict=True)))
        compress(path)
        runs.append({"file": path.name, **at, "end": dict(zip(SHAPES, model.get_weights(), strict=True))})
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    makers = {"tf_keras": of_tf_keras, "keras": of_keras, "keras_2": of_keras_2}
    parser.add_argument("writer", choices=makers)
    writer = parser.parse_args().writer
    warnings.simplefilter("ignore")  # that .h5 is an old format
    DATA.mkdir(parents=True, exist_ok=True)
    index = DATA / "runs.json"
    content = golden_data.loads(index.read_text()) if index.exists() else {"grads": GRADS, "runs": {}}
    content["runs"][writer] = makers[writer]()
    index.write_text(golden_data.dumps(content))


if __name__ == "__main__":
    main()
