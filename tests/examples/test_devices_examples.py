"""Data parallel and FSDP: eight devices train as one does, and all skip a step when one of them meets a NaN."""

import contextlib
import functools
import io
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from examples import data_parallel, fsdp

STEPS, NAN_STEP = 12, 7


class Run(NamedTuple):
    """A training: its last state, all states before and after steps as NumPy arrays, losses, and what was printed."""

    state: Any
    history: list[Any]
    losses: list[float]
    printed: str


class Runs(NamedTuple):
    one: Run
    eight: Run


def run(example: ModuleType, patch: pytest.MonkeyPatch, devices: int) -> Run:
    """Run the example as it stands on the first devices, and look at the state around each step."""
    history: list[Any] = []
    results: list[Any] = []
    make_step, train = getattr(example, "make_train_step", None), example.train

    def watch(step: Any) -> Any:
        def watched(state: Any, *batch: Any) -> Any:
            assert len({str(shard.index) for shard in batch[0].addressable_shards}) == devices  # each has its part
            history.append(jax.tree.map(np.array, state))
            return step(state, *batch)

        return watched

    def keep(devices: Any) -> Any:
        results.append(train(devices))
        return results[-1]

    with patch.context() as local, contextlib.redirect_stdout(io.StringIO()) as out:
        if make_step is None:
            local.setattr(example, "train_step", watch(example.train_step))
        else:
            local.setattr(example, "make_train_step", lambda *where: watch(make_step(*where)))
        local.setattr(example, "train", keep)
        local.setattr(jax, "devices", functools.partial(list, jax.devices()[:devices]))
        example.main()
    ((state, losses),) = results
    history.append(jax.tree.map(np.array, state))
    return Run(state, history, losses, out.getvalue())


@pytest.fixture(scope="module", params=[data_parallel, fsdp], ids=["data_parallel", "fsdp"])
def runs(request: pytest.FixtureRequest) -> Runs:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request.param, "STEPS", STEPS)
        patch.setattr(request.param, "NAN_STEP", NAN_STEP)
        patch.setattr(request.param, "COMPUTE_DTYPE", jnp.float32)  # in float16, the order of sums shows in all digits
        return Runs(*(run(request.param, patch, devices) for devices in (1, 8)))


def test_eight_devices_give_the_numbers_of_one(runs: Runs) -> None:
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
    close(runs.eight.losses, runs.one.losses)
    jax.tree.map(close, runs.eight.history, runs.one.history)
    assert runs.one.losses[-1] < 0.8 * runs.one.losses[0]


def test_a_nan_on_one_device_skips_the_step_on_all(runs: Runs) -> None:
    assert [step for step, loss in enumerate(runs.eight.losses) if np.isnan(loss)] == [NAN_STEP]
    before, after = runs.eight.history[NAN_STEP : NAN_STEP + 2]
    kept = lambda state: (state.params, state.opt_state.inner_state)  # noqa: E731
    jax.tree.map(np.testing.assert_array_equal, kept(after), kept(before))
    assert (before.opt_state.loss_scale, after.opt_state.loss_scale) == (2.0**15, 2.0**14)
    assert [int(shard.data) for shard in runs.eight.state.opt_state.skipped_steps.addressable_shards] == [1] * 8
    for leaf in jax.tree.leaves(runs.eight.state):
        parts: dict[str, Any] = {}
        for shard in leaf.addressable_shards:  # devices with the same part hold the same numbers
            np.testing.assert_array_equal(shard.data, parts.setdefault(str(shard.index), shard.data))


def test_where_the_parts_lie(runs: Runs, request: pytest.FixtureRequest) -> None:
    state = runs.eight.state
    trace = optax.tree.get(state.opt_state, "trace", None)
    if trace is None:  # data parallel, with Adam
        assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
        assert runs.eight.printed.endswith(
            "skipped steps, as each of 8 devices counted them: [1, 1, 1, 1, 1, 1, 1, 1]\n"
        )
        return
    for tree in (state.params, trace):
        for name, spec in {"hidden": P(None, "data"), "head": P("data")}.items():
            assert tree[name].sharding.is_equivalent_to(jax.sharding.NamedSharding(tree[name].sharding.mesh, spec), 2)
            assert {shard.data.size for shard in tree[name].addressable_shards} == {tree[name].size // 8}
        assert tree["head_bias"].sharding.is_fully_replicated
    assert "momentum hidden: (64, 1024), of which each device holds (64, 128)" in runs.eight.printed
