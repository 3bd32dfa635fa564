"""The GAN covers all modes, and an overflow in one network skips that one alone."""

from typing import Any

import chex
import jax
import numpy as np
import optax
import pytest

import optax_ext
from examples import gan


@pytest.fixture(scope="module")
def players() -> tuple[gan.Player, gan.Player]:
    return gan.main()


def snapshot(tree: Any) -> Any:
    return jax.tree.map(np.array, tree)  # copies, which outlive donation


def step(players: Any) -> Any:
    batch = gan.sample(np.random.default_rng(1))
    return snapshot(gan.train_step(*jax.tree.map(jax.numpy.asarray, players), *batch))


def test_the_generator_covers_all_modes(players: Any) -> None:
    noise = np.random.default_rng(2).standard_normal((1000, gan.NOISE), np.float32)
    counts = gan.count_modes(gan.apply(players[0].params, noise))
    assert counts.sum() > 750
    assert counts.min() > 20


@pytest.mark.parametrize("overflowing", [0, 1], ids=["generator", "discriminator"])
def test_an_overflow_in_one_does_not_touch_the_other(players: Any, overflowing: int) -> None:
    before = list(snapshot(players))
    for index, scale in ((overflowing, 2.0**40), (1 - overflowing, 2.0**10)):  # 2**40 is beyond float16
        player = before[index]
        opt_state = optax.tree.set(player.opt_state, loss_scale=np.float32(scale), counter=np.int32(0))
        before[index] = player._replace(opt_state=opt_state)
    undisturbed = list(before)
    undisturbed[overflowing] = snapshot(players)[overflowing]

    after, expected = step(before), step(undisturbed)
    skipped, moved = after[overflowing], after[1 - overflowing]
    chex.assert_trees_all_equal(skipped.params, before[overflowing].params)
    chex.assert_trees_all_equal(skipped.opt_state.inner_state, before[overflowing].opt_state.inner_state)
    assert optax_ext.metrics(skipped.opt_state)["loss_scale"] == 2.0**39
    assert optax_ext.metrics(moved.opt_state)["loss_scale"] == 2.0**10
    assert optax_ext.metrics(moved.opt_state)["consecutive_skips"] == 0
    chex.assert_trees_all_equal(moved, expected[1 - overflowing])
    assert np.any(moved.params[0]["kernel"] != before[1 - overflowing].params[0]["kernel"])
    assert gan.train_step._cache_size() == 1
