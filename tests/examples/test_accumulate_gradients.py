"""Accumulated gradients take the steps of a large batch, and a NaN costs a micro-batch or a step."""

import re

import chex
import numpy as np
import pytest

from examples import accumulate_gradients
from examples.accumulate_gradients import BATCH_SIZE, PARTS, train

STEPS = 6


def test_both_ways_take_the_steps_of_the_large_batch(capsys: pytest.CaptureFixture[str]) -> None:
    accumulate_gradients.main()
    optimizer, hand = capsys.readouterr().out.splitlines()
    for line, unit in ((optimizer, "micro-batches"), (hand, "steps")):
        found = re.fullmatch(rf"\w+: ([\d.]+)% off the large batch; with a NaN, skipped {unit}: 1", line)
        assert found is not None
        assert float(found[1]) < 0.3  # the rounding of float16


@pytest.fixture(scope="module")
def batches() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    images = random.random((STEPS, BATCH_SIZE, 64), np.float32)
    images[2, BATCH_SIZE // PARTS] = np.nan  # the second micro-batch of the third step
    return images, random.integers(10, size=(STEPS, BATCH_SIZE))


def test_the_optimizer_takes_the_next_micro_batch_in_place_of_the_bad_one(
    batches: tuple[np.ndarray, np.ndarray],
) -> None:
    def without(array: np.ndarray) -> np.ndarray:
        parts = np.delete(array.reshape(STEPS * PARTS, -1, *array.shape[2:]), 2 * PARTS + 1, axis=0)
        return parts[: PARTS * (STEPS - 1)].reshape(STEPS - 1, *array.shape[1:])

    params, state = train("optimizer", *batches)
    assert (state.skipped_steps, state.inner_state.gradient_step, state.inner_state.mini_step) == (1, STEPS - 1, 3)
    expected, _ = train("optimizer", *map(without, batches))
    chex.assert_trees_all_close(params, expected, rtol=1e-3, atol=1e-5)


def test_by_hand_the_whole_step_is_skipped(batches: tuple[np.ndarray, np.ndarray]) -> None:
    params, state = train("hand", *batches)
    assert state.skipped_steps == 1
    expected, _ = train("hand", *(np.delete(array, 2, axis=0) for array in batches))
    chex.assert_trees_all_close(params, expected, rtol=1e-3, atol=1e-5)
