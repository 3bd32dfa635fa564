"""Lamb, Adafactor, Muon and ScheduleFreeAdamW against the parameters of Keras after each step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext import config
from tests.marks import slow_unless
from tests.parity import golden_data, translation

GOLDEN = golden_data.load("keras_matrices")
INITIAL = GOLDEN["initial_params"]
TOLERANCE = 1e-5  # of the distance from the initial parameters; 3.2e-6 is the most that was seen
OF_MUON = 3e-5  # whose iteration multiplies rounding errors; 8.4e-6 is the most that was seen

SCHEMAS: dict[str, type[config.Optimizer]] = {
    "Lamb": config.LAMB,
    "Adafactor": config.Adafactor,
    "Muon": config.Muon,
    "ScheduleFreeAdamW": config.ScheduleFreeAdamW,
}
# What classes do besides, by the generation and the class.
OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("keras 3 on tensorflow", "Lamb"): {"decoupled_weight_decay": True, "exclude_from_layer_adaptation": []},
    ("keras 3 on tensorflow", "ScheduleFreeAdamW"): {"beta_1": 1.0},  # which has no effect there
}


def make_schema(case: dict[str, Any]) -> config.Optimizer:
    fields = {"weight_decay_rate" if name == "weight_decay" else name: v for name, v in case["config"].items()}
    fields["learning_rate"] = translation.make_learning_rate(fields["learning_rate"])
    if fields.get("weight_decay_rate", 0.0) is None:
        fields["weight_decay_rate"] = 0.0
    if "exclude" in case:
        fields["exclude_from_weight_decay"] = case["exclude"]
    if case["class"] == "Lamb":
        fields = {"epsilon": 1e-7} | fields  # Keras's default
    return SCHEMAS[case["class"]](**fields | OPTIONS.get((case["generation"], case["class"]), {}))


def distances(schema: config.Optimizer, case: dict[str, Any]) -> dict[str, float]:
    """Return how far each parameter is off at its worst step, in parts of the distance that it has moved."""
    tx, params = schema.make(), jax.tree.map(jnp.asarray, INITIAL)
    state, update, series = tx.init(params), jax.jit(tx.update), []
    for step in range(len(case["params"])):
        grads = {name: jnp.asarray(grad[step]) for name, grad in GOLDEN["grads"].items()}
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        series.append(np.concatenate([np.ravel(params[name]) for name in INITIAL]))
    start = np.concatenate([np.ravel(param) for param in INITIAL.values()]).astype(np.float64)
    places = np.cumsum([param.size for param in INITIAL.values()])[:-1]
    moved = [np.split(rows - start, places, axis=1) for rows in (np.stack(series), case["params"])]
    return {name: golden_data.deviation(*both) for name, *both in zip(INITIAL, *moved, strict=True)}


def name_of(case: dict[str, Any]) -> str:
    return f"{case['generation'].replace(' ', '-')}-{case['class']}-{GOLDEN['cases'].index(case)}"


def sets_most(case: dict[str, Any]) -> bool:
    """Whether a case stands for those of its class and software, which set fewer fields."""
    rivals = [other for other in GOLDEN["cases"] if all(other[key] == case[key] for key in ("generation", "class"))]
    return case is max(rivals, key=lambda other: (len(other["config"]), "exclude" in other))


@pytest.mark.parametrize("case", slow_unless(sets_most, GOLDEN["cases"]), ids=name_of)
def test_each_step_is_that_of_keras(case: dict[str, Any]):
    """Run the slow ones too with pytest tests/parity/test_keras_matrices.py -m slow; on 2026-11-26, all 12 passed."""
    worst = distances(make_schema(case), case)
    of_matrices = OF_MUON if case["class"] == "Muon" else TOLERANCE
    for name, distance in worst.items():
        assert distance <= (of_matrices if INITIAL[name].ndim == 2 else TOLERANCE), worst


def test_keras_on_tensorflow_is_not_schedule_free_learning():
    """It returns the same parameters whatever `beta_1` is, and not those of Keras on JAX."""
    (case,) = (
        case for case in GOLDEN["cases"] if case["generation"] == "keras 3 on tensorflow" and "Free" in case["class"]
    )
    assert "beta_1" not in case["config"]
    assert max(distances(dataclasses.replace(make_schema(case), beta_1=0.9), case).values()) > 0.01
