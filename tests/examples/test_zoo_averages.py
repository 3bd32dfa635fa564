"""The averages that recipes keep, BYOL's target network and MoCo's momentum encoder, equal those of their sources."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config

CONFIGS = Path(optax_ext.__file__).parents[1] / "examples" / "configs"
RECORDINGS = {path.stem: json.loads(path.read_text()) for path in sorted(Path(__file__).parent.glob("data/zoo/*.json"))}
WITH_AVERAGE = [stem for stem, recording in RECORDINGS.items() if "average" in recording]


def float32(arrays):
    return {path: jnp.asarray(array, jnp.float32) for path, array in arrays.items()}


def test_every_recipe_with_an_average_has_one_recorded():
    averages = {stem: ema for stem in RECORDINGS if (ema := config.load(CONFIGS / f"{stem}.yaml").ema) is not None}
    assert list(averages) == WITH_AVERAGE
    assert all(ema.initial == "params" and not ema.dynamic_decay for ema in averages.values())


@pytest.mark.parametrize("stem", WITH_AVERAGE)
def test_averages_are_those_of_the_source(stem):
    recording, tx = RECORDINGS[stem], config.load(CONFIGS / f"{stem}.yaml").make()
    params = float32(recording["params"])  # their paths are names with slashes, which patterns read as paths
    state = tx.init(params)
    if recording["start_step"] > 0:
        state = optax.tree.set(state, count=jnp.int32(recording["start_step"]))
    for grads in recording["grads"]:
        updates, state = tx.update(float32(grads), state, params)
        params = optax.apply_updates(params, updates)
    averages = optax_ext.ema_params(state)
    for path, expected in recording["average"].items():
        np.testing.assert_allclose(averages[path], expected, rtol=0, atol=2e-7 * np.abs(expected).max())
