"""The benchmarks run and count what they say; the compiler for TPUs makes of our steps what it should."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks.contenders import CONTENDERS
from benchmarks.trees import TREES, count_parameters

ROOT = Path(__file__).parents[2]


def run(*arguments):
    # A process of its own: the eight devices of these tests are not what is measured.
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout


def test_a_table_and_its_json(tmp_path):
    file = tmp_path / "results.json"
    rows = ["bandwidth floor", "sgd", "optax_ext.lars"]
    options = ["--trees", "thousand_leaves", "--dtypes", "bfloat16", "--repeats", "2"]
    table = run("benchmarks", *options, "--only", *rows, "--json", str(file))
    assert "thousand_leaves: 1000 leaves, 2.1 million parameters, bfloat16" in table
    results = json.loads(file.read_text())
    assert [result["row"] for result in results["results"]] == rows
    assert all(len(result["step_ms"]) == 2 for result in results["results"])
    assert results["machine"]["jax"] == jax.__version__


def test_trees_are_the_networks():
    assert {name: (len(tree()), count_parameters(tree())) for name, tree in TREES.items()} == {
        "resnet50": (161, 25_557_032),
        "vit_b16": (200, 86_567_656),
        "thousand_leaves": (1000, 2_080_000),
    }


@pytest.mark.parametrize("name", ["DynamicScale + where", "loss-scaled optax_ext.lars"])
@pytest.mark.parametrize("bad", [False, True])
def test_scaled_contenders_do_the_same_work(name, bad):
    init, step = CONTENDERS[name]()
    params = {"kernel": jnp.full((4, 4), 0.5), "bias": jnp.ones(4)}
    grads = {"kernel": jnp.full((4, 4), jnp.inf if bad else 2.0**15), "bias": jnp.zeros(4)}
    new_params, _ = jax.jit(step)(params, init(params), grads)
    assert bool((new_params["kernel"] == params["kernel"]).all()) == bad
    assert bool(jnp.isfinite(new_params["kernel"]).all())


def needs(package, device):
    absent = not importlib.util.find_spec(package)
    return pytest.mark.skipif(absent, reason=f"the compiler for the {device} is not installed: {package}")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("device", "norms", "checks"),
    [
        # One fusion for each of the 161 leaves, and one reduction with two results, or three, for each of the 54 that
        # have a trust ratio. One more for each of the other 107, to see whether it is finite.
        pytest.param("v5e", 54, 107, marks=needs("libtpu", "v5e")),
        # Each sum of a large array takes two.
        pytest.param("h100", 3 * 54, 107 + 54, marks=needs("jax_cuda12_plugin", "h100")),
    ],
)
def test_fusions_on_other_devices(device, norms, checks, dtype):
    rows = ("optax_ext.lars", "loss-scaled optax_ext.lars")
    lines = run("benchmarks.ahead", device, "--dtype", dtype, "--only", *rows).splitlines()
    lars, scaled = (json.loads(line) for line in lines)
    some = 16  # of scalars
    assert 161 < lars["fusions"] <= 161 + norms
    assert lars["fusions"] < scaled["fusions"] <= lars["fusions"] + checks + some
    assert scaled["temporary_bytes"] < 25_557_032 * jnp.dtype(dtype).itemsize
