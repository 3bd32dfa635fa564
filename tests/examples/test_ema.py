"""Averages of parameters and batch statistics: evaluation uses both, and a skipped step moves neither."""

import contextlib
import io
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "ema.py"


@pytest.fixture(scope="module")
def ema() -> SimpleNamespace:
    """What the example defines and, as `printed`, says when it is run; later steps share its compiled one."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        names = runpy.run_path(str(EXAMPLE), run_name="__main__")
    return SimpleNamespace(**names, printed=printed.getvalue())


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.random((64, 64), np.float32), random.integers(10, size=64).astype(np.int32)


def test_the_averaged_variables_evaluate_well(ema: SimpleNamespace) -> None:
    accuracy = dict(re.findall(r"accuracy with (\w+) variables: ([\d.]+)", ema.printed))
    assert accuracy.keys() == {"last", "averaged"}
    assert float(accuracy["averaged"]) > 0.9


def test_batch_statistics_are_averaged_by_the_formula(
    ema: SimpleNamespace, batch: tuple[np.ndarray, np.ndarray]
) -> None:
    state, expected = ema.init_state(jax.random.key(0)), None
    for step in range(1, 4):
        state, _ = ema.train_step(state, *batch)
        decay = min(0.99, (1 + step) / (10 + step))
        stats = jax.tree.map(np.array, state["batch_stats"])
        if expected is None:
            expected = jax.tree.map(np.zeros_like, stats)
        expected = jax.tree.map(lambda a, s, decay=decay: decay * a + (1 - decay) * s, expected, stats)
    chex.assert_trees_all_close(ema.averaged(state)["batch_stats"], expected, rtol=1e-5)


def test_a_skipped_step_moves_nothing(ema: SimpleNamespace, batch: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = batch
    state, _ = ema.train_step(ema.init_state(jax.random.key(0)), images, labels)
    keep = ("params", "batch_stats", "stats_opt")
    before = jax.tree.map(np.array, ({name: state[name] for name in keep}, ema.averaged(state)))
    state, loss = ema.train_step(state, images * jnp.nan, labels)
    assert np.isnan(loss)
    assert not state["opt"].grads_finite
    chex.assert_trees_all_equal(({name: state[name] for name in keep}, ema.averaged(state)), before)
