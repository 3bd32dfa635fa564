"""Weight decay: what is added to which parameters, at which rate, in which dtype."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext.transforms import add_decayed_weights, after_weight_decay, subtract_decayed_weights

PARAMS = {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array(3.0)}
GRADS = {"kernel": jnp.array([0.5, 0.25]), "bias": jnp.array(1.0)}
KERNELS = {"kernel": True, "bias": False}


def test_the_parameters_that_the_mask_chooses_decay():
    tx = add_decayed_weights(0.5, KERNELS)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(updates, {"kernel": jnp.array([1.0, -0.75]), "bias": jnp.array(1.0)})


@pytest.mark.parametrize("rate", [0.5, lambda count: 0.5 * (count + 1)])
def test_it_is_optaxs_with_its_state(rate):
    ours, theirs = add_decayed_weights(rate, True), optax.add_decayed_weights(rate, True)
    state, expected_state = ours.init(PARAMS), theirs.init(PARAMS)
    for _ in range(2):
        updates, state = ours.update(GRADS, state, PARAMS)
        expected, expected_state = theirs.update(GRADS, expected_state, PARAMS)
    chex.assert_trees_all_equal((updates, state), (expected, expected_state))


@pytest.mark.parametrize("rate", [0.5, jnp.float32(0.5), lambda count: jnp.float32(0.5)])
@pytest.mark.parametrize(
    ("update", "param", "expected"),
    [("bfloat16", "bfloat16", "bfloat16"), ("bfloat16", "float32", "float32"), ("float32", "bfloat16", "float32")],
)
def test_the_rate_widens_nothing(rate, update, param, expected):
    tx, params = add_decayed_weights(rate, True), jnp.full(2, 1.0, param)
    with jax.numpy_dtype_promotion("strict" if update == param else "standard"):
        updates, _ = tx.update(jnp.full(2, 2.0, update), tx.init(params), params)
    assert updates.dtype == expected
    np.testing.assert_array_equal(updates, 2.5)


def test_a_rate_of_zero_adds_nothing_whatever_the_parameters():
    tx, params = add_decayed_weights(0.0, True), {"a": jnp.array([jnp.inf, jnp.nan])}
    updates, _ = tx.update({"a": jnp.ones(2)}, tx.init(params), params)
    chex.assert_trees_all_equal(updates, {"a": jnp.ones(2)})


def test_a_missing_gradient_stays_missing():
    tx = add_decayed_weights(0.5, True)
    updates, _ = tx.update({**GRADS, "bias": None}, tx.init(PARAMS), PARAMS)
    assert updates["bias"] is None


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_parameters_are_required(rate):
    tx = add_decayed_weights(rate, True)
    with pytest.raises(ValueError, match=r"weight decay needs the parameters: call update\(updates, state, params\)"):
        tx.update(GRADS, tx.init(PARAMS))


# ---------------------------------------------------------------------------------------------------------
# Apart from the rest of the step


@pytest.mark.parametrize("amount", [0.5, lambda count: 0.5 * (count + 1)])
def test_what_is_subtracted_is_the_part_of_the_parameter_that_a_step_takes_away(amount):
    tx = subtract_decayed_weights(amount, KERNELS)
    state = tx.init(PARAMS)
    for part in (0.5, 1.0 if callable(amount) else 0.5):
        updates, state = tx.update(GRADS, state, PARAMS)
        np.testing.assert_array_equal(updates["kernel"], GRADS["kernel"] - part * PARAMS["kernel"])
        assert updates["bias"] == GRADS["bias"]


def test_a_transformation_that_reads_parameters_sees_the_decayed_ones():
    seen = []

    def update(updates, state, params, **extra_args):
        seen.append((params, extra_args))
        return updates, state

    inner = optax.GradientTransformationExtraArgs(optax.identity().init, update)
    tx = after_weight_decay(inner, lambda count: 0.5 * (count + 1), KERNELS)
    state = tx.init(PARAMS)
    updates, state = tx.update(GRADS, state, PARAMS, value=7)
    chex.assert_trees_all_equal(seen[0], ({**PARAMS, "kernel": jnp.array([0.5, -1.0])}, {"value": 7}))
    np.testing.assert_array_equal(updates["kernel"], GRADS["kernel"] - 0.5 * PARAMS["kernel"])
    assert updates["bias"] == GRADS["bias"]
    updates, _ = tx.update({**GRADS, "kernel": None}, state, PARAMS)
    assert updates["kernel"] is None
    np.testing.assert_array_equal(seen[1][0]["kernel"], PARAMS["kernel"])  # without a gradient, nothing decays
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(GRADS, state)


@pytest.mark.parametrize(("update", "param"), [("bfloat16", "bfloat16"), ("bfloat16", "float32")])
def test_the_sum_has_the_wider_of_two_dtypes(update, param):
    tx, params = after_weight_decay(optax.identity(), 0.5, True), jnp.full(2, 1.0, param)
    with jax.numpy_dtype_promotion("strict" if update == param else "standard"):
        updates, _ = tx.update(jnp.full(2, 2.0, update), tx.init(params), params)
    assert updates.dtype == param
    np.testing.assert_array_equal(updates, 1.5)


def test_the_transformation_after_decay_runs_in_float32():
    seen = []
    inner = optax.stateless(lambda updates, params: seen.append((updates, params)) or updates)
    inner = inner._replace(init=lambda params: params["w"].dtype)
    tx, params = after_weight_decay(inner, 0.0, True), {"w": jnp.ones(2, "bfloat16"), "hidden": None}
    state = tx.init(params)
    updates, _ = tx.update(params, state, params)
    assert [leaf.dtype for leaf in jax.tree.leaves(seen)] == ["float32", "float32"]
    assert (updates["w"].dtype, state[1]) == ("bfloat16", "float32")
