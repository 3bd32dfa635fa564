"""Each recipe beside the examples is loaded, made and stepped, and says where it is from."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config

CONFIGS = sorted((Path(optax_ext.__file__).parents[1] / "examples" / "configs").glob("*.yaml"))

PARAMS = {  # a network of a few layers, with names as in Flax
    "conv_init": {"kernel": jnp.full((3, 3, 3, 4), 0.1)},
    "bn_init": {"scale": jnp.ones(4), "bias": jnp.zeros(4)},
    "ResNetBlock_0": {"Conv_0": {"kernel": jnp.full((3, 3, 4, 4), 0.1)}, "BatchNorm_0": {"scale": jnp.ones(4)}},
    "head_supervised": {"kernel": jnp.full((4, 10), 0.1), "bias": jnp.zeros(10)},
}


def loss_fn(params):
    return sum(jnp.sum(leaf**2 + leaf) for leaf in jax.tree.leaves(params))


def test_there_are_recipes():
    assert len(CONFIGS) >= 5


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_recipe_steps(path):
    optimizer = config.load(path).make()
    params, state = PARAMS, optimizer.init(PARAMS)

    @jax.jit
    def step(params, state):
        loss, grads = optax_ext.value_and_grad(loss_fn, state, missing_ok=True)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    for _ in range(3):
        params, state, loss = step(params, state)
        assert np.isfinite(loss)
    for before, after in zip(jax.tree.leaves(PARAMS), jax.tree.leaves(params), strict=True):
        assert np.isfinite(after).all()
        assert (before != after).all()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_recipe_names_its_source_first(path):
    comment = re.match(r"(#.*\n)+", path.read_text())
    assert comment
    assert re.match(r"# Source: .*", comment[0])
    assert re.search(r"github\.com/\S+|arXiv:\d{4}\.\d{5}", comment[0])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_recipe_survives_a_round_trip(path, tmp_path):
    loaded = config.load(path)
    config.save(loaded, tmp_path / "copy.json")
    assert config.load(tmp_path / "copy.json") == loaded


@pytest.mark.parametrize(
    ("name", "warmup_steps", "peak", "run_steps", "end"),
    [
        ("mlperf_resnet50_lars_4096", 5 * (1_281_167 // 4096), 10.0, 42 * (1_281_167 // 4096), 1e-4),
        ("mlperf_resnet50_lars_32768", 16 * (1_281_167 // 32768), 21.2, 58 * (1_281_167 // 32768), 1e-4),
        ("imagenet_simclr_lars_4k", 10 * 1_281_167 // 4096, 4.8, 100 * 1_281_167 // 4096 + 1, 0.0),
        ("imagenet_resnet50_float16", 5 * (1_281_167 // 2048), 0.8, 56_160, 0.0008),
    ],
)
def test_a_recipe_warms_up_to_its_peak_and_ends_with_its_run(name, warmup_steps, peak, run_steps, end):
    (path,) = (path for path in CONFIGS if path.stem == name)
    schedule = config.resolve(config.load(path)).optimizer.learning_rate
    assert schedule(0) == 0
    assert schedule(warmup_steps - 1) < schedule(warmup_steps)
    assert schedule(warmup_steps) == pytest.approx(peak, rel=1e-6)
    assert end <= schedule(run_steps) + 1e-9
    assert schedule(run_steps + 1) == pytest.approx(end, rel=1e-6)
