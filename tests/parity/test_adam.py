"""The optimizer schemas against TensorFlow's trajectories: parameters and slots after each of 10 steps."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext import config
from tests.marks import slow_unless
from tests.parity import golden_data, translation

GOLDEN = golden_data.load("adam")
CASES = {case["name"]: case for case in GOLDEN["cases"]}
TOLERANCE = 1e-5  # of a tensor's largest entry; 8.9e-7 is the most that was seen

SCHEMAS = {
    "SGD": config.SGD,
    "Adam": config.Adam,
    "AdamWeightDecay": config.AdamW,
    "LAMB": config.LAMB,
    "RMSprop": config.RMSprop,
    "Adagrad": config.Adagrad,
}
DEFAULT_LEARNING_RATE = {"SGD": 0.01}  # 0.001 for the others
SLOTS = {
    "m": "mu",
    "v": "nu",
    "vhat": "nu_max",
    "mg": "mu",
    "rms": "nu",
    "accumulator": "sum_of_squares",
    "momentum": "trace",
}

# Inside a LossScaleOptimizer, TensorFlow forgets `gradient_clip_norm`. Ours clips there too; without it they agree.
FORGETS_TO_CLIP = {"adamw_wrapped_in_loss_scale_loses_clip"}


def make_schema(case: dict[str, Any], **overrides: Any) -> config.Optimizer:
    fields = case["config"] | overrides
    rate = fields.pop("learning_rate", DEFAULT_LEARNING_RATE.get(case["class"], 0.001))
    return SCHEMAS[case["class"]](learning_rate=translation.make_learning_rate(rate), **fields)


def trajectory(schema: config.Optimizer, case: dict[str, Any], compiled: bool) -> tuple[dict[str, Any], Any]:
    """Return the parameters, and the states, after each step."""
    data, tx = GOLDEN["data"][case["data"]], schema.make()

    def step(grads: Any, params: Any, state: optax.OptState) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if compiled else step
    params = translation.nest({name: jnp.asarray(param) for name, param in data["params"].items()})
    state = tx.init(params)
    series: list[Any] = []
    for index in range(10):
        grads = translation.nest({name: jnp.asarray(grad[index]) for name, grad in data["grads"].items()})
        params, state = step(grads, params, state)
        series.append((params, state))
    all_params, states = jax.tree.map(lambda *steps: np.stack(steps), *series)
    return translation.flatten(all_params), states


def deviations(schema: config.Optimizer, case: dict[str, Any], compiled: bool = False) -> dict[str, float]:
    params, states = trajectory(schema, case, compiled)
    off = {name: golden_data.deviation(params[name], expected) for name, expected in case["params"].items()}
    for slot, expected in case["slots"].items():
        # Our trace is of updates, which descend, as SGD's slot is; that of RMSprop has the other sign.
        sign = -1 if slot == "momentum" and case["class"] == "RMSprop" else 1
        ours = {name: sign * array for name, array in translation.flatten(optax.tree.get(states, SLOTS[slot])).items()}
        assert ours.keys() == expected.keys()
        off |= {f"{slot} of {name}": golden_data.deviation(ours[name], expected[name]) for name in expected}
    return off


def test_every_case_is_compared_or_named():
    by_class = {name: sum(case["class"] == name for case in CASES.values()) for name in SCHEMAS}
    assert by_class == {"SGD": 7, "Adam": 5, "AdamWeightDecay": 8, "LAMB": 5, "RMSprop": 5, "Adagrad": 3}
    assert sum(by_class.values()) == len(CASES) == 33
    assert {name for name, case in CASES.items() if case.get("wrapped_in_loss_scale")} == FORGETS_TO_CLIP


# Compiled, the first case of each class stands for the others, whose formulas are compared uncompiled.
FIRST = {
    min(name for name in CASES if CASES[name]["class"] == each and name not in FORGETS_TO_CLIP) for each in SCHEMAS
}


@pytest.mark.parametrize(
    ("name", "compiled"),
    slow_unless(
        lambda name, compiled: not compiled or name in FIRST,
        itertools.product(sorted(CASES.keys() - FORGETS_TO_CLIP), (False, True)),
    ),
)
def test_trajectory(name: str, compiled: bool):
    case = CASES[name]
    off = deviations(make_schema(case), case, compiled)
    assert max(off.values()) <= TOLERANCE, max(off, key=off.__getitem__)


@pytest.mark.parametrize("name", sorted(FORGETS_TO_CLIP))
def test_trajectory_without_the_clipping_that_tensorflow_forgets(name: str):
    case = CASES[name]
    assert max(deviations(make_schema(case, gradient_clip_norm=0.0), case).values()) <= TOLERANCE
    assert max(deviations(make_schema(case), case).values()) > 0.01


@pytest.mark.parametrize("name", sorted(CASES))
def test_learning_rates(name: str):
    schema = make_schema(CASES[name])
    rate: Any = schema.learning_rate
    ours = np.array([rate(step) if callable(rate) else rate for step in range(10)], np.float32)
    expected = golden_data.float32s(CASES[name]["learning_rates"])
    np.testing.assert_allclose(ours / (1 + schema.decay * np.arange(10)), expected, rtol=2e-5)
