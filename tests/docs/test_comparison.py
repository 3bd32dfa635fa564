"""Every cell of the comparison's tables is what the software does, or did when it was recorded.

A test names the cells that it stands for by `says`, and the last one that none was forgotten.
"""

import functools
import importlib.metadata
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.dynamic_scale import DynamicScale
from jax.sharding import PartitionSpec

import optax_ext
from optax_ext import config
from tests.docs.foreign import RECORDED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "comparison.md").read_text()
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text()
NAN = jnp.float32(jnp.nan)
RATE = 0.1
OURS, IF_FINITE, FLAX, JMP, MPX = "`optax_ext`", "`apply_if_finite`", "`DynamicScale`", "jmp", "mpx"
TORCH, KERAS, GARDEN = "torch", "Keras", "Model Garden"
OUR_LARS, OPTAX_LARS, OUR_RECIPES = "`optax_ext.lars`", "`optax.lars`", "`optax_ext.config`"


def tables() -> dict[tuple[str, str, str], str]:
    """Return the cells that say something, by heading, row and column."""
    cells = {}
    for section in PAGE.split("\n## ")[1:]:
        heading, lines = section.splitlines()[0], [line for line in section.splitlines() if line.startswith("|")]
        if lines:
            head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
            assert {len(row) for row in rows} == {len(head)}, heading
            cells |= {(heading, row[0], name): cell for row in rows for name, cell in zip(head, row, strict=True)}
    return {key: cell for key, cell in cells.items() if cell and key[1] != cell}


CELLS = tables()
CLAIMED: set[tuple[str, str, str]] = set()


def says(row: str, heading: str = "Skipping and loss scaling", **cells: str) -> Callable[[Any], Any]:
    """Name the cells of a row that a test stands for; the test fails if the page says something else."""
    keys = {(heading, row, COLUMNS[column]): text for column, text in cells.items()}
    CLAIMED.update(keys)

    def wrap(test: Any) -> Any:
        @functools.wraps(test)
        def checked(*args: Any, **kwargs: Any) -> None:
            assert {key: CELLS.get(key) for key in keys} == keys
            test(*args, **kwargs)

        return checked

    return wrap


COLUMNS = {
    "ours": OURS, "if_finite": IF_FINITE, "flax": FLAX, "jmp": JMP, "mpx": MPX, "torch": TORCH, "keras": KERAS,
    "garden": GARDEN, "our_lars": OUR_LARS, "optax_lars": OPTAX_LARS, "recipes": OUR_RECIPES,
}  # fmt: skip


def recorded(column: str) -> dict[str, str]:
    """Return what a program on the page printed, by what stands before the colon."""
    package = {TORCH: "torch", KERAS: "keras", GARDEN: "official"}[column]
    runs = json.loads((RECORDED / "comparison.json").read_text())
    (run,) = [run for run in runs if package in run["packages"]]
    return dict(line.split(": ", 1) for line in run["printed"].splitlines())


# ---------------------------------------------------------------------------------------------------------
# A step in each of the JAX packages, of SGD on a loss whose slope is given.


def loss_fn(params, slope):
    return jnp.sum(params * slope)


def ours(tx=None, **options):
    tx = optax_ext.dynamic_loss_scaling(tx or optax.sgd(RATE), **options)

    def step(params, state, slope):
        _, grads = optax_ext.value_and_grad(loss_fn, state)(params, slope)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step, tx.init


def if_finite(tx=None):
    tx = optax.apply_if_finite(tx or optax.sgd(RATE), max_consecutive_errors=5)

    def step(params, state, slope):
        updates, state = tx.update(jax.grad(loss_fn)(params, slope), state, params)
        return optax.apply_updates(params, updates), state

    return step, tx.init


def flax(tx=None, select=jnp.where, axis_name=None):
    tx = tx or optax.sgd(RATE)

    def step(params, state, slope):
        scale, opt_state = state
        scale, is_finite, _, grads = scale.value_and_grad(loss_fn, axis_name=axis_name)(params, slope)
        updates, new_state = tx.update(grads, opt_state, params)
        new = optax.apply_updates(params, updates), new_state
        params, opt_state = jax.tree.map(functools.partial(select, is_finite), new, (params, opt_state))
        return params, (scale, opt_state)

    return step, lambda params: (DynamicScale(scale=jnp.float32(2.0**15)), tx.init(params))


def jmp_loop(tx=None, select=None):
    jmp = pytest.importorskip("jmp", reason="jmp is in the extra benchmark")
    tx, select = tx or optax.sgd(RATE), select or jmp.select_tree

    def step(params, state, slope):
        scale, opt_state = state
        grads = jax.grad(lambda params: scale.scale(loss_fn(params, slope)))(params)
        grads = scale.unscale(grads)
        is_finite = jmp.all_finite(grads)
        updates, new_state = tx.update(grads, opt_state, params)
        new = select(is_finite, (optax.apply_updates(params, updates), new_state), (params, opt_state))
        return new[0], (scale.adjust(is_finite), new[1])

    return step, lambda params: (jmp.DynamicLossScale(jnp.float32(2.0**15)), tx.init(params))


def mpx_loop(tx=None):
    mpx = pytest.importorskip("mpx", reason="mpx is in the extra benchmark")
    tx = tx or optax.sgd(RATE)

    def step(params, state, slope):
        scale, opt_state = state
        _, scale, is_finite, grads = mpx.filter_value_and_grad(loss_fn, scale)(params, slope)
        params, opt_state = mpx.optimizer_update(params, tx, opt_state, grads, is_finite)
        return params, (scale, opt_state)

    def init(params):
        scale = mpx.DynamicLossScaling(jnp.float32(2.0**15), min_loss_scaling=jnp.float32(1))
        return scale, tx.init(params)

    return step, init


LOOPS = {"ours": ours, "if_finite": if_finite, "flax": flax, "jmp": jmp_loop, "mpx": mpx_loop}
JITS = dict.fromkeys(LOOPS, jax.jit) | {"mpx": eqx.filter_jit}
MADE = pytest.mark.parametrize("name", LOOPS)


@functools.cache
def after_overflows(name: str) -> dict[str, Any]:
    """Return the parameters after 5, 10 and 200 overflows in a row, the state then, and what a finite step makes."""
    step, init = LOOPS[name]()
    step, params = JITS[name](step), jnp.ones(2)
    state, seen = init(params), {}
    for count in range(1, 201):
        params, state = step(params, state, NAN)
        seen[count] = params
    seen["state"] = state
    seen["next"], seen["next state"] = step(params, state, jnp.float32(0.5))
    return seen


# ---------------------------------------------------------------------------------------------------------
# Skipping and loss scaling


@says(
    "a non-finite gradient is applied",
    ours="never",
    if_finite="after `max_consecutive_errors`",
    flax="unless the loop selects",
    jmp="unless the loop selects",
    mpx="never",
)
@MADE
def test_non_finite_updates(name):
    seen = after_overflows(name)
    assert seen[5].tolist() == [1.0, 1.0]
    assert bool(jnp.isfinite(seen[10]).all()) == (name != "if_finite")


@pytest.mark.parametrize("make", [flax, jmp_loop])
def test_non_finite_updates_where_the_loop_forgets_to_select(make):
    step, init = make(select=lambda is_finite, new, old: new)
    assert jnp.isnan(step(jnp.ones(2), init(jnp.ones(2)), NAN)[0]).all()


def test_ours_never_applies_with_a_fixed_scale_either():
    tx = optax_ext.fixed_loss_scaling(optax.sgd(RATE), 128.0)
    assert tx.update(jnp.full(2, NAN), tx.init(jnp.ones(2)), jnp.ones(2))[0].tolist() == [0.0, 0.0]


@says(
    "a non-finite gradient is applied",
    torch="after 165 overflows in a row",
    keras="after 165 overflows in a row",
    garden="with a fixed scale",
)
def test_non_finite_updates_elsewhere():
    for column in (TORCH, KERAS):
        assert recorded(column)["200 overflows"] == "scale 0.0 parameters [1.0, 1.0]"
        assert recorded(column)["and a finite gradient"] == "parameters [nan, nan]"
    scales = np.full(166, 2, np.float32)
    scales[0] = 2.0**15
    assert np.flatnonzero(np.divide.accumulate(scales) == 0).tolist() == [165]
    for column in (KERAS, GARDEN):
        assert recorded(column)["a fixed scale and a NaN"] == "parameters [nan, nan]"


@says(
    "calls in a step",
    ours="`value_and_grad`",
    if_finite="none",
    flax="`value_and_grad`, two selections",
    jmp="`scale`, `unscale`, `adjust`, `select_tree`",
    mpx="`filter_value_and_grad`, `optimizer_update`",
    torch="`scale`, `step`, `update`",
    keras="`scale_loss`, none in `fit`",
    garden="`get_scaled_loss`, `get_unscaled_gradients`",
)
def test_calls_in_a_step():
    programs = PAGE[PAGE.index("## The programs") :]
    named = {"ours": ours, "flax": flax, "jmp": jmp_loop, "mpx": mpx_loop}
    sources = {COLUMNS[name]: inspect.getsource(loop) for name, loop in named.items()}
    sources |= dict.fromkeys((TORCH, KERAS, GARDEN), programs)
    for column, source in sources.items():
        for call in re.findall(r"`(\w+)`", CELLS["Skipping and loss scaling", "calls in a step", column]):
            assert re.search(rf"\b{call}\b", source), (column, call)


@says(
    "where the scale is",
    ours="optimizer's state",
    if_finite="no scale",
    flax="its own object",
    jmp="its own object",
    mpx="its own object",
    torch="its own object",
    keras="optimizer's variables",
    garden="optimizer's checkpoint",
)
def test_where_the_scale_is():
    tx = optax.chain(optax_ext.dynamic_loss_scaling(optax.sgd(RATE)), optax.identity())
    assert optax.tree.get(tx.init(jnp.ones(2)), "loss_scale") == 2.0**15
    assert "loss_scale" not in optax.ApplyIfFiniteState._fields
    assert recorded(TORCH)["state_dict"].startswith("scale ")
    assert "dynamic_scale" in recorded(KERAS)["variables"].split()
    assert recorded(GARDEN)["in the checkpoint"].startswith("optimizer/loss_scale/")


SCALES = {
    "ours": lambda state: state.loss_scale,
    "flax": lambda state: state[0].scale,
    "jmp": lambda state: state[0].loss_scale,
    "mpx": lambda state: state[0].loss_scaling,
}


@says(
    "after 200 overflows in a row",
    ours="scale 1, trains on",
    if_finite="NaN",
    flax="scale 1.2e-38, small gradients are 0",
    jmp="scale 1, trains on",
    mpx="scale 1, trains on",
)
@MADE
def test_many_overflows_in_a_row(name):
    seen = after_overflows(name)
    if name == "if_finite":
        assert jnp.isnan(seen[200]).all()
        return
    smallest = float(jnp.finfo(jnp.float32).tiny) if name == "flax" else 1.0
    assert float(SCALES[name](seen["state"])) == smallest
    np.testing.assert_allclose(seen["next"], 1.0 if name == "flax" else 0.95, rtol=1e-6)


@says(
    "after 200 overflows in a row",
    torch="scale 0, then NaN",
    keras="scale 0, then NaN",
    garden="scale 1, trains on",
)
def test_many_overflows_elsewhere():
    for column in (TORCH, KERAS):
        assert recorded(column)["200 overflows"].startswith("scale 0.0 ")
        assert recorded(column)["and a finite gradient"] == "parameters [nan, nan]"
    assert recorded(GARDEN)["200 overflows"].startswith("scale 1.0 ")
    assert recorded(GARDEN)["and a finite gradient"].startswith("parameters [0.899")


def arguments(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


@says(
    "limits of the scale to set",
    ours="smallest, largest",
    flax="smallest",
    jmp="smallest, lost in `jit`",
    mpx="smallest; at most 65504",
    torch="none",
    keras="none",
    garden="none",
)
def test_limits():
    assert {"min_scale", "max_scale"} <= arguments(optax_ext.dynamic_loss_scaling)
    assert {name for name in arguments(DynamicScale) if "min" in name or "max" in name} == {"minimum_scale"}
    for column in (TORCH, KERAS, GARDEN):
        assert not re.search(r"\w*(min|max)\w*", recorded(column)["arguments"])


def test_the_smallest_scale_of_jmp_is_lost_in_jit():
    jmp = pytest.importorskip("jmp", reason="jmp is in the extra benchmark")
    scale = jmp.DynamicLossScale(jnp.float32(8), min_loss_scale=jnp.float32(4))
    assert scale.min_loss_scale == 4
    assert jax.jit(lambda scale: scale)(scale).min_loss_scale == 1


def test_mpx_holds_the_scale_in_float16_and_divides_by_the_new_one():
    mpx = pytest.importorskip("mpx", reason="mpx is in the extra benchmark")
    large = mpx.DynamicLossScaling(jnp.float32(2.0**20), min_loss_scaling=jnp.float32(1))
    assert large.adjust(jnp.bool_(True)).loss_scaling == 65504
    growing = mpx.DynamicLossScaling(jnp.float32(4), min_loss_scaling=jnp.float32(1), period=1)
    grads = mpx.filter_value_and_grad(loss_fn, growing)(jnp.ones(2), jnp.float32(3))[-1]
    assert grads.tolist() == [1.5, 1.5]


@says(
    "overflows before the scale shrinks",
    ours="1, or `hysteresis`",
    flax="1",
    jmp="1",
    mpx="1",
    torch="1",
    keras="1",
    garden="1",
)
@pytest.mark.parametrize("name", SCALES)
def test_overflows_before_the_scale_shrinks(name):
    step, init = LOOPS[name]()
    assert SCALES[name](JITS[name](step)(jnp.ones(2), init(jnp.ones(2)), NAN)[1]) == 2.0**14
    assert "hysteresis" in arguments(optax_ext.dynamic_loss_scaling)
    for column in (TORCH, KERAS, GARDEN):
        assert recorded(column)["1 overflow"].startswith("scale 16384.0 ")


@says(
    "counts of skips",
    ours="all, in a row",
    if_finite="all, in a row",
    flax="none",
    jmp="none",
    mpx="none",
    torch="none",
    keras="none",
    garden="none",
)
def test_counts_of_skips():
    state = after_overflows("ours")["state"]
    assert (int(state.skipped_steps), int(state.consecutive_skips)) == (200, 200)
    state = after_overflows("if_finite")["state"]
    assert (int(state.total_notfinite), int(state.notfinite_count)) == (200, 200)
    assert {"scale", "fin_steps"} == {f.name for f in DynamicScale.__dataclass_fields__.values() if _is_data(f)}
    assert recorded(TORCH)["state_dict"].split()[-1] == "_growth_tracker"
    names = set(recorded(KERAS)["variables"].split())
    assert names == {"iteration", "learning_rate", "step_counter", "dynamic_scale"}


def _is_data(field: Any) -> bool:
    return field.metadata.get("pytree_node", True)


@says(
    "schedule in a skipped step",
    ours="waits, or goes on",
    if_finite="waits",
    flax="waits if selected",
    jmp="waits if selected",
    mpx="waits",
)
@MADE
def test_schedules(name):
    scheduled = optax.sgd(optax.linear_schedule(1.0, 0.0, 10))
    step, init = LOOPS[name](scheduled)
    state = JITS[name](step)(jnp.ones(2), init(jnp.ones(2)), NAN)[1]
    assert [int(count) for _, count in optax.tree.get_all_with_path(state, "count")] == [0]
    if name == "ours":
        step, init = ours(scheduled, count_skipped_steps=True)
        state = jax.jit(step)(jnp.ones(2), init(jnp.ones(2)), NAN)[1]
        assert [int(count) for _, count in optax.tree.get_all_with_path(state, "count")] == [1]


@says("schedule in a skipped step", torch="goes on", keras="waits", garden="goes on")
def test_schedules_elsewhere():
    assert recorded(TORCH)["1 overflow"].endswith("steps of the schedule 1")
    assert recorded(KERAS)["1 overflow"].endswith("iterations 0")
    assert recorded(GARDEN)["1 overflow"].endswith("iterations 1")


@says(
    "overflow on one device",
    ours="all skip",
    if_finite="only that one skips",
    flax="all skip",
    jmp="as the loop reduces",
    mpx="as the loop reduces",
)
@pytest.mark.parametrize(
    ("make", "options", "moves"),
    [
        (ours, {"axis_name": "data"}, [False, False]),
        (if_finite, {}, [True, False]),
        (flax, {"axis_name": "data"}, [False, False]),
        (jmp_loop, {}, [True, False]),
        (mpx_loop, {}, [True, False]),
    ],
)
def test_an_overflow_on_one_device(make, options, moves):
    step, init = make(**options)
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=(jax.sharding.AxisType.Auto,))
    split = PartitionSpec("data")

    def run(params, slope):
        return step(params[0], init(params[0]), slope[0])[0][None]

    run = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(split, split), out_specs=split, check_vma=False))
    params = run(jnp.ones((2, 2)), jnp.array([1.0, jnp.inf]))
    assert (params != 1).any(axis=1).tolist() == moves


@says("overflow on one device", torch="all skip", keras="the first device decides", garden="all skip")
def test_an_overflow_on_one_device_elsewhere():
    assert recorded(TORCH)["an overflow on the other process"] == "moved False scale 2.0"
    first, second = "an overflow on the first of two devices", "an overflow on the second of two devices"
    assert (recorded(KERAS)[first], recorded(KERAS)[second]) == ("parameters [[2.0]]", "parameters [[nan]]")
    assert (recorded(GARDEN)[first], recorded(GARDEN)[second]) == ("parameters [[2.0]]", "parameters [[2.0]]")


def unscale_of(name: str, grads: jax.Array) -> jax.Array:
    if name == "jmp":
        jmp = pytest.importorskip("jmp", reason="jmp is in the extra benchmark")
        return jmp.DynamicLossScale(jnp.float32(2.0**15)).unscale(grads)
    if name == "mpx":
        mpx = pytest.importorskip("mpx", reason="mpx is in the extra benchmark")
        return mpx.DynamicLossScaling(jnp.float32(2.0**15), jnp.float32(1)).unscale(grads)

    @jax.custom_vjp
    def given(params):
        return jnp.float32(0)

    given.defvjp(lambda params: (jnp.float32(0), None), lambda _, cotangent: (grads,))
    return DynamicScale(scale=jnp.float32(2.0**15)).value_and_grad(given)(jnp.ones(2, jnp.float16))[-1]


@says(
    "float16 parameters, gradient of 1e-8",
    ours="kept",
    flax="kept, state changes dtype",
    jmp="kept, state changes dtype",
    mpx="kept, state changes dtype",
)
@pytest.mark.parametrize("name", SCALES)
def test_small_gradients_of_float16_parameters(name):
    params, grads = jnp.ones(2, jnp.float16), jnp.full(2, 1e-8 * 2**15, jnp.float16)
    tx = optax.adam(0.1, eps=1e-12)
    if name == "ours":
        tx = optax_ext.dynamic_loss_scaling(tx)
    else:
        grads = unscale_of(name, grads)
    state = tx.init(params)
    updates, new_state = tx.update(grads, state, params)
    np.testing.assert_allclose(updates, -0.1, rtol=1e-2)
    dtypes = [[leaf.dtype for leaf in jax.tree.leaves(tree)] for tree in (state, new_state)]
    assert (dtypes[0] != dtypes[1]) == (name != "ours")


@says("float16 parameters, gradient of 1e-8", torch="refused", keras="lost", garden="lost")
def test_small_gradients_of_float16_parameters_elsewhere():
    assert recorded(TORCH)["float16 parameters"] == "Attempting to unscale FP16 gradients."
    assert recorded(KERAS)["a gradient of 1e-8 for float16 parameters"] == "[1.0, 1.0]"
    assert recorded(GARDEN)["a gradient of 1e-8 for float16 parameters, unscaled"] == "[0.0, 0.0]"


@says(
    "casts models to float16",
    ours="no",
    if_finite="no",
    flax="no",
    jmp="`Policy`",
    mpx="`cast_to_half_precision`",
    torch="`autocast`",
    keras="dtype policies",
    garden="dtype policies",
)
def test_casting_models():
    assert not [name for name in optax_ext.__all__ if "cast" in name or "policy" in name]
    assert "torch.autocast" in (ROOT / "docs" / "from_torch.md").read_text()
    assert '"mixed_float16"' in (ROOT / "docs" / "from_tensorflow.md").read_text()
    assert recorded(GARDEN)["policy"] == "mixed_float16"


@pytest.mark.parametrize(("package", "name"), [("jmp", "Policy"), ("mpx", "cast_to_half_precision")])
def test_casting_models_with(package, name):
    module = pytest.importorskip(package, reason=f"{package} is in the extra benchmark")
    assert hasattr(module, name)


ROWS_OF = {
    OURS: "loss-scaled optax.adamw",
    IF_FINITE: "apply_if_finite(optax.adamw)",
    FLAX: "DynamicScale + optax.adamw",
    JMP: "jmp + optax.adamw",
    MPX: "mpx + optax.adamw",
    OUR_LARS: "optax_ext.lars",
    OPTAX_LARS: "optax.lars",
}


def result(column: str, section: str, table: str, heading: str) -> str:
    """Return a number of RESULTS.md, the ratio without what stands after it."""
    text = RESULTS[RESULTS.index(f"\n## {section}") :]
    lines = text[text.index(f"\n| {table} |") :].strip().splitlines()
    names = [cell.strip() for cell in lines[0].strip("|").split("|")]
    (row,) = [line for line in lines[1:60] if line.startswith(f"| {ROWS_OF[column]} |")][:1]
    return row.strip("|").split("|")[names.index(heading)].split()[0]


@says("time, two CPU cores", "What it costs", ours="1.19", if_finite="2.58", flax="4.85", jmp="3.76", mpx="3.20")
@says(
    "copies of the parameters kept, CPU",
    "What it costs",
    ours="0.00",
    if_finite="1.00",
    flax="3.00",
    jmp="2.00",
    mpx="1.38",
)
@says("seconds to compile, CPU", "What it costs", ours="3.7", if_finite="3.0", flax="12.4", jmp="29.4", mpx="12.8")
@says("time, H100", "What it costs", ours="1.84", if_finite="1.67", flax="1.71", jmp="1.69", mpx="1.68")
@says("time, H100, bfloat16", "What it costs", ours="3.16", if_finite="1.83")
@says("copies of the parameters kept, CPU", "LARS", our_lars="0.00", optax_lars="2.99")
@says("time, two CPU cores", "LARS", our_lars="1.22", optax_lars="4.86")
@says("time, H100", "LARS", our_lars="2.11", optax_lars="2.66")
def test_times():
    places = {
        ("What it costs", "time, two CPU cores"): ("CPU", "ResNet-50, float32: adamw", "ratio"),
        ("What it costs", "copies of the parameters kept, CPU"): ("CPU", "ResNet-50, float32: adamw", "temporaries"),
        ("What it costs", "seconds to compile, CPU"): ("CPU", "ResNet-50, float32: adamw", "compile s"),
        ("What it costs", "time, H100"): ("H100", "ResNet-50, float32", "ratio"),
        ("What it costs", "time, H100, bfloat16"): ("H100", "ResNet-50, bfloat16", "ratio"),
        ("LARS", "copies of the parameters kept, CPU"): ("CPU", "ResNet-50, float32: lars", "temporaries"),
        ("LARS", "time, two CPU cores"): ("CPU", "ResNet-50, float32: lars", "ratio"),
        ("LARS", "time, H100"): ("H100", "ResNet-50, float32", "ratio"),
    }
    for (heading, row, column), cell in CELLS.items():
        if (heading, row) in places:
            assert cell == result(column, *places[heading, row]), (row, column)


@says(
    "maturity",
    ours="new",
    if_finite="part of Optax",
    flax="part of Flax",
    jmp="0.0.4",
    mpx="0.1.8",
    torch="part of PyTorch",
    keras="part of Keras",
    garden="part of tf_keras",
)
@pytest.mark.parametrize(("name", "version"), [("jmp", "0.0.4"), ("mixed-precision-for-jax", "0.1.8")])
def test_age(name, version):
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is in the extra benchmark")
    assert found == version


# ---------------------------------------------------------------------------------------------------------
# LARS


@says("forms", "LARS", our_lars="classic, popular, PyTorch's", optax_lars="classic", garden="classic, popular")
@says("norms below the line", "LARS", our_lars="of the sum, or apart", optax_lars="of the sum", garden="of the sum")
@says("limits of the trust ratio", "LARS", our_lars="`min_ratio`, `max_ratio`", optax_lars="none", garden="none")
def test_forms_of_lars():
    forms = {"classic_momentum", "learning_rate_in_momentum", "separate_norms", "min_ratio", "max_ratio"}
    assert forms <= arguments(optax_ext.lars)
    assert not forms & arguments(optax.lars)
    assert forms & set(recorded(GARDEN)["arguments of LARS"].split()) == {"classic_momentum"}


@says(
    "three layers in one array",
    "LARS",
    our_lars="a ratio for each, with `stacked_axes`",
    optax_lars="one ratio",
    garden="one ratio",
)
def test_stacked_layers():
    params = jnp.array([[1.0], [10.0], [100.0]]) * jnp.ones((3, 4))

    def moves(tx):
        return np.abs(tx.update(jnp.ones((3, 4)), tx.init(params), params)[0])[:, 0] / RATE

    np.testing.assert_allclose(moves(optax_ext.lars(RATE, stacked_axes=0)), [1e-3, 1e-2, 1e-1], rtol=1e-5)
    np.testing.assert_allclose(moves(optax.lars(RATE)), 0.05803, rtol=1e-3)
    assert recorded(GARDEN)["LARS on layers of 1, 10 and 100"] == "steps 0.0058 0.0058 0.0058"


@says("a float16 gradient of 300", "LARS", our_lars="moves", optax_lars="does not move", garden="does not move")
def test_large_gradients_in_float16():
    params, grads = jnp.ones(100, jnp.float16), jnp.full(100, 300.0, jnp.float16)
    moves = {
        make: make(10.0).update(grads, make(10.0).init(params), params)[0] for make in (optax_ext.lars, optax.lars)
    }
    np.testing.assert_allclose(moves[optax_ext.lars], -0.01, rtol=1e-2)
    assert not moves[optax.lars].any()
    (line,) = [value for name, value in recorded(GARDEN).items() if "float16 gradients of 300" in name]
    assert line == "parameters 1.0"


@says(
    "a pattern that matches nothing",
    "LARS",
    our_lars="error",
    optax_lars="has no patterns",
    garden="silent",
)
def test_a_pattern_that_matches_nothing():
    params = {"bias": jnp.ones(2)}
    with pytest.raises(ValueError, match="bais"):
        optax_ext.lars(RATE, weight_decay_mask=optax_ext.path_mask(exclude=["bais"])).init(params)
    assert [name for name in recorded(GARDEN) if name.startswith("LARS with a pattern that matches nothing")]


@says("TensorFlow's numbers", "LARS", our_lars="yes", garden="yes")
def test_the_numbers_of_tensorflow_have_a_test():
    assert (ROOT / "tests" / "parity" / "test_lars.py").exists()


# ---------------------------------------------------------------------------------------------------------
# Recipes


@says("a misspelled field", "Recipes", recipes="error", keras="error", garden="error")
@says("two misspelled fields", "Recipes", recipes="both reported", garden="one reported")
@says("`decay_steps: -5`", "Recipes", recipes="error", keras="error", garden="accepted")
def test_mistakes_in_recipes():
    with pytest.raises(config.ConfigError) as caught:
        config.from_dict({"type": "lars", "learning_rate": 0.1, "momentun": 0.9, "eetta": 0.1})
    assert "momentun: " in str(caught.value)
    assert "eetta: " in str(caught.value)
    with pytest.raises(config.ConfigError, match="decay_steps: must be greater than 0, got -5"):
        config.from_dict({"type": "cosine_decay", "initial_learning_rate": 0.1, "decay_steps": -5})
    assert recorded(KERAS)["a misspelled field"] == recorded(KERAS)["decay_steps of -5"] == "ValueError"
    assert recorded(GARDEN)["two misspelled fields"] in {"momentun", "eetta"}
    assert recorded(GARDEN)["get_config"].endswith("decay_steps -5")


@says(
    "a schedule with an offset, saved and loaded",
    "Recipes",
    recipes="the same",
    keras="has none",
    garden="the offset is lost",
)
def test_an_offset():
    schedule = optax_ext.CosineDecay(0.1, decay_steps=10, offset=5)
    assert config.from_dict(config.to_dict(schedule)) == schedule
    assert "offset" not in recorded(GARDEN)["get_config"]
    assert recorded(KERAS)["arguments of CosineDecay"].split()[-3:] == ["name", "warmup_target", "warmup_steps"]


@says("epochs, percents and examples as units", "Recipes", recipes="yes", keras="no", garden="no")
def test_units():
    schedule = {"type": "cosine_decay", "initial_learning_rate": 0.1, "decay_steps": "5 epochs"}
    assert config.from_dict(schedule).decay_steps is not None
    assert recorded(KERAS)["decay_steps of '5 epochs'"] == "TypeError"
    assert recorded(GARDEN)["decay_steps of '5 epochs'"] == "UnimplementedError"


def test_every_cell_has_a_test():
    assert set(CELLS) == CLAIMED
