"""docs/misuse.md: each line of its code runs, and says what the table says."""

import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "misuse.md"
SETUP, CHECKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
HEADER = "| what you write |"
LINES = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith(HEADER)]
ROWS = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in LINES]
SAID = {"TypeError": TypeError, "ValueError": ValueError, "UserWarning": UserWarning, "nothing": None}


def code_of(cell):
    return re.match(r"`([^`]+)`", cell)[1]


def said_in(cell):
    return SAID[re.match(r"`?(\w+)", cell)[1]]


@pytest.fixture(scope="module")
def namespace():
    names = {}
    exec(compile(SETUP, PAGE.name, "exec"), names)
    return names


def run(code, namespace):
    exec(compile(code, PAGE.name, "exec"), dict(namespace))


def test_every_row_has_four_cells():
    assert len(ROWS) >= 20
    assert all(len(row) == 4 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: code_of(row[0]))
def test_what_is_said(row, namespace):
    said = said_in(row[2])
    if said is None:
        run(code_of(row[0]), namespace)
    elif issubclass(said, Warning):
        with pytest.warns(said):
            run(code_of(row[0]), namespace)
    else:
        with pytest.raises(said):
            run(code_of(row[0]), namespace)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: code_of(row[3]))
def test_what_to_write_instead_is_silent(row, namespace):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(code_of(row[3]), namespace)


@pytest.fixture(scope="module")
def checks(namespace):
    names = dict(namespace)
    exec(compile(CHECKS, PAGE.name, "exec"), names)
    return names


# How each misuse of which nothing is said fares in the checks: where they find it, what to compare it with.
FOUND_BY_THE_CHECKS = {
    "optax.chain(optax.clip_by_global_norm(1.0), scaling(optax.sgd(0.1)))": (
        "optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))"
    ),
    "optax.chain(scaling(optax.sgd(0.1)), optax.add_decayed_weights(-1e-5))": (
        "optax.chain(optax.sgd(0.1), optax.add_decayed_weights(-1e-5))"
    ),
    'optax.masked(scaling(optax.sgd(0.1)), {"kernel": True, "bias": False})': (
        'optax.masked(optax.sgd(0.1), {"kernel": True, "bias": False})'
    ),
}


@pytest.mark.parametrize("scaled", FOUND_BY_THE_CHECKS)
def test_the_checks_find_what_is_not_said(scaled, checks):
    (row,) = [row for row in ROWS if code_of(row[0]) == scaled]
    assert "check below finds it" in row[2]
    with pytest.raises(AssertionError, match="Not equal|Arrays are not equal|Mismatch"):
        run(f"check({scaled}, {FOUND_BY_THE_CHECKS[scaled]})", checks)


def test_the_checks_find_gradients_that_are_unscaled_twice(checks):
    twice = "optax.GradientTransformation(tx.init, lambda g, s, p: tx.update(unscale(g, s), s, p))"
    with pytest.raises(AssertionError, match="Not equal"):
        run(f"check({twice}, optax.sgd(0.1, momentum=0.9))", checks)


def test_each_claim_that_the_checks_find_something_is_tried():
    claims = {code_of(row[0]) for row in ROWS if "check below finds it" in row[2]}
    assert claims == {*FOUND_BY_THE_CHECKS, "tx.update(unscale(grads, state), state, params)"}


def test_a_frozen_group_is_not_checked(namespace):
    (row,) = [row for row in ROWS if "gradients that nothing reads are not checked" in row[3]]
    names = dict(namespace)
    exec(compile(f"tx = {code_of(row[3])}", PAGE.name, "exec"), names)
    params = names["params"]
    grads = {"kernel": 0 * params["kernel"] + 1, "bias": params["bias"] + float("inf")}
    _, state = names["jax"].jit(names["tx"].update)(grads, names["tx"].init(params), params)
    assert state.grads_finite


def test_batch_statistics_of_a_rejected_spike_are_not_kept(namespace):
    (row,) = [row for row in ROWS if "guarded.grads_finite" in row[0]]
    kept = []
    for cell in (row[0], row[3]):
        names = dict(namespace)
        exec(compile(code_of(cell), PAGE.name, "exec"), names)
        kept.append(names["batch_stats"]["mean"].tolist())
    assert kept == [[1.0, 1.0], [0.0, 0.0]]
    names = dict(namespace)
    in_a_scale = names["scaling"](names["guard"]).init(names["params"])
    with pytest.raises(KeyError, match="grads_finite"):
        names["optax"].tree.get(in_a_scale, "grads_finite")
    assert names["optax_ext"].metrics(in_a_scale)["consecutive_skips"] == 0


def test_the_ratios_of_stacked_layers_are_the_ones_that_are_told(namespace):
    (row,) = [row for row in ROWS if code_of(row[0]) == "optax_ext.scale_by_trust_ratio().init(stacked)"]
    ratios = []
    for cell in (row[0], row[3]):
        names = dict(namespace)
        exec(compile(f"tx = {code_of(cell).removesuffix('.init(stacked)')}", PAGE.name, "exec"), names)
        tx, stacked = names["tx"], names["stacked"]
        updates, _ = tx.update(names["jax"].tree.map(names["jnp"].ones_like, stacked), tx.init(stacked), stacked)
        ratios.append([round(float(ratio), 3) for ratio in updates["blocks"][:, 0]])
    assert ratios == [[58.026] * 3, [1, 10, 100]]
    assert "one trust ratio, 58 for gradients of ones, instead of 1, 10 and 100" in row[1]
