"""What is no floating or complex number is hidden from an optimizer, and its update is zero."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config
from optax_ext.transforms._inexact import for_inexact

PARAMS = {"w": jnp.ones(3), "table": jnp.arange(4), "key": jax.random.key(3)}


def gradients(params):
    return jax.grad(lambda p: jnp.sum(p["w"] ** 2), allow_int=True)(params)


def test_the_inner_transformation_sees_none_in_its_place():
    seen = []

    def init(params):
        seen.append(params)
        return optax.EmptyState()

    def update(updates, state, params=None, **extra_args):
        seen.extend([updates, params, extra_args])
        return updates, state

    tx = for_inexact(optax.GradientTransformationExtraArgs(init, update))
    updates, _ = tx.update(gradients(PARAMS), tx.init(PARAMS), PARAMS, value=1.0)
    assert [tree["table"] is None and tree["key"] is None for tree in seen[:3]] == [True] * 3
    assert seen[3] == {"value": 1.0}
    assert seen[1]["w"] is updates["w"]  # as it came, so that what is known of it stays known
    assert (updates["table"].dtype, updates["key"].dtype) == (jnp.int32, PARAMS["key"].dtype)
    chex.assert_trees_all_equal(updates["table"], jnp.zeros(4, jnp.int32))


def test_without_parameters_the_gradients_tell():
    tx = for_inexact(optax.trace(0.9))
    grads = {"w": jnp.ones(3), "table": np.zeros(4, jax.dtypes.float0), "counts": jnp.ones(2, jnp.int32)}
    params = {"w": jnp.ones(3), "table": jnp.arange(4), "counts": jnp.ones(2, jnp.int32)}
    updates, _ = tx.update(grads, tx.init(params))
    assert updates["table"].dtype == jax.dtypes.float0
    chex.assert_trees_all_equal(updates["counts"], jnp.zeros(2, jnp.int32))
    chex.assert_trees_all_equal(updates["w"], jnp.ones(3))


def test_a_state_is_that_of_the_inner_transformation():
    params = {"w": jnp.ones(3), "v": jnp.ones(2, jnp.bfloat16)}
    for inner in (optax.adam(0.1), optax.sgd(0.1, 0.9)):
        chex.assert_trees_all_equal(for_inexact(inner).init(params), inner.init(params))
        assert jax.tree.structure(for_inexact(inner).init(params)) == jax.tree.structure(inner.init(params))


@pytest.mark.parametrize("number", [1.5, 2.0 + 1j, np.float32(1.5)])
def test_numbers_become_arrays_of_their_own_type(number):
    for inner in (optax.identity(), optax.trace(0.5)):
        tx = for_inexact(inner)
        state = tx.init({"t": number})
        updates, new_state = tx.update({"t": 1}, state, {"t": number})  # an integer gradient is as good as another
        for leaf in jax.tree.leaves((updates, state, new_state)):
            assert (leaf.dtype, leaf.weak_type) == (jnp.result_type(number), False)


def test_functions_among_parameters_are_passed_by():
    """An Equinox module has some, whose gradient is None."""
    params = {"w": jnp.ones(3), "activation": jax.nn.relu}
    tx = for_inexact(optax.sgd(0.5, 0.9))
    updates, _ = tx.update({"w": jnp.ones(3), "activation": None}, tx.init(params), params)
    assert updates["activation"] is None
    chex.assert_trees_all_equal(updates["w"], jnp.full(3, -0.5))


@pytest.mark.parametrize(
    "schema",
    [
        config.AdamW(0.1, weight_decay_rate=0.1, exclude_from_weight_decay=["table"]),
        config.LAMB(0.1, weight_decay_rate=0.1, exclude_from_weight_decay=["key$"]),
        config.LARS(0.1, weight_decay_rate=0.1, exclude_from_layer_adaptation=["table"]),
    ],
    ids=lambda schema: schema.type,
)
def test_a_pattern_may_name_what_is_hidden(schema):
    tx = schema.make()
    updates, _ = tx.update(gradients(PARAMS), tx.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(updates["table"], jnp.zeros(4, jnp.int32))


def test_it_stands_twice_as_well_as_once():
    tx = optax_ext.dynamic_loss_scaling(for_inexact(for_inexact(optax.adam(0.1))), initial_scale=1.0)
    once = for_inexact(optax.adam(0.1))
    params = {"w": PARAMS["w"], "table": PARAMS["table"]}
    grads = gradients(params)
    twice, _ = tx.update(grads, tx.init(params), params)
    chex.assert_trees_all_close(twice, once.update(grads, once.init(params), params)[0])
