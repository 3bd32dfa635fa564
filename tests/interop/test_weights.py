"""A TensorFlow LARS run, split in the middle, goes on here and ends where it ends there; and back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import interop
from tests.parity import golden_data, translation

GOLDEN = golden_data.load("lars")
CASES = {case["name"]: case for case in GOLDEN["cases"]}


def continued(case, split):
    """Take over parameters and weights of TensorFlow's after `split` steps, and go on to the end."""
    data, names = GOLDEN["data"][case["data"]], list(case["params"])
    classic = case["config"].get("classic_momentum", True)
    tx = translation.make_lars(case["config"], names)
    params = translation.nest({name: jnp.asarray(case["params"][name][split - 1]) for name in names})
    weights = [np.int64(split), *(case["momentum"][name][split - 1] for name in names)]  # what get_weights() returns
    state = interop.lars_state_from_weights(tx.init(params), weights, names, classic_momentum=classic)
    for t in range(split, 12):
        grads = translation.nest({name: jnp.asarray(grad[t]) for name, grad in data["grads"].items()})
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    back = interop.lars_weights_from_state(state, names, classic_momentum=classic, iterations=12)
    return translation.flatten(params), back


@pytest.mark.parametrize(
    "name",
    [
        "grid_nesterov0_classic1_wd1_exw1_exl0",
        "grid_nesterov1_classic0_wd1_exw1_exl0",
        "schedule_nesterov0_classic1",
        "schedule_nesterov0_classic0",
        "schedule_nesterov1_classic1",
        "schedule_nesterov1_classic0",
        "schedule_warmup",
    ],
)
@pytest.mark.parametrize("split", [1, 6])
def test_a_run_continues(name, split):
    case = CASES[name]
    params, weights = continued(case, split)
    for variable, expected in case["params"].items():
        assert golden_data.deviation(params[variable][None], expected[-1:]) <= 1e-5, variable
    for ours, variable in zip(weights[1:], case["momentum"], strict=True):
        assert golden_data.deviation(ours[None], case["momentum"][variable][-1:]) <= 1e-5, variable
    assert weights[0] == 12


PARAMS = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
ORDER = ["dense/kernel", "dense/bias"]


@pytest.mark.parametrize("classic", [True, False])
@pytest.mark.parametrize("rate", [0.1, optax_ext.CosineDecay(0.1, 100)])
@pytest.mark.parametrize("wrap", [lambda tx: tx, optax_ext.dynamic_loss_scaling], ids=["bare", "scaled"])
def test_there_and_back(classic, rate, wrap):
    tx = wrap(optax.chain(optax.clip(1.0), optax_ext.lars(rate, classic_momentum=classic)))
    weights = [np.asarray(5), np.arange(4.0).reshape(2, 2), np.array([7.0, 8.0])]
    state = interop.lars_state_from_weights(tx.init(PARAMS), weights, ORDER, classic_momentum=classic)
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(PARAMS))
    back = interop.lars_weights_from_state(
        state, ORDER, classic_momentum=classic, iterations=5 if isinstance(rate, float) else None
    )
    for ours, theirs in zip(back, weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if isinstance(rate, float):
        with pytest.raises(ValueError, match="iterations must be given"):
            interop.lars_weights_from_state(state, ORDER)


@pytest.mark.parametrize(
    "options",
    [{"record": True}, {"separate_norms": True}, {"separate_norms": True, "record": True}, {"stacked_axes": 0}],
    ids=str,
)
def test_there_and_back_with_norms_apart_recorded_and_of_layers(options):
    params = {"count": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    tx = optax_ext.lars(optax_ext.CosineDecay(0.1, 100), weight_decay=optax_ext.Constant(0.1), **options)
    weights = [np.asarray(5), np.arange(4.0).reshape(2, 2), np.array([7.0, 8.0])]
    empty = tx.init(params)
    state = interop.lars_state_from_weights(empty, weights, ["count", "bias"])
    assert jax.tree.structure(state) == jax.tree.structure(empty)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, empty)
    for ours, theirs in zip(interop.lars_weights_from_state(state, ["count", "bias"]), weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    _, after = tx.update(params, state, params)  # and it goes on from there
    assert interop.lars_weights_from_state(after, ["count", "bias"])[0] == 6


@pytest.mark.parametrize(
    ("weights", "order", "message"),
    [
        ([0, np.ones((2, 2))], ORDER, "3 in all, got 2"),
        ([0, np.ones(2), np.ones((2, 2))], ORDER, "'dense/kernel' has shape .2, 2., got .2,."),
        ([0, np.ones((2, 2)), np.ones(2)], ["dense/kernle", "dense/bias"], "did you mean 'dense/kernel'"),
        ([0, np.ones((2, 2))], ["dense/kernel"], "'dense/bias' is missing"),
        ([0, np.ones((2, 2)), np.ones((2, 2))], ["dense/kernel", "dense/kernel"], "each parameter once"),
    ],
)
def test_what_does_not_fit(weights, order, message):
    with pytest.raises(ValueError, match=message):
        interop.lars_state_from_weights(optax_ext.lars(0.1).init(PARAMS), weights, order)


def test_a_state_without_momentum():
    with pytest.raises(ValueError, match="momentum of one optimizer, found 0"):
        interop.lars_weights_from_state(optax.adam(0.1).init(PARAMS), ORDER)


def test_a_parameter_called_count_is_left_alone():
    params = {"count": jnp.ones(2)}
    state = optax_ext.lars(optax_ext.CosineDecay(0.1, 9)).init(params)
    state = interop.lars_state_from_weights(state, [7, np.array([1.0, 2.0])], ["count"])
    weights = interop.lars_weights_from_state(state, ["count"])
    np.testing.assert_array_equal(weights[1], [1.0, 2.0])
    assert weights[0] == 7
