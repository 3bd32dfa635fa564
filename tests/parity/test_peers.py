"""LARS and LAMB of MLPerf, apex and timm, step by step for 10 steps: the rows of the migration guide's last table.

Each row's first cell, a call in the words of the other project, is evaluated with the derivations in `peers.py`, its
last cell, the way to say it here, with this library. `golden/peers.json` holds what apex and timm themselves return.
"""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import transforms
from tests.parity import golden_data
from tests.parity.peers import PEERS

GUIDE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text()
TABLE = GUIDE[GUIDE.index("| in MLPerf, apex or timm |") :]
ROWS = dict(re.findall(r"^\| `(.*?)` \| .* \| `(.*?)` \|$", TABLE, re.MULTILINE))
GOLDEN = golden_data.load("peers")
DATA = {
    part: {name: numbers.astype(np.float64) for name, numbers in GOLDEN["data"][part].items()}
    for part in ("params", "grads")
}
STEPS = len(GOLDEN["data"]["rates"])
# Of a tensor's largest entry. Ours run in float64, and are off by 4e-15 at most; by 2e-8 where a row divides by a rate,
# which is float32. In float32 they are off by 3.0e-7, and LAMB by 2.0e-5, since 1 - b2**t is off by 5e-5 in the first
# step. The originals ran in float32, in which 3.3e-7 is the most that was seen.
TOLERANCE, RATE_TOLERANCE, ORIGINAL_TOLERANCE = 1e-12, 1e-7, 1e-6

NAMESPACE = {
    "jnp": jnp,
    "optax": optax,
    "optax_ext": optax_ext,
    "transforms": transforms,
    "schedule": optax_ext.PiecewiseConstantDecay(
        [0, 2, 5, 7], [0.0, 0.1, 0.4, 0.2, 0.05]
    ),  # of which the file has the rates
    "kernels": optax_ext.path_mask(exclude=["rank <= 1"]),
}


def gradients(theirs: str) -> list[dict[str, np.ndarray]]:
    """Return the gradients of each step; LARC alone is spared those of zeros, with which nothing decays in apex."""
    steps = [{name: grad[t] for name, grad in DATA["grads"].items()} for t in range(STEPS)]
    return [{n: g if g.any() else g + 0.5 for n, g in step.items()} for step in steps] if "LARC" in theirs else steps


def derive(theirs: str) -> dict[str, np.ndarray]:
    """Return the parameters after each step, in float64 throughout."""
    peer = eval(theirs, NAMESPACE | PEERS)
    params, series = DATA["params"], []
    for t, grads in enumerate(gradients(theirs)):
        params = peer.step(t, params, grads)
        series.append(params)
    return {name: np.stack([params[name] for params in series]) for name in params}


def run(ours: str, theirs: str) -> dict[str, np.ndarray]:
    """Return the parameters after each step of what the guide says."""
    tx = eval(ours, dict(NAMESPACE))
    params: Any = {name: jnp.asarray(param) for name, param in DATA["params"].items()}
    state, series = tx.init(params), []
    for grads in gradients(theirs):
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        series.append(params)
    return jax.tree.map(lambda *steps: np.stack(steps), *series)


def assert_close(ours: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    assert ours.keys() == expected.keys()
    for name in expected:
        assert golden_data.deviation(ours[name], expected[name]) <= tolerance, name


def test_data_has_every_kind_of_parameter_and_gradient():
    ranks = {param.ndim for param in DATA["params"].values()}
    assert ranks == {1, 2, 4}
    assert not DATA["params"]["zero/kernel"].any()
    assert any(not grad[t].any() for grad in DATA["grads"].values() for t in range(STEPS))
    rates = [float(NAMESPACE["schedule"](t)) for t in range(STEPS)]
    np.testing.assert_allclose(rates, GOLDEN["data"]["rates"], rtol=1e-7)
    assert len(set(rates)) == 5


def test_the_table_is_read_whole():
    assert len(ROWS) == TABLE.split("\n\n")[0].count("\n") - 1 == 12


@pytest.mark.parametrize("theirs", ROWS)
def test_takes_the_steps_of_the_derivation(theirs: str):
    tolerance = RATE_TOLERANCE if "/ jnp.maximum(schedule" in ROWS[theirs] else TOLERANCE
    with jax.enable_x64(True):
        assert_close(run(ROWS[theirs], theirs), derive(theirs), tolerance)


@pytest.mark.parametrize("theirs", [theirs for theirs in ROWS if "Optimizer(" not in theirs])
def test_the_derivation_takes_the_steps_of_the_original(theirs: str):
    assert_close(derive(theirs), GOLDEN["cases"][theirs], ORIGINAL_TOLERANCE)


def test_apex_alone_does_not_decay_without_a_gradient():
    """What the guide says differs."""
    param, zeros = np.full((2, 2), 3.0), np.zeros((2, 2))
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-2}
    larc, lars = PEERS["LARC"](PEERS["SGD"](**settings)), PEERS["Lars"](**settings)
    assert (larc.step(0, {"w": param}, {"w": zeros})["w"] == param).all()
    tx = optax_ext.lars(0.1, weight_decay=5e-2, separate_norms=True)
    update, _ = tx.update(jnp.asarray(zeros), tx.init(jnp.asarray(param)), jnp.asarray(param))
    np.testing.assert_allclose(param + update, lars.step(0, {"w": param}, {"w": zeros})["w"], rtol=1e-6)


def test_timm_divides_a_ratio_of_one_by_a_rate_above_one():
    """What the guide says differs."""
    zeros, ones = np.zeros((2, 2)), np.ones((2, 2))
    lars = PEERS["Lars"](lr=4.0, trust_clip=True, always_adapt=True)
    assert (lars.step(0, {"w": zeros}, {"w": ones})["w"] == -1).all()
    tx = optax_ext.lars(4.0, momentum=0.0, trust_coefficient=0.001 / 4, max_ratio=1.0, separate_norms=True)
    np.testing.assert_array_equal(tx.update(jnp.asarray(ones), tx.init(jnp.asarray(zeros)), jnp.asarray(zeros))[0], -4)
