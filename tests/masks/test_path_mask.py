"""Masks by path: what a path is, what a pattern chooses, and what it says when it chooses nothing."""

import copy
import dataclasses
import functools
import inspect
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import optax_ext
from optax_ext import path_mask

PARAMS = {"conv1": {"kernel": 1.0, "bias": 0.0}, "BatchNorm_0": {"scale": 1.0, "bias": 0.0}}


def chosen(mask, params):
    leaves = jax.tree_util.tree_leaves_with_path(mask(params))
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path, is_chosen in leaves if is_chosen}


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (None, None, {"conv1/kernel", "conv1/bias", "BatchNorm_0/scale", "BatchNorm_0/bias"}),
        (None, ["bias", "BatchNorm"], {"conv1/kernel"}),
        (None, [], {"conv1/kernel", "conv1/bias", "BatchNorm_0/scale", "BatchNorm_0/bias"}),
        (["conv"], None, {"conv1/kernel", "conv1/bias"}),
        (["conv"], ["bias"], {"conv1/kernel"}),
        (["kernel$", "^Batch.*/bias"], None, {"conv1/kernel", "BatchNorm_0/bias"}),
        ([], None, set()),
        (("conv1/k",), (), {"conv1/kernel"}),
    ],
)
def test_patterns_choose(include, exclude, expected):
    assert chosen(optax_ext.path_mask(include=include, exclude=exclude), PARAMS) == expected


def test_a_pattern_that_matches_nothing_is_named_with_the_nearest_paths():
    mask = optax_ext.path_mask(exclude=["bias", "batch_norm"])
    with pytest.raises(ValueError, match=r"'bais' matches none.*'kernels' matches none"):
        optax_ext.path_mask(include=["bais"], exclude=["kernels", "bias"])(PARAMS)
    with pytest.raises(
        ValueError, match=r"'batch_norm' matches none of the 4 parameters, of which the nearest are 'BatchNorm_0"
    ):
        mask(PARAMS)
    assert chosen(optax_ext.path_mask(exclude=["bias", "batch_norm"], allow_unmatched=True), PARAMS) == {
        "conv1/kernel",
        "BatchNorm_0/scale",
    }
    with pytest.raises(ValueError, match="'kernels' matches none"):
        optax_ext.lars(0.1, weight_decay_mask=optax_ext.path_mask(include=["kernels"])).init(PARAMS)


def test_a_tree_without_parameters_has_nothing_to_match():
    assert optax_ext.path_mask(exclude=["bias"])({}) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exclude": "bias"}, "exclude must be a list of regular expressions, got 'bias'"),
        (
            {"exclude": (pattern for pattern in ["bias"])},
            "exclude must be a list of regular expressions, got <generator",
        ),
        ({"exclude": ""}, "exclude must be a list of regular expressions, got ''"),
        ({"exclude": 5}, "exclude must be a list of regular expressions, got 5"),
        ({"allow_unmatched": "no"}, "allow_unmatched must be True or False, got 'no'"),
        ({"include": [b"bias"]}, "include must be a list of regular expressions"),
        ({"include": ["(bias"]}, r"include must hold regular expressions, got '\(bias'"),
    ],
)
def test_bad_patterns_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        optax_ext.path_mask(**arguments)


class TestValue:
    """A mask is a frozen value."""

    def test_masks_of_the_same_patterns_are_equal(self):
        first, second = path_mask(exclude=["bias", "scale"]), path_mask(exclude=("bias", "scale"), include=None)
        assert first == second
        assert hash(first) == hash(second)
        others = [
            path_mask(exclude=["scale", "bias"]),
            path_mask(include=["bias", "scale"]),
            path_mask(exclude=["bias", "scale"], allow_unmatched=True),
            path_mask(exclude=["bias", "scale"], include=[]),
        ]
        assert first not in others
        assert path_mask() == path_mask(exclude=[])

    @pytest.mark.parametrize(
        ("mask", "text"),
        [
            (path_mask(), "path_mask()"),
            (path_mask(exclude=["bias"]), "path_mask(exclude=['bias'])"),
            (
                path_mask(include=[], exclude=("a", "b"), allow_unmatched=True),
                "path_mask(include=[], exclude=['a', 'b'], allow_unmatched=True)",
            ),
        ],
    )
    def test_its_text_makes_it_again(self, mask, text):
        assert repr(mask) == text
        assert eval(text) == mask

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda mask: pickle.loads(pickle.dumps(mask))])
    def test_a_copy_is_equal_and_works(self, copied):
        mask = path_mask(exclude=["bias", "BatchNorm"])
        chosen(mask, PARAMS)
        assert copied(mask) == mask
        assert chosen(copied(mask), PARAMS) == {"conv1/kernel"}

    def test_it_is_frozen_and_checked(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            path_mask().exclude = ("bias",)  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(ValueError, match=r"exclude must hold regular expressions, got '\(bias'"):
            dataclasses.replace(path_mask(), exclude=("(bias",))

    def test_equal_masks_compile_once(self):
        traces = []

        @functools.partial(jax.jit, static_argnums=0)
        def count(mask, params):
            traces.append(mask)
            return jax.tree.map(lambda keep, leaf: leaf * keep, mask(params), params)

        count(path_mask(exclude=["bias", "BatchNorm"]), PARAMS)
        count(path_mask(exclude=["bias", "BatchNorm"]), PARAMS)
        assert len(traces) == 1


@pytest.mark.parametrize("arguments", [(["bias"],), (["conv"], ["bias"]), (None,)])
def test_patterns_without_a_keyword_are_refused(arguments):
    with pytest.raises(
        TypeError, match=r"by keyword, got .*: write include=\[\.\.\.\] .* exclude=\[\.\.\.\] for those"
    ):
        optax_ext.path_mask(*arguments)


def test_the_signature_says_keywords():
    parameters = inspect.signature(optax_ext.path_mask).parameters
    assert list(parameters) == ["include", "exclude", "allow_unmatched", "stacked_axes"]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())


@pytest.mark.parametrize("make", [optax_ext.lars, optax.lars], ids=["lars", "optax.lars"])
@pytest.mark.parametrize("transform", [lambda function: function, jax.jit], ids=["eager", "jit"])
def test_a_mask_that_is_taken_for_a_schedule_says_so(make, transform):
    mask = optax_ext.path_mask(exclude=["bias"], allow_unmatched=True)
    names = ("weight_decay_mask", "trust_ratio_mask")
    tx = optax.inject_hyperparams(make)(0.1, weight_decay_mask=mask, trust_ratio_mask=mask)
    with pytest.raises(ValueError, match=r'step count: .* static_args=\("weight_decay_mask", "trust_ratio_mask"\)'):
        transform(tx.init)({"bias": jnp.ones(2)})
    tx = optax.inject_hyperparams(make, static_args=names)(0.1, weight_decay_mask=mask, trust_ratio_mask=mask)
    transform(tx.init)({"bias": jnp.ones(2)})


@pytest.mark.parametrize("param", [jnp.float32(1.0), 1.0, np.ones(2), jnp.arange(2), None])
def test_a_parameter_without_a_path_is_no_step(param):
    assert optax_ext.path_mask(exclude=["bias"], allow_unmatched=True)(param) is True


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda rate: optax_ext.lars(rate), "learning_rate"),
        (lambda rate: optax_ext.lars(0.1, weight_decay=rate), "weight_decay"),
        (lambda rate: optax_ext.lamb(rate), "learning_rate"),
        (lambda rate: optax_ext.lamb(0.1, weight_decay=rate), "weight_decay"),
    ],
)
def test_a_class_is_no_schedule(make, name):
    message = rf"{name} must be a schedule, got the class CosineDecay: construct it, CosineDecay\(\.\.\.\)"
    with pytest.raises(ValueError, match=message):
        make(optax_ext.CosineDecay)
    make(optax_ext.CosineDecay(0.1, 10))
    make(lambda step: 0.1)


def test_holes_count_as_matches():
    mask = optax_ext.path_mask(exclude=["bias", "scale"])
    holes = {"conv1": {"kernel": 1.0, "bias": None}, "BatchNorm_0": {"scale": optax.MaskedNode()}}
    assert mask(holes) == {"conv1": {"kernel": True, "bias": False}, "BatchNorm_0": {"scale": False}}
    tx = optax_ext.lars(0.1, weight_decay=0.1, weight_decay_mask=mask)
    params = {"conv1": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}, "BatchNorm_0": {"scale": jnp.ones(2)}}
    updates, _ = tx.update({**params, "conv1": {"kernel": jnp.ones(2), "bias": None}}, tx.init(params), params)
    assert updates["conv1"]["bias"] is None
    outer = optax.masked(tx, {"conv1": {"kernel": True, "bias": False}, "BatchNorm_0": {"scale": True}})
    outer.update(params, outer.init(params), params)


@dataclasses.dataclass
class Layer:
    kernel: jax.Array
    bias: jax.Array


jax.tree_util.register_dataclass(Layer)


class LinenModel(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2, name="dense")(x)


class BoxedModel(linen.Module):
    @linen.compact
    def __call__(self, x):
        named = linen.with_partitioning(linen.initializers.ones, (None, None))
        return linen.Dense(2, name="dense", kernel_init=named)(x)


class NNXModel(nnx.Module):
    def __init__(self):
        self.dense = nnx.Linear(3, 2, rngs=nnx.Rngs(0))


class EquinoxModel(eqx.Module):
    dense: Layer

    def __init__(self):
        self.dense = Layer(jnp.ones((3, 2)), jnp.ones(2))


MODELS = {
    "dict": lambda: {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}},
    "linen": lambda: LinenModel().init(jax.random.key(0), jnp.ones((1, 3)))["params"],
    "nnx state": lambda: nnx.state(NNXModel(), nnx.Param),
    "nnx pure dict": lambda: nnx.to_pure_dict(nnx.state(NNXModel(), nnx.Param)),
    "linen with axis names": lambda: BoxedModel().init(jax.random.key(0), jnp.ones((1, 3)))["params"],
    "equinox": EquinoxModel,
    "dataclass": lambda: {"dense": Layer(jnp.ones((3, 2)), jnp.ones(2))},
}


@pytest.mark.parametrize("model", MODELS)
def test_paths_read_alike_in_every_framework(model):
    params = MODELS[model]()
    mask = optax_ext.path_mask(exclude=["^dense/bias$"])
    kept = jax.tree.leaves(jax.tree.map(lambda keep, leaf: leaf if keep else None, mask(params), params))
    assert [leaf.shape for leaf in kept] == [(3, 2)]
    tx = optax_ext.lars(0.1, weight_decay=0.5, weight_decay_mask=mask, trust_ratio_mask=mask)
    grads = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(grads, tx.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    zeros = [not leaf.any() for leaf in jax.tree.leaves(updates)]
    assert sorted(zeros) == [False, True]  # the kernel decays, the bias has nothing to move it


def test_paths_of_sequences_are_numbered():
    assert chosen(optax_ext.path_mask(include=["^layers/1/"]), {"layers": [(1.0, 2.0), (3.0,)]}) == {"layers/1/0"}


def test_an_array_of_patterns_is_a_list():
    assert path_mask(exclude=np.array(["bias"])) == path_mask(exclude=["bias"])


UNSTACKED = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}, "scale": 1.0}
STACKED = {"blocks": {"kernel": jnp.ones((5, 3, 2)), "bias": jnp.ones((5, 2))}, "head": jnp.ones((3, 2))}


class TestRanks:
    def test_a_pattern_of_ranks_matches_parameters_with_few_axes(self):
        assert chosen(path_mask(exclude=["rank <= 1"]), UNSTACKED) == {"dense/kernel"}
        assert chosen(path_mask(include=["rank<=0", "kernel"]), UNSTACKED) == {"dense/kernel", "scale"}

    def test_stacked_axes_do_not_count(self):
        mask = path_mask(exclude=["rank <= 1"], stacked_axes=optax_ext.path_axes({"^blocks/": 0}))
        assert chosen(path_mask(exclude=["rank <= 1"], allow_unmatched=True), STACKED) == {
            *("blocks/kernel", "blocks/bias", "head")
        }
        assert chosen(mask, STACKED) == {"blocks/kernel", "head"}
        assert eval(repr(mask), {**globals(), "path_axes": optax_ext.path_axes}) == mask

    @pytest.mark.parametrize("make", [optax_ext.lars, optax_ext.lamb])
    def test_lars_and_lamb_tell_their_masks_what_is_stacked(self, make):
        mask = path_mask(exclude=["rank <= 1"])
        tx = make(
            1.0,
            weight_decay=0.5,
            weight_decay_mask=mask,
            trust_ratio_mask=mask,
            stacked_axes={"blocks": 0, "head": None},
        )
        updates, _ = tx.update(jax.tree.map(jnp.zeros_like, STACKED), tx.init(STACKED), STACKED)
        np.testing.assert_array_equal(updates["blocks"]["bias"], 0)
        assert (updates["blocks"]["kernel"] != 0).all()
        tx = make(1.0, trust_ratio_mask=mask, stacked_axes={"blocks": 0, "head": None}, record=True)
        ratios = optax.tree.get(tx.init(STACKED), "trust_ratio")
        assert isinstance(ratios["blocks"]["bias"], optax.MaskedNode)

    def test_its_own_stacked_axes_stay(self):
        own = path_mask(exclude=["rank <= 1"], stacked_axes=0)
        assert own.with_stacked_axes(1) is own
        by_paths = path_mask(exclude=["bias"])
        assert by_paths.with_stacked_axes(1) is by_paths

    def test_holes_and_boxes_have_a_rank_or_any(self):
        holes = {"dense": {"kernel": jnp.ones((3, 2)), "bias": None}, "scale": optax.MaskedNode()}
        mask = path_mask(exclude=["rank <= 1"])(holes)
        assert mask == {"dense": {"kernel": True, "bias": False}, "scale": False}
        state = nnx.State({"kernel": nnx.Param(jnp.ones((3, 2))), "bias": nnx.Param(jnp.ones(2))})
        assert dict(path_mask(exclude=["rank <= 1"])(state)) == {"kernel": True, "bias": False}

    def test_where_no_rank_is_as_low_the_error_tells_which_there_are(self):
        with pytest.raises(ValueError, match="'rank <= 0' matches none of the 3 parameters, whose ranks are '2', '3'"):
            path_mask(exclude=["rank <= 0"])(STACKED)

    @pytest.mark.parametrize("wrong", ["rank < 2", "rank <= one", "rank == 1", "rank <= -1", "bias|rank <= 1"])
    def test_other_comparisons_are_refused(self, wrong):
        with pytest.raises(ValueError, match="exclude must hold .*a pattern of ranks is written 'rank <= 1'"):
            path_mask(exclude=[wrong])
