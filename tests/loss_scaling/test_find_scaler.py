"""The one scaler in an optimizer state: found however deep it is, and what is said where it is not there."""

import typing

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import optax_ext

PARAMS = {"loss_scale": jnp.array([3.0, 4.0])}  # a parameter may be called that


def state_with(*scales):
    return optax.chain(*(optax_ext.fixed_loss_scaling(optax.sgd(0.1), scale) for scale in scales)).init(PARAMS)


def make_linear():
    return nnx.Linear(2, 2, rngs=nnx.Rngs(0))


READERS = {
    "scale_loss": lambda state, **options: optax_ext.scale_loss(jnp.float32(1.0), state, **options),
    "unscale": lambda state, **options: 1 / optax_ext.unscale(jnp.float32(1.0), state, **options),
    "value_and_grad": lambda state, **options: optax_ext.value_and_grad(lambda x: x, state, **options)(1.0)[1],
}
every_reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


def test_the_state_is_found_at_any_depth():
    tx = optax.chain(optax.clip(1.0), optax.masked(optax_ext.dynamic_loss_scaling(optax.sgd(0.1)), True))
    state = {"model": (tx.init(PARAMS), None)}
    assert optax_ext.scale_loss(jnp.float32(2.0), state) == 2.0**16
    chex.assert_trees_all_equal(optax_ext.unscale(jnp.float32([2.0**15]), state), jnp.ones(1))


@every_reader
def test_several_scalers_are_ambiguous_and_one_is_the_part_that_is_meant(read):
    state = {"generator": state_with(2.0)[0], "discriminator": state_with(4.0)}
    expected = (
        r"one LossScaleState, got 2, at opt_state\['discriminator'\]\[0\], opt_state\['generator'\]: give the part"
    )
    for missing_ok in (False, True):
        with pytest.raises(ValueError, match=expected):
            read(state, missing_ok=missing_ok)
    assert read(state["discriminator"]) == 4.0


@every_reader
@pytest.mark.parametrize(
    "tx",
    [optax.adam(0.1), optax.sgd(0.1), optax.identity(), optax_ext.lars(0.1)],
    ids=["adam", "sgd", "identity", "lars"],
)
def test_a_missing_scaler_is_an_error_unless_it_may_be_missing(read, tx):
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match=r"a state without one: wrap .* or pass missing_ok=True"):
        read(state)
    assert read(state, missing_ok=True) == 1.0
    assert read(state_with(8.0), missing_ok=True) == 8.0
    with pytest.raises(ValueError, match="missing_ok must be True or False, got 'yes'"):
        read(state, missing_ok="yes")


TX = optax_ext.dynamic_loss_scaling(optax.sgd(0.1))
NOT_STATES = {
    "transformation": (lambda: TX, r"a transformation, GradientTransformationExtraArgs: call its init\(params\)"),
    "transformation without extra arguments": (
        lambda: optax.zero_nans(),
        r"a transformation, GradientTransformation: ",
    ),
    "transformation in a dict": (lambda: {"tx": TX}, r"a transformation, GradientTransformationExtraArgs: "),
    "MultiSteps": (lambda: optax.MultiSteps(TX, 2), r"a transformation, MultiSteps: call its init\(params\)"),
    "function": (lambda: TX.init, "got <function"),
    "class": (lambda: optax.MultiSteps, "got <class"),
    "dict": (lambda: PARAMS, "got dict without any of Optax's states: parameters"),
    "masked dict": (lambda: {**PARAMS, "rest": optax.MaskedNode()}, "got dict without any of Optax's states"),
    "list": (lambda: [jnp.ones(2)], "got list without any of Optax's states"),
    "array": (lambda: jnp.ones(2), "without any of Optax's states"),
    "number": (lambda: 8.0, "got float without any of Optax's states"),
    "nnx module": (make_linear, "got a Flax NNX module, Linear: give the opt_state of its nnx.Optimizer"),
    "nnx parameters": (lambda: nnx.state(make_linear(), nnx.Param), "got State without any of Optax's states"),
    "nnx state of an optimizer": (
        lambda: nnx.state(nnx.Optimizer(make_linear(), TX, wrt=nnx.Param)),
        "got State, in which an optimizer state loses its types: give the opt_state",
    ),
    "equinox module": (lambda: eqx.nn.MLP(2, 1, 3, 2, key=jax.random.key(0)), "got MLP without any of Optax's states"),
    "checkpoint": (
        lambda: TX.init(PARAMS)._asdict() | {"inner_state": []},
        "or a checkpoint that was restored without",
    ),
}


@every_reader
@pytest.mark.parametrize("given", NOT_STATES)
def test_what_is_no_optimizer_state_is_said(read, given):
    make, message = NOT_STATES[given]
    for missing_ok in (False, True):
        with pytest.raises(TypeError, match=message):
            read(make(), missing_ok=missing_ok)


def test_a_training_state_may_hold_its_transformation():
    class Training(typing.NamedTuple):
        tx: optax.GradientTransformation
        opt_state: optax.OptState

    assert optax_ext.scale_loss(jnp.float32(1.0), Training(TX, TX.init(PARAMS))) == 2.0**15


GROUPS = {"first": optax_ext.dynamic_loss_scaling(optax.sgd(0.1)), "second": optax.sgd(0.1)}
TWO = {"first": jnp.ones(2), "second": jnp.ones(2)}
LABELS = {"first": "first", "second": "second"}


@every_reader
def test_a_scaler_in_one_group_beside_one_that_takes_scaled_gradients_is_refused(read):
    def masked(group, tx):
        return optax.masked(tx, {name: name == group for name in TWO})

    in_a_partition = optax.partition(GROUPS, LABELS).init(TWO)
    message = r"\['first'\] of opt_state\.inner_states, and other groups .*: \['second'\]\. Put the scaler outermost"
    with pytest.raises(ValueError, match=message):
        read(in_a_partition)
    assert read(in_a_partition.inner_states["first"]) == 2.0**15  # for a loss of its own
    in_a_chain = {"tx": optax.chain(optax.clip(1.0), *(masked(name, tx) for name, tx in GROUPS.items())).init(TWO)}
    with pytest.raises(ValueError, match=r"\[1\] of opt_state\['tx'\], and other groups .*: \[2\]\. Put the scaler"):
        read(in_a_chain)
    named = optax.named_chain(*((name, masked(name, tx)) for name, tx in GROUPS.items())).init(TWO)
    with pytest.raises(ValueError, match=r"\['first'\] of opt_state, and other groups .*: \['second'\]\."):
        read(named)


@every_reader
def test_a_scaler_beside_a_group_that_is_frozen_or_around_all_groups_is_fine(read):
    frozen = GROUPS | {"second": optax.set_to_zero()}
    assert read(optax.partition(frozen, LABELS).init(TWO)) == 2.0**15
    around = optax_ext.dynamic_loss_scaling(optax.partition(GROUPS | {"first": optax.sgd(0.1)}, LABELS))
    assert read(around.init(TWO)) == 2.0**15
    beside = optax.chain(around, optax.masked(optax_ext.params_ema(), {"first": True, "second": False}))
    assert read(beside.init(TWO)) == 2.0**15


def test_what_is_refused_would_have_trained_on_scaled_gradients():
    tx = optax.partition(GROUPS, LABELS)
    state = tx.init(TWO)
    grads = jax.tree.map(lambda leaf: 2.0**15 * leaf, TWO)
    updates, _ = tx.update(grads, state, TWO)
    chex.assert_trees_all_close(updates, {"first": jnp.full(2, -0.1), "second": jnp.full(2, -3276.8)})


@every_reader
def test_a_scaler_inside_apply_if_finite_is_refused(read):
    state = optax.chain(optax.clip(1.0), optax.apply_if_finite(TX, 10)).init(PARAMS)
    with pytest.raises(ValueError, match=r"inside optax.apply_if_finite, at opt_state\[1\], .* remove apply_if_finite"):
        read(state)
    assert read(optax_ext.dynamic_loss_scaling(optax.apply_if_finite(optax.sgd(0.1), 10)).init(PARAMS)) == 2.0**15


def test_a_scaler_inside_apply_if_finite_would_not_shrink():
    tx = optax.apply_if_finite(TX, 10)
    _, state = tx.update({"loss_scale": jnp.array([jnp.inf, 1.0])}, tx.init(PARAMS), PARAMS)
    assert state.inner_state.loss_scale == 2.0**15
    assert state.inner_state.skipped_steps == 0
