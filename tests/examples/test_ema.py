"""Averages of parameters and batch statistics: evaluation uses both, and a skipped step moves neither."""

import os
import re
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import ema

EXAMPLE = Path(__file__).parents[2] / "examples" / "ema.py"


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.random((32, 64), np.float32), random.integers(10, size=32)


def test_the_averaged_variables_evaluate_well() -> None:
    command = [sys.executable, str(EXAMPLE)]
    environment = os.environ | {"PYTHONPATH": str(EXAMPLE.parents[1]), "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    accuracy = dict(re.findall(r"accuracy with (\w+) variables: ([\d.]+)", run.stdout))
    assert accuracy.keys() == {"last", "averaged"}
    assert float(accuracy["averaged"]) > 0.9


def test_batch_statistics_are_averaged_by_the_formula(batch: tuple[np.ndarray, np.ndarray]) -> None:
    state, expected = ema.init_state(jax.random.key(0)), None
    for step in range(1, 4):
        state, _ = ema.train_step(state, *batch)
        decay = min(0.99, (1 + step) / (10 + step))
        stats = jax.tree.map(np.array, state["batch_stats"])
        if expected is None:
            expected = jax.tree.map(np.zeros_like, stats)
        expected = jax.tree.map(lambda a, s, decay=decay: decay * a + (1 - decay) * s, expected, stats)
    chex.assert_trees_all_close(ema.averaged(state)["batch_stats"], expected, rtol=1e-5)


def test_a_skipped_step_moves_nothing(batch: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = batch
    state, _ = ema.train_step(ema.init_state(jax.random.key(0)), images, labels)
    keep = ("params", "batch_stats", "stats_opt")
    before = jax.tree.map(np.array, ({name: state[name] for name in keep}, ema.averaged(state)))
    state, loss = ema.train_step(state, images * jnp.nan, labels)
    assert np.isnan(loss)
    assert not state["opt"].grads_finite
    chex.assert_trees_all_equal(({name: state[name] for name in keep}, ema.averaged(state)), before)
