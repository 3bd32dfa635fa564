"""Labels by paths: each parameter has exactly one, and holes take part in nothing."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from optax_ext import path_axes, path_labels

PARAMS = {
    "body": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "head": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)},
}


def test_each_parameter_has_the_label_whose_pattern_matches():
    assert path_labels({"slow": ["^body/"], "fast": ["head/kernel", "head/bias"]})(PARAMS) == {
        "body": {"kernel": "slow", "bias": "slow"},
        "head": {"kernel": "fast", "bias": "fast"},
    }
    assert path_labels({"vectors": ["rank <= 1"]}, rest="matrices")(PARAMS)["head"] == {
        "kernel": "matrices",
        "bias": "vectors",
    }
    assert path_labels({}, rest="all")(PARAMS["head"]) == {"kernel": "all", "bias": "all"}


def test_ranks_are_of_one_layer():
    params = {"blocks": {"kernel": jnp.ones((4, 2, 3)), "bias": jnp.ones((4, 3))}}
    by_function = path_labels({"vectors": ["rank <= 1"]}, "others", stacked_axes=path_axes({"blocks": 0}))
    assert by_function(params) == {"blocks": {"kernel": "others", "bias": "vectors"}}
    assert path_labels({"vectors": ["rank <= 1"]}, "others", stacked_axes=0)(params) == by_function(params)


def test_two_labels_for_one_parameter_name_it_and_both_patterns():
    labels = path_labels({"slow": ["^body/"], "plain": ["bias"]}, rest="fast")
    with pytest.raises(
        ValueError, match=r"'body/bias' must have one label, got 'slow' by the pattern '\^body/' and 'pl"
    ):
        labels(PARAMS)
    twice = path_labels({"slow": ["^body/", "body/bias"]}, rest="fast")  # one label by two patterns is one
    assert twice(PARAMS)["body"]["bias"] == "slow"


def test_no_label_and_no_rest_name_the_paths():
    with pytest.raises(ValueError, match=r"no pattern matches 'head/bias', 'head/kernel': add patterns .* `rest`"):
        path_labels({"slow": ["^body/"]})(PARAMS)
    many = {f"p{number:02}": jnp.ones(1) for number in range(15)} | {"body": jnp.ones(1)}
    with pytest.raises(ValueError, match="'p09' and 5 more: add"):
        path_labels({"slow": ["^body"]})(many)


def test_a_pattern_that_matches_nothing_is_an_error_unless_allowed():
    with pytest.raises(ValueError, match="the pattern 'haed' matches none of the 4 parameters"):
        path_labels({"fast": ["haed"]}, rest="slow")(PARAMS)
    assert path_labels({"fast": ["haed"]}, rest="slow", allow_unmatched=True)(PARAMS)["head"]["bias"] == "slow"


def test_holes_have_a_label_that_optax_knows():
    labels = path_labels({"fast": ["^head/"], "slow": ["kernel$", "bias$"]}, allow_unmatched=True)
    holes = {"body": {"kernel": None, "bias": optax.MaskedNode()}, "head": optax.MaskedNode(), "else": None}
    assert labels(holes) == {"body": {"kernel": "slow", "bias": "slow"}, "head": "fast", "else": "fast"}
    with pytest.raises(ValueError, match="'haed' matches none"):
        path_labels({"fast": ["haed"]}, "slow")(holes)


def test_boxes_and_functions_are_one_parameter():
    state = nnx.State({"head": {"kernel": nnx.Param(jnp.ones((2, 2)))}, "body": nnx.Param(jnp.ones(2))})
    assert path_labels({"fast": ["^head/"]}, "slow")(state)["head"]["kernel"] == "fast"
    assert path_labels({"fast": ["rank <= 1"]}, "slow")(state)["head"]["kernel"] == "slow"
    params = {"head": jnp.ones(2), "activation": jax.nn.relu}
    assert path_labels({"fast": ["^head"]})(params) == {"head": "fast", "activation": "fast"}


def test_optax_partitions_by_them_also_where_a_gradient_is_none():
    labels = path_labels({"fast": ["^head/"]}, rest="slow")
    tx = optax.partition({"fast": optax.sgd(1.0), "slow": optax.sgd(0.5)}, labels)
    grads = PARAMS | {"head": {"kernel": None, "bias": PARAMS["head"]["bias"]}}
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["head"]["bias"], -1)
    np.testing.assert_array_equal(updates["body"]["kernel"], -0.5)
    assert updates["head"]["kernel"] is None


def test_labels_are_a_value():
    labels = path_labels({"fast": ["^head/"]}, rest="slow", allow_unmatched=True, stacked_axes=0)
    text = "path_labels({'fast': ['^head/']}, rest='slow', allow_unmatched=True, stacked_axes=0)"
    assert repr(labels) == text
    assert pickle.loads(pickle.dumps(labels)) == copy.deepcopy(labels) == eval(text) == labels
    assert hash(labels) == hash(eval(text))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"a": "x"},), r"labels\['a'\] must be a list of at least one"),
        (({"a": []},), "at least one regular expression"),
        (({1: ["x"]},), "labels must be text, got 1"),
        ((["x"],), "labels must map labels to lists"),
        (({},), "labels must map labels to lists"),
        (({"a": ["("]},), "labels must map to regular expressions, got '\\('"),
        (({"a": ["x"]}, 3), "rest must be a label, which is text, or None, got 3"),
    ],
    ids=["text", "empty", "number", "list", "nothing", "pattern", "rest"],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        path_labels(*arguments)
    with pytest.raises(TypeError, match="did you mean 'rest'"):
        path_labels({"a": ["x"]}, rset="b")
