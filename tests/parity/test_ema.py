"""The moving average against Model Garden's `ExponentialMovingAverage`: parameters and averages after each step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config
from tests.parity import golden_data, translation

GOLDEN = golden_data.load("ema")
CASES = {case["name"]: case for case in GOLDEN["cases"]}
PARAMS_TOLERANCE, TOLERANCE = 1e-5, 1e-6  # of a tensor's largest entry; 2.5e-7 and 2.4e-7 were seen

# TensorFlow's averages of bfloat16 variables are in bfloat16 and ours in float32, so they are apart by its rounding:
# 6.0e-3, where the last bit is 3.9e-3 to 7.8e-3. The parameters are the same bit by bit.
LOW_PRECISION = {"bfloat16": 8e-3}
SWAPPED_TOLERANCE = 1e-6  # TensorFlow swaps by adding and subtracting, which rounds; 2.4e-7 was seen


def make_recipe(case: dict[str, Any]) -> config.OptimizationConfig:
    inner = dict(case["inner"]["config"])
    sgd = config.SGD(translation.make_learning_rate(inner.pop("learning_rate")), **inner)
    return config.OptimizationConfig(sgd, ema=case["config"])


def trajectory(case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters, and the averages of parameters and batch statistics, after each step."""
    dtype, recipe = case.get("dtype", "float32"), make_recipe(case)
    tx, ema = recipe.make(), recipe.ema
    assert ema is not None
    average_stats = None if ema.trainable_weights_only else ema.make()

    @jax.jit
    def step(grads: Any, params: Any, state: optax.OptState, stats: Any, stats_state: optax.OptState) -> Any:
        updates, state = tx.update(grads, state, params)
        if average_stats is not None:
            _, stats_state = average_stats.update(jax.tree.map(jnp.zeros_like, stats), stats_state, stats)
        return optax.apply_updates(params, updates), state, stats_state

    params: Any = {name: jnp.asarray(param, dtype) for name, param in case["initial_params"].items()}
    stats = {"bn/moving_mean": jnp.zeros(3)}
    state, stats_state = tx.init(params), () if average_stats is None else average_stats.init(stats)
    series: list[Any] = []
    for index in range(len(case["moving_mean"])):
        grads = {name: jnp.asarray(grad[index], dtype) for name, grad in case["grads"].items()}
        stats = {"bn/moving_mean": jnp.asarray(case["moving_mean"][index])}
        params, state, stats_state = step(grads, params, state, stats, stats_state)
        averages: Any = optax_ext.ema_params(state)
        if average_stats is not None:
            averages = averages | optax_ext.ema_params(stats_state)
        series.append((params, averages))
    return jax.tree.map(lambda *steps: np.stack(steps).astype(np.float32), *series)


def test_every_case_is_compared_or_named():
    assert {name for name, case in CASES.items() if "dtype" in case} == LOW_PRECISION.keys()
    of_stats = [case for case in CASES.values() if not case["config"].get("trainable_weights_only", True)]
    assert (len(CASES), len(of_stats), len(LOW_PRECISION)) == (27, 8, 1)


@pytest.mark.parametrize("name", sorted(CASES))
def test_averages(name: str):
    case = CASES[name]
    params, averages = trajectory(case)
    assert averages.keys() == case["averages"].keys()
    for key in params:
        assert golden_data.deviation(params[key], case["params"][key]) <= PARAMS_TOLERANCE, key
    for key in averages:
        off = golden_data.deviation(averages[key], case["averages"][key])
        assert off <= LOW_PRECISION.get(name, TOLERANCE), key
    for key, swapped in case.get("swapped_params", {}).items():
        assert golden_data.deviation(averages[key][-1:], swapped[None]) <= SWAPPED_TOLERANCE, key
