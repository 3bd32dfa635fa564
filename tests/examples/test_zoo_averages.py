"""The averages that recipes keep, BYOL's target network and MoCo's momentum encoder, equal those of their sources."""

import json
from pathlib import Path

import jax
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
def test_decays_are_those_of_the_source_to_the_rounding_of_float32(stem):  # by which MoCo's differ from step to step
    decay = config.resolve(config.load(CONFIGS / f"{stem}.yaml")).ema.average_decay
    steps, expected = zip(*RECORDINGS[stem]["rates"]["ema_decay"], strict=True)
    np.testing.assert_allclose(decay(np.array(steps)), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("stem", WITH_AVERAGE)
def test_averages_are_those_of_the_source(stem):
    recording, tx = RECORDINGS[stem], config.load(CONFIGS / f"{stem}.yaml").make()
    params = float32(recording["params"])  # their paths are names with slashes, which patterns read as paths
    state = tx.init(params)
    state = jax.tree_util.tree_map_with_path(  # `optax.tree.set` leaves out what is inside a state with a count
        lambda path, leaf: leaf + recording["start_step"] if getattr(path[-1], "name", None) == "count" else leaf, state
    )
    update = jax.jit(tx.update)
    for grads in recording["grads"]:
        updates, state = update(float32(grads), state, params)
        params = optax.apply_updates(params, updates)
    averages = optax_ext.ema_params(state)
    for path, expected in recording["average"].items():
        np.testing.assert_allclose(averages[path], expected, rtol=0, atol=2e-7 * np.abs(expected).max())
