"""An epoch in one compiled call: each skips the one batch with the broken image, and hands its metrics back stacked."""

import re

import chex
import jax
import numpy as np
import pytest

from examples import scan_steps


def test_each_epoch_skips_the_batch_with_the_broken_image(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given, train_epoch = [], scan_steps.train_epoch

    def spy(state, *args):
        given.append(state)
        return train_epoch(state, *args)

    monkeypatch.setattr(scan_steps, "train_epoch", spy)
    state, history = scan_steps.main()
    line = re.match(r"accuracy ([\d.]+) after 10 calls; 10 of 300 steps skipped", capsys.readouterr().out)
    assert line is not None
    assert float(line[1]) > 0.94
    assert len(given) == scan_steps.EPOCHS
    assert train_epoch._cache_size() == 1
    assert all(leaf.is_deleted() for old in given for leaf in jax.tree.leaves(old))  # donated
    chex.assert_tree_all_finite(state)

    bad = np.isnan(history["loss"]).reshape(scan_steps.EPOCHS, -1)
    np.testing.assert_array_equal(bad.sum(axis=1), 1)
    np.testing.assert_array_equal(history["skipped_steps"], bad.cumsum())
    np.testing.assert_array_equal(history["grads_finite"], ~bad.ravel())
    np.testing.assert_array_equal(history["loss_scale"], 2.0**15)
    rates, skipped = history["learning_rate"], bad.ravel()[:-1]
    np.testing.assert_array_equal(rates[1:] == rates[:-1], skipped)  # a skipped step does not count
