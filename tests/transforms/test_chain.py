"""Chains of named stages: the state of `optax.chain`, its names in order, and integers left alone."""

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import optax_ext
from optax_ext.transforms import chain, stages_of

PARAMS = {"w": jnp.array([1.0, -2.0])}
STAGES = {"clip": optax.clip(1.0), "trace": optax.trace(0.5), "learning rate": optax.scale(-0.5)}


def test_it_is_optaxs_chain_with_its_state():
    ours, theirs = chain(STAGES), optax.chain(*STAGES.values())
    state = ours.init(PARAMS)
    chex.assert_trees_all_equal(state, theirs.init(PARAMS))
    chex.assert_trees_all_equal(ours.update(PARAMS, state, PARAMS), theirs.update(PARAMS, state, PARAMS))


def test_it_knows_its_stages_and_what_is_done_to_its_argument_later_does_not_matter():
    stages = dict(STAGES)
    tx = chain(stages)
    stages.clear()
    assert list(stages_of(tx)) == ["clip", "trace", "learning rate"]
    assert all(stages_of(tx)[name] is stage for name, stage in STAGES.items())
    assert isinstance(tx, optax.GradientTransformationExtraArgs)


@pytest.mark.parametrize(
    ("tx", "names"),
    [
        (optax_ext.lars(0.1), ["weight decay", "trust ratio", "learning rate", "momentum"]),
        (optax_ext.lars(0.1, classic_momentum=False), ["weight decay", "momentum", "trust ratio", "learning rate"]),
        (optax_ext.lamb(0.1), ["moments", "weight decay", "trust ratio", "learning rate"]),
    ],
)
def test_the_stages_of_our_optimizers_are_in_the_order_of_their_formula(tx, names):
    assert list(stages_of(tx)) == names


def test_stages_of_what_is_no_chain_of_ours_is_refused():
    with pytest.raises(TypeError, match="stages_of takes a transformation of transforms.chain, lars or lamb, got Grad"):
        stages_of(optax.sgd(0.1))
    with pytest.raises(TypeError, match="stages_of takes"):
        stages_of(optax_ext.lars(0.1)._replace(init=optax.sgd(0.1).init))


def test_extra_arguments_reach_every_stage_that_takes_them():
    def update(updates, state, params=None, *, factor, **extra_args):
        del params, extra_args
        return jax.tree.map(lambda u: factor * u, updates), state

    scale = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    tx = chain({"first": scale, "plain": optax.identity(), "second": scale})
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, factor=3.0, other="text")
    chex.assert_trees_all_equal(updates, {"w": jnp.array([9.0, -18.0])})


def test_integers_are_hidden_from_every_stage():
    params = {"w": jnp.ones(2), "table": jnp.arange(3)}
    tx = chain({"decay": optax.add_decayed_weights(0.5), "rate": optax.scale(-1.0)})
    updates, _ = tx.update({"w": jnp.ones(2), "table": jnp.ones(3)}, tx.init(params), params)
    chex.assert_trees_all_equal(updates, {"w": jnp.full(2, -1.5), "table": jnp.zeros(3, jnp.int32)})
