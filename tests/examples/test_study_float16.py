"""The study of float16: it runs, its shares are counted right, and the page says what was measured.

The quick run of the script compiles three programs and is slow: `pytest -m slow tests/examples/test_study_float16.py`.
2 passed the last time, on Python 3.11 with JAX 0.10.2.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from studies import float16, network, results
from studies.data import make_data

PAGE = Path(__file__).parents[2] / "docs" / "study_float16.md"
FOUND: Any = results.load(results.RESULTS / "float16.json")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("outputs") / "float16.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            float16, "QUICK", float16.Size(train=64, test=20, batch_size=16, epochs=2, seeds=2, growth_steps=4)
        )
        float16.main(["--quick", "--output", str(file)])
        patch.setattr(float16, "run_arm", None)
        float16.main(["--quick", "--output", str(file)])  # trains nothing again
    return json.loads(file.read_text())


@pytest.mark.slow
def test_the_scale_grows_and_a_scaled_run_learns_what_the_exact_one_does(quick: Any) -> None:
    exact, scaled = (quick["arms"][arm.name] for arm in (float16.ARMS[0], float16.ARMS[-1]))
    assert exact["last_loss"] == pytest.approx(scaled["last_loss"], rel=0.02)
    assert scaled["loss_scale"] == [[[0, 15], [3, 16], [7, 17]]] * 2
    assert scaled["skipped_steps"] == [0, 0]


@pytest.mark.slow
def test_smaller_factors_lose_more(quick: Any) -> None:
    for row in quick["underflow"]:
        assert row["layers"].keys() == set(float16.LAYERS)
    shares = [row["layers"]["conv0"]["outputs"]["zero"] for row in quick["underflow"] if row["epoch"] == 2]
    *without, scaled = shares
    assert without == sorted(without)
    assert without[0] < 0.1
    assert without[-1] > 0.9
    assert scaled < 0.01


def test_shares_are_counted_as_float16_rounds() -> None:
    data = make_data(20, 0, 0).train
    params = network.init_params(jax.random.key(0), float16.CHANNELS, float16.STRIDES)
    factor = 2.0**-12
    shares = jax.jit(float16.measure_underflow)(params, data, factor)["head"]["outputs"]

    logits = network.apply(params, data.signals, float16.STRIDES)
    grads = (
        np.abs(jax.grad(network.cross_entropy)(logits, data.labels)) * factor
    )  # of the logits, whose dtype is float32
    assert shares["zero"] == pytest.approx(np.mean(grads <= 2.0**-25), abs=0.02)  # of 200; float16 logits differ a bit
    assert shares["subnormal"] == pytest.approx(np.mean((grads > 2.0**-25) & (grads < 2.0**-14)), abs=0.02)
    assert np.mean(grads <= 2.0**-25) + np.mean(grads < 2.0**-14) > 0.5
    assert jnp.float16(2.0**-25) == 0
    assert jnp.float16(1.01 * 2.0**-25) > 0


def test_the_numbers_are_of_the_study_as_it_stands() -> None:
    assert float16.Size()._asdict() == FOUND["size"]
    assert list(FOUND["arms"]) == [arm.name for arm in float16.ARMS]
    for kept in FOUND["arms"].values():
        assert len(kept["test"]) == FOUND["size"]["seeds"]


def shares(terms: int, kind: str, share: str) -> list[float]:
    factor = FOUND["size"]["batch_size"] / terms
    (row,) = (row for row in FOUND["underflow"] if (row["epoch"], row["factor"]) == (FOUND["size"]["epochs"], factor))
    return [100 * layer[kind][share] for layer in row["layers"].values()]


def lost(**arm: Any) -> tuple[float, float]:
    exact, kept = (FOUND["arms"][named.name]["test"] for named in (float16.ARMS[0], float16.Arm(**arm)))
    mean, half_width = results.mean_and_interval(np.subtract(exact, kept))
    return 100 * mean, 100 * half_width


def test_the_page_says_what_was_measured() -> None:
    text = PAGE.read_text()
    assert float16.make_table(FOUND) in text
    assert float16.make_table_of_underflow(FOUND) in text
    size, machine = FOUND["size"], FOUND["machine"]
    params = network.init_params(jax.random.key(0), float16.CHANNELS, float16.STRIDES)
    steps = size["train"] // size["batch_size"]
    scaled = [kept for kept in FOUND["arms"].values() if "loss_scale" in kept and kept["arm"]["parts"] == 2**12]
    skipped = [skips for kept in scaled for skips in kept["skipped_steps"]]
    outputs = shares(2**16, "outputs", "zero")
    for said in (
        f"{sum(leaf.size for leaf in params.values()):,} parameters",
        f"{size['train']:,} for training,\n  {size['test']:,} for the test",
        f"{size['epochs']} epochs of {steps} steps, batches of {size['batch_size']}, {size['seeds']} seeds",
        f"grows after {size['growth_steps']} finite steps",
        f"{min(outputs):.0f} to {max(outputs):.0f} % of the gradients of outputs",
        f"costs {lost(compute='float16')[0]:.1f} points**",
        f"at most {max(shares(2**20, 'kernel', 'zero')):.1f} % of a kernel's",
        f"costs {lost(compute='bfloat16', params='bfloat16')[0]:.1f} points without master weights",
        f"the loss of {lost(compute='float16', params='float16', master=True)[0]:.1f} points",
        f"{min(skipped)} to {max(skipped)} of {size['epochs'] * steps} steps were skipped",
        f"Measured on {machine['date']}",
        machine["XLA_FLAGS"],
    ):
        assert said in text, said


def test_what_the_page_concludes_is_in_the_numbers() -> None:
    scaled = [kept["arm"] for kept in FOUND["arms"].values() if kept["arm"]["scaled"]]
    without_cost = [*scaled, {"compute": "bfloat16"}, {"compute": "bfloat16", "params": "bfloat16", "master": True}]
    without_cost += [{"compute": "float16", "parts": parts} for parts in (1, 2**8)]
    for arm in without_cost:
        mean, half_width = lost(**arm)
        assert abs(mean) < min(half_width, 0.45), arm
    for parts, exponents in ((2**12, {29, 30}), (2**20, {37, 39})):
        for kept in FOUND["arms"].values():
            if "loss_scale" in kept and kept["arm"]["parts"] == parts:
                assert {changes[-1][1] for changes in kept["loss_scale"]} <= exponents
    for arm in ({"parts": 2**16}, {"params": "float16"}):
        assert FOUND["arms"][float16.Arm("float16", **arm).name]["last_loss"] == [None] * FOUND["size"]["seeds"]
    assert shares(2**28, "outputs", "zero") == shares(2**28, "kernel", "zero") == [100] * 6
