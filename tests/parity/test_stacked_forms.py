"""Layers in one leaf, in every form: an optimizer does to each layer what it does to the layer alone."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import optax_ext
from optax_ext import transforms

_RANDOM = np.random.default_rng(0)
STEPS = 3


def draw(*shape: int) -> jax.Array:
    """Return layers of very different sizes along axis 0, so that one ratio for all cannot pass."""
    sizes = 10.0 ** np.arange(shape[0])
    return jnp.asarray(_RANDOM.normal(size=shape) * sizes.reshape(-1, *[1] * (len(shape) - 1)), jnp.float32)


OPTIMIZERS = {
    "lars": functools.partial(optax_ext.lars, 0.5, trust_coefficient=0.1, weight_decay=1e-2),
    "separate norms": functools.partial(
        optax_ext.lars, 0.5, trust_coefficient=0.1, weight_decay=1e-2, separate_norms=True, max_ratio=0.3
    ),
    "lamb": functools.partial(optax_ext.lamb, 0.1, weight_decay=1e-2, min_ratio=0.5),
    "clip by norm": lambda stacked_axes=None: optax.chain(
        transforms.clip_by_norm(2.0, stacked_axes=stacked_axes), optax.sgd(0.1, momentum=0.9)
    ),
}
EVERY = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def train(tx: optax.GradientTransformation, params: Any, grads: Any, steps: int = STEPS) -> Any:
    """Take steps with gradients that change; None for a parameter that has none."""

    def apply(param: Any, update: Any) -> Any:
        return param if update is None else optax.apply_updates(param, update)

    state = tx.init(params)
    for t in range(steps):
        now = jax.tree.map(lambda grad, t=t: grad * (1 - 0.4 * t) if eqx.is_inexact_array(grad) else grad, grads)
        updates, state = tx.update(now, state, params)
        params = jax.tree.map(apply, params, updates, is_leaf=lambda node: node is None)
    return params


def train_alone(make: Any, param: jax.Array, grad: jax.Array) -> jax.Array:
    return train(make(), {"w": param}, {"w": grad})["w"]


close = functools.partial(np.testing.assert_allclose, rtol=2e-6, atol=1e-7)
PARAM, GRAD = draw(3, 4, 5), draw(3, 4, 5)[::-1]


@pytest.mark.parametrize(
    ("optimizer", "axes", "order"),
    [
        ("lars", 0, (0, 1, 2)),
        ("lars", 1, (1, 0, 2)),
        ("separate norms", 1, (1, 0, 2)),
        ("lamb", 1, (1, 0, 2)),
        ("clip by norm", 1, (1, 0, 2)),
        ("lars", -1, (1, 2, 0)),
        ("lars", np.int64(2), (1, 2, 0)),
        ("lars", (-3,), (0, 1, 2)),
    ],
)
def test_each_entry_of_an_axis_is_a_layer(optimizer, axes, order):
    """As an ensemble of models under `vmap` keeps them: each trains as it does by itself."""
    make = OPTIMIZERS[optimizer]
    params, grads = (jnp.transpose(leaf, order) for leaf in (PARAM, GRAD))
    result = jnp.transpose(train(make(stacked_axes=axes), {"w": params}, {"w": grads})["w"], np.argsort(order))
    for i in range(3):
        close(result[i], train_alone(make, PARAM[i], GRAD[i]))


@pytest.mark.parametrize(
    ("optimizer", "axes"), [*((optimizer, (0, 2)) for optimizer in OPTIMIZERS), ("lars", (2, 0)), ("lars", (-1, -3))]
)
def test_layers_and_heads(optimizer, axes):
    make = OPTIMIZERS[optimizer]
    result = train(make(stacked_axes=axes), {"w": PARAM}, {"w": GRAD})["w"]
    for i in range(3):
        for j in range(5):
            close(result[i, :, j], train_alone(make, PARAM[i, :, j], GRAD[i, :, j]))


@EVERY
def test_every_axis_may_count_layers(optimizer):
    """Each number is then a layer: its ratio is that of one number."""
    make = OPTIMIZERS[optimizer]
    param, grad = jnp.array([[1.0, -20.0], [0.0, 5.0]]), jnp.array([[3.0, 0.1], [2.0, 0.0]])
    result = train(make(stacked_axes=(0, 1)), {"w": param}, {"w": grad})["w"]
    for i, j in np.ndindex(2, 2):
        close(result[i, j], train_alone(make, param[i, j], grad[i, j]))


# The same layers, said in every way that there is.

TREE = {"blocks": {"kernel": PARAM, "bias": draw(3, 5)}, "experts": [draw(2, 3, 4, 4)], "head": draw(4, 2)}
TREE_GRADS = jax.tree.map(lambda leaf: leaf[::-1] * 0.3, TREE)
WAYS = {
    "tree": {"blocks": {"kernel": 0, "bias": 0}, "experts": [(0, 1)], "head": None},
    "prefix": {"blocks": 0, "experts": (0, 1), "head": None},
    "path_axes": optax_ext.path_axes({"^blocks/": 0, "^experts/": [0, 1]}),
    "negative": optax_ext.path_axes({"kernel": -3, "bias": -2, "^experts/": (-4, 1)}),
    "none by name": optax_ext.path_axes({"^blocks/": 0, "^experts/": (1, 0), "head": None}),
    "function": lambda params: {"blocks": 0, "experts": (0, 1), "head": None},
    "function of leaves": lambda params: jax.tree.map(
        lambda leaf: {4: (0, 1), 3: 0}.get(leaf.ndim, 0 if leaf.shape[0] == 3 else ()), params
    ),
}


@functools.cache
def expected_tree(optimizer: str) -> Any:
    make = OPTIMIZERS[optimizer]
    alone = lambda param, grad: np.asarray(train_alone(make, param, grad))  # noqa: E731
    blocks = {
        name: np.stack([alone(TREE["blocks"][name][i], TREE_GRADS["blocks"][name][i]) for i in range(3)])
        for name in ("kernel", "bias")
    }
    (experts,), (expert_grads,) = TREE["experts"], TREE_GRADS["experts"]
    rows = [[alone(experts[i, j], expert_grads[i, j]) for j in range(3)] for i in range(2)]
    return {"blocks": blocks, "experts": [np.array(rows)], "head": alone(TREE["head"], TREE_GRADS["head"])}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_say_it(way):
    jax.tree.map(close, train(OPTIMIZERS["lars"](stacked_axes=WAYS[way]), TREE, TREE_GRADS), expected_tree("lars"))


@EVERY
def test_a_tree_with_layers_and_experts(optimizer):
    result = train(OPTIMIZERS[optimizer](stacked_axes=WAYS["path_axes"]), TREE, TREE_GRADS)
    jax.tree.map(close, result, expected_tree(optimizer))


@pytest.mark.parametrize(
    "axes",
    [
        optax_ext.path_axes({"layer/0": 0, "layer/1": 1}),
        lambda params: jax.tree.map(lambda leaf: 3 - leaf.ndim, params),
        {"layer": ((0,), (1,))},
    ],
)
def test_parameters_in_a_tuple(axes):
    """A function's tuple of integers is one of parameters, where these are in a tuple."""
    params = {"layer": (PARAM, PARAM[:, :, 0].T)}
    tx = optax_ext.scale_by_trust_ratio(stacked_axes=axes, record=True)
    assert jax.tree.map(jnp.shape, tx.init(params).trust_ratio) == {"layer": ((3,), (3,))}


# Around: what Optax and others put around transformations and parameters.


WRAPPERS = {
    "masked": lambda make, axes: optax.masked(make(stacked_axes=axes), {"blocks": True, "experts": True, "head": True}),
    "MultiSteps": lambda make, axes: optax.MultiSteps(make(stacked_axes=axes), 1),
    "inject_hyperparams": lambda make, axes: optax.inject_hyperparams(make, static_args=["stacked_axes"])(
        stacked_axes=axes
    ),
    "master_weights": lambda make, axes: optax_ext.master_weights(make(stacked_axes=axes)),
    "loss scaling": lambda make, axes: optax_ext.fixed_loss_scaling(make(stacked_axes=axes), 1.0),
}


@pytest.mark.parametrize(
    ("wrapper", "axes"),
    [(name, "path_axes") for name in WRAPPERS] + [("masked", "prefix"), ("masked", "function of leaves")],
)
def test_inside_what_optax_has(wrapper, axes):
    make = OPTIMIZERS["separate norms"]
    result = train(WRAPPERS[wrapper](make, WAYS[axes]), TREE, TREE_GRADS)
    jax.tree.map(close, result, expected_tree("separate norms"))


def test_two_optimizers_for_parts_of_a_tree():
    """Each sees holes where the other's parameters are, and patterns for both match."""
    axes = WAYS["path_axes"]
    tx = optax.partition(
        {"lars": OPTIMIZERS["lars"](stacked_axes=axes), "lamb": OPTIMIZERS["lamb"](stacked_axes=axes)},
        lambda params: {
            key: jax.tree.map(lambda _, key=key: "lamb" if key == "experts" else "lars", params[key]) for key in params
        },
    )
    expected = {key: expected_tree("lamb" if key == "experts" else "lars")[key] for key in TREE}
    jax.tree.map(close, train(tx, TREE, TREE_GRADS), expected)


def test_masks_within():
    """Holes from the trust ratio's own mask, of a prefix and of ranks, which leave the stacked axes out."""
    mask = optax_ext.path_mask(exclude=["rank <= 1"])
    tx = OPTIMIZERS["lars"](stacked_axes=WAYS["prefix"], trust_ratio_mask=mask, weight_decay_mask=mask)
    result = train(tx, TREE, TREE_GRADS)
    expected = expected_tree("lars") | {"blocks": dict(expected_tree("lars")["blocks"])}
    plain = train(optax.sgd(0.5, momentum=0.9), TREE["blocks"]["bias"], TREE_GRADS["blocks"]["bias"])
    expected["blocks"]["bias"] = np.asarray(plain)
    jax.tree.map(close, result, expected)


@pytest.mark.parametrize("optimizer", ["lars", "separate norms", "lamb"])
def test_parameters_that_are_not_trained(optimizer):
    """No gradient, a hole, and integers, which have too few axes to be stacked."""
    params = TREE | {"count": jnp.int32(3), "frozen": draw(3, 2), "hole": optax.MaskedNode()}
    grads = TREE_GRADS | {"count": np.zeros((), jax.dtypes.float0), "frozen": None, "hole": optax.MaskedNode()}
    axes = WAYS["prefix"] | {"count": 0, "frozen": 0, "hole": 0}
    for stacked_axes in (axes, optax_ext.path_axes({"^blocks/|frozen|hole": 0, "^experts/": (0, 1)})):
        make = OPTIMIZERS[optimizer]
        result = train(make(stacked_axes=stacked_axes, record=True), params, grads)
        assert int(result.pop("count")) == 3
        np.testing.assert_array_equal(result.pop("frozen"), params["frozen"])
        assert result.pop("hole") == optax.MaskedNode()
        jax.tree.map(close, result, expected_tree(optimizer))


def test_a_recorded_ratio_without_gradient_stays():
    tx = optax_ext.lars(0.1, stacked_axes=0, record=True)
    params = {"a": PARAM, "b": PARAM}
    state = tx.init(params)
    _, state = tx.update(params, state, params)
    before = optax.tree.get(state, "trust_ratio")
    _, state = tx.update({"a": GRAD, "b": None}, state, params)
    after = optax.tree.get(state, "trust_ratio")
    np.testing.assert_array_equal(after["b"], before["b"])
    assert not np.array_equal(after["a"], before["a"])


def test_a_module_with_functions_among_its_leaves():
    class Block(eqx.Module):
        weight: jax.Array
        activation: Any

    model, grads = Block(PARAM, jax.nn.relu), Block(GRAD, None)
    make = OPTIMIZERS["lars"]
    result = train(make(stacked_axes=0), eqx.filter(model, eqx.is_array), grads)
    expected = np.stack([train_alone(make, PARAM[i], GRAD[i]) for i in range(3)])
    close(result.weight, expected)


@pytest.mark.parametrize("axes", [optax_ext.path_axes({"^w$": 0}), "tree", 0])
@pytest.mark.parametrize(
    ("box", "unbox"),
    [
        (lambda leaf: nnx.State({"w": nnx.Param(leaf)}), lambda tree: tree["w"][...]),
        (lambda leaf: {"w": nn.Partitioned(leaf, ("layers", None, None))}, lambda tree: tree["w"].value),
    ],
    ids=["nnx", "linen"],
)
def test_boxes(box, unbox, axes):
    axes = jax.tree.map(lambda _: 0, box(PARAM)) if axes == "tree" else axes
    make = OPTIMIZERS["separate norms"]
    result = unbox(train(make(stacked_axes=axes), box(PARAM), box(GRAD)))
    close(result, np.stack([train_alone(make, PARAM[i], GRAD[i]) for i in range(3)]))
