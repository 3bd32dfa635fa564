"""How trees are walked: what counts as one parameter, the paths of leaves, and the states inside a state."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from optax_ext._core.trees import find_nodes, is_none, is_one_parameter, join_path


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (None, True),
        (optax.MaskedNode(), True),
        (nnx.Param(jnp.ones(2)), True),
        (nn.Partitioned(jnp.ones(2), names=("data",)), True),
        (jnp.ones(2), False),
        ({}, False),
        ((), False),
        (optax.EmptyState(), False),
    ],
)
def test_holes_and_boxes_are_one_parameter(node, expected):
    assert is_one_parameter(node) is expected


def test_only_none_is_none():
    assert is_none(None)
    assert not any(map(is_none, (0, (), optax.MaskedNode(), False)))


def test_a_path_has_the_keys_from_the_root_on():
    tree = {"conv": [{"kernel": 1}], "state": optax.TraceState(trace=2)}
    paths = [join_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    assert paths == ["conv/0/kernel", "state/trace"]
    assert join_path(()) == ""


def test_nodes_of_a_type_are_found_at_any_depth_but_not_in_one_another():
    inner = optax.MaskedState(optax.EmptyState())
    outer = optax.MaskedState({"a": inner})
    assert find_nodes({"x": [outer, (optax.EmptyState(), inner)]}, optax.MaskedState) == [outer, inner]
    assert find_nodes(inner, optax.MaskedState) == [inner]
    assert find_nodes({"x": 1}, optax.MaskedState) == []
