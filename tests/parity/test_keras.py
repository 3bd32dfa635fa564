"""The optimizer schemas against the parameters of Keras 3, tf_keras, tensorflow_addons and PyTorch after each step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext import config
from tests.marks import slow_unless
from tests.parity import golden_data, translation

GOLDEN = golden_data.load("keras")
INITIAL = GOLDEN["initial_params"]
TOLERANCE = 1e-5  # of the distance from the initial parameters
KERAS = ("keras 3", "tf_keras")  # the newer generation, in two packages

SCHEMAS: dict[str, type[config.Optimizer]] = {
    "SGD": config.SGD,
    "SGDW": config.SGD,
    "Adam": config.Adam,
    "AdamW": config.AdamW,
    "RMSprop": config.RMSprop,
    "Adagrad": config.Adagrad,
    "Adadelta": config.Adadelta,
    "Adamax": config.Adamax,
    "Nadam": config.Nadam,
    "NAdam": config.Nadam,
    "Ftrl": config.Ftrl,
    "Lion": config.Lion,
}
RENAMED = {
    "weight_decay": "weight_decay_rate",
    "lr": "learning_rate",
    "eps": "epsilon",
    "schedule_decay": "momentum_decay",
}
# What classes do besides, by the generation and the class.
OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    **{(generation, name): {"epsilon_in_root": True} for generation in KERAS for name in ("RMSprop", "Adagrad")},
    ("tf_keras legacy", "Nadam"): {"momentum_decay": 0.004},
    **{(generation, "AdamW"): {"gradient_clip_norm": 0.0} for generation in KERAS},
    ("tensorflow_addons", "AdamW"): {"weight_decay_times_learning_rate": False, "gradient_clip_norm": 0.0},
    ("tensorflow_addons", "SGDW"): {"weight_decay_times_learning_rate": False},
    ("torch", "Adam"): {"epsilon_hat": False},
    ("torch", "AdamW"): {"epsilon_hat": False, "gradient_clip_norm": 0.0},
}


def make_schema(case: dict[str, Any]) -> config.Optimizer:
    fields = {RENAMED.get(name, name): value for name, value in case["config"].items()}
    fields |= dict(zip(("beta_1", "beta_2"), fields.pop("betas", ()), strict=False))
    fields["learning_rate"] = translation.make_learning_rate(fields["learning_rate"])
    if "exclude" in case:
        fields["exclude_from_weight_decay"] = case["exclude"]
    return SCHEMAS[case["class"]](**OPTIONS.get((case["generation"], case["class"]), {}) | fields)


def distances(case: dict[str, Any]) -> dict[str, float]:
    """Return how far each parameter is off at its worst step, in parts of the distance that it has moved."""
    tx, params = make_schema(case).make(), jax.tree.map(jnp.asarray, INITIAL)
    state, rows = tx.init(params), []
    for step in range(len(case["params"])):
        grads = {name: jnp.asarray(grad[step]) for name, grad in GOLDEN["grads"].items()}
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        rows.append(np.concatenate([np.ravel(params[name]) for name in INITIAL]))
    start = np.concatenate([np.ravel(param) for param in INITIAL.values()]).astype(np.float64)
    places = np.cumsum([param.size for param in INITIAL.values()])[:-1]
    moved = [np.split(series - start, places, axis=1) for series in (np.stack(rows), case["params"])]
    return {name: golden_data.deviation(*both) for name, *both in zip(INITIAL, *moved, strict=True)}


def name_of(case: dict[str, Any]) -> str:
    number = GOLDEN["cases"].index(case)
    return f"{case['generation'].replace(' ', '-')}-{case['class']}-{number}"


# Of the newer generation, Keras 3 stands for tf_keras.
@pytest.mark.parametrize(
    "case", slow_unless(lambda case: case["generation"] != "tf_keras", GOLDEN["cases"]), ids=name_of
)
def test_each_step_is_that_of_the_software(case: dict[str, Any]):
    worst = distances(case)
    assert max(worst.values()) <= TOLERANCE, worst
