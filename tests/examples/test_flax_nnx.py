"""Flax NNX: modules that change in place inside the loss, with `scale_loss` and batch normalization."""

from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from examples import flax_nnx


def snapshot(network: nnx.Module, kind: Any) -> Any:
    return jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(network, kind)))


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.random((32, 8, 8, 1), np.float32), random.integers(10, size=32)


def test_training_and_skipping(batch: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    traces = 0
    call = flax_nnx.Network.__call__

    def count_traces(self: Any, images: jax.Array) -> jax.Array:
        nonlocal traces
        traces += 1
        return call(self, images)

    monkeypatch.setattr(flax_nnx.Network, "__call__", count_traces)
    network = flax_nnx.Network(nnx.Rngs(0))
    optimizer = flax_nnx.make_optimizer(network)
    images, labels = batch

    losses = [float(flax_nnx.train_step(network, optimizer, images, labels)) for _ in range(19)]
    assert losses[-1] < 0.5 * losses[0]
    assert optimizer.opt_state.loss_scale[...] == 2.0**15

    params, batch_stats = snapshot(network, nnx.Param), snapshot(network, nnx.BatchStat)
    assert np.any(batch_stats["norm1"]["mean"] != 0)
    loss = flax_nnx.train_step(network, optimizer, np.full_like(images, np.nan), labels)
    assert np.isnan(loss)
    assert not optimizer.opt_state.grads_finite[...]
    assert optimizer.opt_state.skipped_steps[...] == 1
    assert optimizer.opt_state.loss_scale[...] == 2.0**14
    jax.tree.map(np.testing.assert_array_equal, snapshot(network, nnx.Param), params)
    jax.tree.map(np.testing.assert_array_equal, snapshot(network, nnx.BatchStat), batch_stats)

    assert flax_nnx.train_step(network, optimizer, images, labels) < losses[0]
    assert optimizer.opt_state.grads_finite[...]
    assert traces == 1
