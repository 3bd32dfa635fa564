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

import benchmarks.measure as measure_module
from benchmarks.__main__ import main, make_table
from benchmarks.contenders import CONTENDERS, FAMILIES, FLOOR, choose
from benchmarks.device_time import measure_device_ms
from benchmarks.measure import Measurement, measure
from benchmarks.trees import TREES, count_parameters
from tests.marks import slow_unless

ROOT = Path(__file__).parents[2]


def run(*arguments):
    # A process of its own: the eight devices of these tests are not what is measured.
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout


def test_a_small_table_and_its_json(tmp_path):
    file = tmp_path / "results.json"
    small = {"kernel": (64, 32), "bias": (32,)}
    options = [
        "--trees",
        "vit_s16",
        "--dtypes",
        "float32",
        "--repeats",
        "2",
        "--only",
        "optax.sgd",
        "--json",
        str(file),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TREES, "vit_s16", lambda: small)
        patch.setattr(sys, "argv", ["benchmarks", *options])
        main()
    (result,) = json.loads(file.read_text())["results"]
    assert result["row"] == "optax.sgd"
    assert len(result["step_ms"]) == 2
    assert 0 <= result["necessary_bytes"] - 5 * (64 * 32 + 32) * 4 < 5000


@pytest.mark.slow
@pytest.mark.parametrize("rows", [["optax.sgd"], ["bandwidth floor", "optax.sgd"]])
def test_a_table_and_its_json(rows, tmp_path):
    file = tmp_path / "results.json"
    options = ["--trees", "resnet50", "--dtypes", "bfloat16", "--repeats", "2"]
    table = run("benchmarks", *options, "--only", *rows, "--json", str(file))
    assert "rows: resnet50, 161 leaves, 25.6 million parameters, bfloat16" in table
    results = json.loads(file.read_text())
    assert [result["row"] for result in results["results"]] == rows
    assert all(len(result["step_ms"]) == 2 for result in results["results"])
    # Parameters, momentum and gradients are read, and two of them written; XLA counts some pointers too.
    assert all(0 <= result["necessary_bytes"] - 5 * 25_557_032 * 2 < 5000 for result in results["results"])
    assert results["machine"]["jax"] == jax.__version__


def test_ratios_are_of_medians_and_of_minima():
    def measured(*step_ms):
        return Measurement(
            list(step_ms), compile_s=0, temporary_bytes=8, accessed_bytes=0, necessary_bytes=0, kernels=0
        )

    rows = {"loss-scaled optax.adamw": measured(6, 9, 30), "optax.adamw": measured(2, 6, 8), "optax.lamb": measured(3)}
    table = make_table("adamw", rows, params_bytes=4)
    cells = {column.header: list(column.cells) for column in table.columns}
    assert cells["ratio"] == ["1.50 (3.00) of optax.adamw", "", "0.50 (1.50) of optax.adamw"]
    assert cells["temporaries"] == ["2.00 copies"] * 3
    del rows["optax.adamw"]
    assert list(make_table("rows", rows, params_bytes=4).columns[3].cells) == ["", ""]


def test_times_of_the_device_alone_have_columns_and_bytes_a_second_of_their_own():
    def measured(step_ms, device_ms):
        return Measurement([step_ms], 0, 0, 0, necessary_bytes=10**6, kernels=0, device_ms=[device_ms, 2 * device_ms])

    rows = {"loss-scaled optax.adamw": measured(6, 2), "optax.adamw": measured(5, 0.5)}
    columns = make_table("adamw", rows, params_bytes=4).columns
    assert [column.header for column in columns[4:7]] == ["device ms", "min ms", "ratio"]
    assert [next(iter(column.cells)) for column in columns[3:7]] == [
        "1.20 (1.20) of optax.adamw",
        "3.000",
        "2.000",
        "4.00 (4.00)",
    ]
    assert next(list(column.cells) for column in columns if column.header == "GB/s") == ["0", "2"]


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
def test_a_cpu_has_no_time_of_a_device_alone():
    with pytest.raises(RuntimeError, match="measured on a GPU, not on a cpu"):
        measure_device_ms(lambda: None)


def test_steps_in_a_row_are_as_many_and_each_is_timed_alike(monkeypatch):
    started = []
    clock = iter(range(100))
    monkeypatch.setattr(measure_module.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(measure_module._Running, "run", lambda self, steps: started.append(steps))
    (row,) = measure({"bias": (3,)}, "float32", names=["optax.sgd"], repeats=2, steps=4).values()
    assert (started, row.step_ms, row.device_ms) == ([1, 4, 4], [250.0, 250.0], [])


def test_trees_are_the_networks():
    assert {name: (len(tree()), count_parameters(tree())) for name, tree in TREES.items()} == {
        "resnet50": (161, 25_557_032),
        "vit_b16": (200, 86_567_656),
        "vit_s16": (200, 22_050_664),
        "thousand_leaves": (1000, 2_080_000),
    }


@pytest.fixture
def all_there(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


def test_ratios_are_of_rows_of_the_same_table(all_there):
    tables = choose(FAMILIES)
    assert list(tables) == FAMILIES
    assert set().union(*tables.values()) == set(CONTENDERS)
    for rows in tables.values():
        assert {CONTENDERS[name].of for name in rows} - {None} <= set(rows)
    assert not set(FAMILIES) & set(CONTENDERS)


def test_families_and_rows_can_be_chosen(all_there):
    lamb = ["optax.adamw", "optax.lamb", "optax_ext.lamb", "loss-scaled optax_ext.lamb"]
    assert choose(["optax.sgd", "lamb", "loss-scaled optax.sgd"]) == {
        "rows": ["optax.sgd", "loss-scaled optax.sgd"],
        "lamb": lamb,
    }


def test_an_absent_peer_leaves_its_row_out(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jmp" else object())
    rows = choose(["adamw"])["adamw"]
    assert "jmp + optax.adamw" not in rows
    assert "mpx + optax.adamw" in rows
    assert capsys.readouterr().err.startswith("jmp + optax.adamw: left out, needs jmp")


PARAMS = {"kernel": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3), "bias": jnp.ones(3)}
GRADS = {"kernel": jnp.linspace(0.25, 0.75, 12).reshape(4, 3), "bias": jnp.full(3, 0.75)}


def step_of(name):
    """Return a row's initial state and step on gradients that arrive as they are, or skip what is not there."""
    row = CONTENDERS[name]
    if row.package:
        pytest.importorskip(row.package)
    init, step = row.make()
    return init, lambda params, state, grads: step(params, state, jax.tree.map(lambda g: row.grads_scale * g, grads))


QUICK_ROWS = ("adamw", "lars")  # around which every way to skip a step stands


@pytest.mark.parametrize(
    "name",
    slow_unless(
        lambda name: name.endswith((*QUICK_ROWS, *(f"{row})" for row in QUICK_ROWS))),
        [name for name in CONTENDERS if name != FLOOR],
    ),
)
def test_rows_do_the_same_work_as_their_bases(name):
    init, step = step_of(name)
    step = jax.jit(step, donate_argnums=1)
    new_params, _ = step(PARAMS, init(PARAMS), GRADS)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in new_params.values())
    assert not any(bool(jnp.array_equal(new_params[key], PARAMS[key])) for key in PARAMS)
    if name.startswith(("loss-scaled ", "apply_if_finite(", "DynamicScale + ", "jmp + ", "mpx + ")):
        init_base, step_base = step_of(CONTENDERS[name].of)
        base, _ = step_base(PARAMS, init_base(PARAMS), GRADS)
        assert all(bool(jnp.allclose(new_params[key], base[key], rtol=1e-5)) for key in PARAMS)
        skipped, _ = step(PARAMS, init(PARAMS), GRADS | {"bias": jnp.full(3, jnp.nan)})
        assert all(bool(jnp.array_equal(skipped[key], PARAMS[key])) for key in PARAMS)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", [name for name in CONTENDERS if name != FLOOR])
def test_steps_change_no_types(name, dtype):
    init, step = step_of(name)
    params = jax.tree.map(lambda param: jax.ShapeDtypeStruct(param.shape, dtype), PARAMS)
    before = jax.eval_shape(lambda params: (params, init(params)), params)
    assert jax.eval_shape(step, *before, params) == before


def needs(package, device):
    absent = not importlib.util.find_spec(package)
    return pytest.mark.skipif(absent, reason=f"the compiler for the {device} is not installed: {package}")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("device", "row", "norms", "checks"),
    [
        # One fusion for each of the 161 leaves, and one reduction with two results, or three, for each of the 54 that
        # have a trust ratio. One more for each of the other 107, to see whether it is finite.
        pytest.param("v5e", "optax_ext.lars", 54, 107, marks=needs("libtpu", "v5e")),
        pytest.param("v5e", "optax.adamw", 0, 161, marks=needs("libtpu", "v5e")),
        # Each sum of a large array takes two, and norms have four sums, as their squares may overflow. So do those of
        # the check, which are of the gradients before they are unscaled.
        pytest.param("h100", "optax_ext.lars", 5 * 54, 161 + 2 * 54, marks=needs("jax_cuda12_plugin", "h100")),
        pytest.param("h100", "optax.adamw", 0, 161 + 2 * 54, marks=needs("jax_cuda12_plugin", "h100")),
    ],
)
def test_fusions_on_other_devices(device, row, norms, checks, dtype):
    lines = run("benchmarks.ahead", device, "--dtype", dtype, "--only", row, f"loss-scaled {row}").splitlines()
    bare, scaled = (json.loads(line) for line in lines)
    some = 16  # of scalars
    assert 161 <= bare["fusions"] <= 161 + norms + some
    assert bare["fusions"] < scaled["fusions"] <= bare["fusions"] + checks + some
    assert scaled["temporary_bytes"] < 25_557_032 * jnp.dtype(dtype).itemsize
