"""The example of each framework learns, and a bad batch leaves all but the loss scale as it was."""

import contextlib
import importlib
import io
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import chex
import equinox as eqx
import jax
import numpy as np
import pytest
from flax import nnx
from sklearn.datasets import load_digits

import optax_ext

Step = Callable[[Any, Any, Any, Any], tuple[Any, Any]]  # of the example, its state and a batch: the state and the loss
Parts = Callable[[Any], tuple[Any, Any, Any]]  # parameters, batch statistics and optimizer state


def step_flax_nnx(example: Any, state: Any, images: Any, labels: Any) -> Any:
    return state, example.train_step(*state, images, labels)


def step_equinox(example: Any, state: Any, images: Any, labels: Any) -> Any:
    *state, loss = example.train_step((images, labels), *state)
    return state, loss


def step_functions(example: Any, state: Any, images: Any, labels: Any) -> Any:
    *state, loss = example.train_step(*state, images, labels)
    return state, loss


def parts_of_flax_nnx(state: Any) -> Any:
    network, optimizer = state
    return nnx.state(network, nnx.Param), nnx.state(network, nnx.BatchStat), optimizer.opt_state


FRAMEWORKS: dict[str, tuple[Step, Parts]] = {
    "equinox_mlp": (step_equinox, lambda state: (eqx.filter(state[0], eqx.is_inexact_array), *state[1:])),
    "flax_linen": (
        lambda example, state, *batch: example.train_step(state, *batch),
        lambda state: (state.params, state.batch_stats, state.opt_state),
    ),
    "flax_nnx": (step_flax_nnx, parts_of_flax_nnx),
    "haiku_mlp": (step_functions, lambda state: (state[0], (), state[1])),
    "plain_jax": (step_functions, lambda state: (state[0], (), state[1])),
}


def snapshot(tree: Any) -> list[np.ndarray]:
    return [np.array(leaf) for leaf in jax.tree.leaves(tree)]  # copies, which outlive donation


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_it_learns_and_a_bad_batch_changes_nothing_but_the_loss_scale(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    example, traces = importlib.import_module(f"examples.{name}"), []
    value_and_grad = optax_ext.value_and_grad
    spy = SimpleNamespace(**{key: getattr(optax_ext, key) for key in optax_ext.__all__})
    spy.value_and_grad = lambda *args, **kwargs: traces.append(name) or value_and_grad(*args, **kwargs)
    monkeypatch.setattr(example, "optax_ext", spy)
    step, parts = FRAMEWORKS[name]

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        state = example.main()
    line = re.fullmatch(r"accuracy ([\d.]+), skipped steps (\d+), loss scale (\d+)\n", printed.getvalue())
    assert line is not None
    assert float(line[1]) > 0.96
    skipped, scale = int(line[2]), float(line[3])
    assert skipped >= 1

    images, labels = (array[:128] for array in load_digits(return_X_y=True))
    images = np.asarray(images / 16, np.float32)
    params, stats, opt_state = parts(state)
    before = snapshot((params, stats, opt_state.inner_state))
    state, loss = step(example, state, images * np.float32(np.nan), labels)
    params, stats, opt_state = parts(state)
    assert np.isnan(loss)
    chex.assert_trees_all_equal(snapshot((params, stats, opt_state.inner_state)), before)
    metrics = optax_ext.metrics(opt_state)
    assert (metrics["loss_scale"], metrics["skipped_steps"]) == (scale / 2, skipped + 1)

    before = snapshot(params), snapshot(stats)
    state, loss = step(example, state, images, labels)
    params, stats, opt_state = parts(state)
    assert loss < 0.2
    assert optax_ext.metrics(opt_state)["consecutive_skips"] == 0
    assert all(np.any(new != old) for new, old in zip(snapshot(params), before[0], strict=True))
    assert any(np.any(new != old) for new, old in zip(snapshot(stats), before[1], strict=True)) == bool(before[1])
    chex.assert_tree_all_finite(snapshot((params, stats, opt_state)))
    assert traces == [name]  # one compiled step, from the first on
