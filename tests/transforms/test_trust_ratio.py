"""The trust ratio: its formula, its precision, and where it is 1."""

import functools
from types import MappingProxyType

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext.transforms import TrustRatioState


def scaled(update, param, **options):
    tx = optax_ext.scale_by_trust_ratio(**options)
    return tx.update(update, tx.init(param), param)[0]


def test_scales_each_leaf_to_its_parameter():
    params, updates = (
        {"a": jnp.array([3.0, 4.0]), "b": jnp.full(4, 2.0)},
        {"a": jnp.array([0.0, 10.0]), "b": jnp.ones(4)},
    )
    result = scaled(updates, params, trust_coefficient=0.5, eps=2.0)
    chex.assert_trees_all_close(result, {"a": jnp.array([0.0, 10 * 2.5 / 12]), "b": jnp.full(4, 2 / 4)}, rtol=1e-6)


@pytest.mark.parametrize("bad", [0.0, jnp.nan])
def test_is_one_where_a_norm_is_not_positive(bad):
    update = jnp.array([1.0, 2.0])
    chex.assert_trees_all_equal(scaled(update, jnp.full(2, bad)), update)
    chex.assert_trees_all_equal(scaled(jnp.full(2, bad), update), jnp.full(2, bad))
    chex.assert_trees_all_equal(scaled(jnp.zeros((0, 3)), jnp.zeros((0, 3))), jnp.zeros((0, 3)))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("gradient", [300.0, 1e-4])  # squares of which are past both ends of float16
def test_norms_of_low_precision_neither_overflow_nor_underflow(dtype, gradient):
    params, grads = jnp.full(1000, 0.5, dtype), jnp.full(1000, gradient, dtype)
    result = scaled(grads, params)
    assert result.dtype == dtype
    np.testing.assert_allclose(np.float32(result), 0.5, rtol=0.01)


def test_norms_of_complex_leaves_are_of_magnitudes():
    np.testing.assert_allclose(scaled(jnp.array([3 + 4j]), jnp.array([2j])), [2 * (3 + 4j) / 5], rtol=1e-6)


@pytest.mark.parametrize(("update", "param", "expected"), [("f2", "f4", "f4"), ("f4", "f2", "f4"), ("c8", "c8", "c8")])
def test_result_has_the_wider_dtype(update, param, expected):
    result = scaled(jnp.full(4, 2, update), jnp.ones(4, param))
    chex.assert_trees_all_close(result, jnp.ones(4, expected))
    assert result.dtype == expected


def test_norms_in_64_bits_stay_there():
    with jax.enable_x64(True):
        result = scaled(jnp.full(3, 1e-30, jnp.float64), jnp.full(3, 1e-30, jnp.float64))
        np.testing.assert_allclose(result, 1e-30, rtol=1e-12)


def test_none_stays_none():
    assert scaled({"a": None, "b": jnp.ones(2)}, {"a": jnp.ones(2), "b": jnp.ones(2)})["a"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trust_coefficient": -1.0}, "trust_coefficient must be greater than or equal to 0, got -1.0"),
        ({"eps": float("nan")}, "eps must be a finite number, got nan"),
        ({"eps": "1"}, "eps must be a number, got '1'"),
        ({"min_ratio": -1.0}, "min_ratio must be greater than or equal to 0, got -1.0"),
        ({"max_ratio": 0.0}, "max_ratio must be greater than 0, got 0.0"),
        ({"max_ratio": None}, "max_ratio must be a number, got None"),
        ({"min_ratio": 2.0, "max_ratio": 1.0}, "min_ratio must be at most max_ratio = 1.0, got 2.0"),
        ({"record": 1}, "record must be True or False, got 1"),
        ({"stacked_axes": 0.5}, "stacked_axes must be an axis"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        optax_ext.scale_by_trust_ratio(**arguments)


def test_parameters_are_required():
    tx = optax_ext.scale_by_trust_ratio()
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


@pytest.mark.parametrize("form", [lambda function: function, jax.jit])
@pytest.mark.parametrize(("update", "param"), [(1e20, 1.0), (1.0, 1e20), (3e37, 2e37), (1e20, 1e-10), (1e-10, 1e10)])
def test_norms_do_not_overflow_where_the_result_does_not(form, update, param):
    updates = {"large": jnp.full(3, update), "other": jnp.ones(4)}
    params = {"large": jnp.full(3, param), "other": jnp.ones(4)}
    result = form(lambda updates, params: scaled(updates, params))(updates, params)
    np.testing.assert_allclose(result["large"], param, rtol=1e-6)
    np.testing.assert_allclose(result["other"], 1.0)


POPULAR = functools.partial(optax_ext.lars, classic_momentum=False)


@pytest.mark.parametrize(("make", "expected"), [(optax_ext.lamb, 1.4), (optax_ext.lars, 1.2797), (POPULAR, 1.2797)])
def test_the_derivative_through_a_step_is_finite_where_a_norm_is_zero(make, expected):
    def loss(params):
        return jnp.sum((2 * params["w"] + params["b"] - 1) ** 2)

    def after_a_step(params):
        tx = make(0.1)
        updates, _ = tx.update(jax.grad(loss)(params), tx.init(params), params)
        return loss(optax.apply_updates(params, updates))

    derivative = jax.grad(after_a_step)({"w": jnp.ones(3), "b": jnp.zeros(3)})
    np.testing.assert_allclose(derivative["b"], expected, rtol=1e-4)
    assert np.isfinite(derivative["w"]).all()


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({}, [0.1, 1, 10]), ({"max_ratio": 5}, [0.1, 1, 5]), ({"min_ratio": 2.0, "max_ratio": 4.0}, [2, 2, 4])],
)
def test_the_ratio_is_held_in_its_limits_also_where_it_is_one(limits, expected):
    params = {"small": jnp.full(4, 0.1), "zero": jnp.zeros(4), "large": jnp.full(4, 10.0)}
    result = scaled(jax.tree.map(jnp.ones_like, params), params, **limits)
    np.testing.assert_allclose([result[name][0] for name in ("small", "zero", "large")], expected, rtol=1e-6)


def test_limits_may_be_traced():
    params, updates = jnp.full(4, 10.0), jnp.ones(4)
    tx = optax.inject_hyperparams(optax_ext.scale_by_trust_ratio)(max_ratio=lambda step: 2.0 + step)
    state = tx.init(params)
    for expected in (2.0, 3.0):
        result, state = jax.jit(tx.update)(updates, state, params)
        np.testing.assert_array_equal(result, expected)


LAYERS = jnp.array([1.0, 10.0, 100.0])


@pytest.mark.parametrize("form", [lambda function: function, jax.jit])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_each_stacked_layer_has_a_ratio_of_its_own(axis, form):
    params = {"stacked": jnp.moveaxis(jnp.ones((3, 2, 2)) * LAYERS[:, None, None], 0, axis), "one": jnp.full(4, 5.0)}
    updates = jax.tree.map(jnp.ones_like, params)

    def scale(stacked_axes):
        return form(lambda updates, params: scaled(updates, params, stacked_axes=stacked_axes))(updates, params)

    chex.assert_trees_all_close(scale({"stacked": axis, "one": None}), params, rtol=1e-6)
    as_one_layer = np.sqrt((1 + 100 + 10_000) / 3)
    np.testing.assert_allclose(scale(None)["stacked"], as_one_layer, rtol=1e-6)  # 58.03, for no layer the right one


def test_stacked_layers_apart_are_what_they_are_together():
    rng = np.random.default_rng(0)
    params, updates = (jnp.asarray(rng.normal(size=(2, 3, 5, 4)), jnp.float32) for _ in range(2))
    options = {"trust_coefficient": 0.3, "eps": 0.1, "min_ratio": 0.2, "max_ratio": 0.35}
    together = scaled(updates, params, stacked_axes=(0, 2), **options)
    for layer, head in np.ndindex(2, 5):
        apart = scaled(updates[layer, :, head], params[layer, :, head], **options)
        np.testing.assert_allclose(together[layer, :, head], apart, rtol=1e-6)


@pytest.mark.parametrize("form", [lambda function: function, jax.jit])
def test_a_layer_that_overflows_zero_or_nan_leaves_the_others_alone(form):
    params = jnp.ones((5, 3)) * jnp.array([1.0, 1e20, 0.0, 1.0, 2.0])[:, None]
    updates = jnp.ones((5, 3)) * jnp.array([1e20, 1.0, 1.0, jnp.nan, 1.0])[:, None]
    result = form(lambda updates, params: scaled(updates, params, stacked_axes=0))(updates, params)
    np.testing.assert_allclose(result[:, 0], [1.0, 1e20, 1.0, np.nan, 2.0], rtol=1e-6)


def test_the_derivative_is_finite_where_a_stacked_layer_is_zero():
    def total(params):
        return jnp.sum(scaled(jnp.ones((2, 2)), params, stacked_axes=0))

    np.testing.assert_allclose(jax.grad(total)(jnp.array([[0.0, 0.0], [3.0, 4.0]])), [[0, 0], [0.8485, 1.1314]], 1e-4)


@pytest.mark.parametrize("stacked_axes", [optax_ext.path_axes({"kernels": 0}), {"kernel": 0}, 2])
def test_axes_that_do_not_fit_are_found_by_init_and_by_update(stacked_axes):
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    tx = optax_ext.scale_by_trust_ratio(stacked_axes=stacked_axes)
    for call in (lambda: tx.init(params), lambda: tx.update(params, optax.EmptyState(), params)):
        with pytest.raises(ValueError, match=r"matches none|that the parameters extend|must have axis 2"):
            call()


class TestRecord:
    PARAMS = MappingProxyType({"stacked": jnp.ones((3, 4)) * LAYERS[:, None], "one": jnp.array([3.0, 4.0])})

    @pytest.mark.parametrize("form", [lambda function: function, jax.jit])
    def test_it_keeps_ratios_and_norms_of_the_last_step(self, form):
        params = {**self.PARAMS}
        tx = optax_ext.scale_by_trust_ratio(0.5, record=True, stacked_axes={"stacked": 0, "one": None})
        first = tx.init(params)
        chex.assert_trees_all_equal(first, jax.tree.map(jnp.zeros_like, first))
        _, state = form(tx.update)(jax.tree.map(jnp.ones_like, params), first, params)
        np.testing.assert_allclose(state.trust_ratio["stacked"], [0.5, 5.0, 50.0], rtol=1e-6)
        np.testing.assert_allclose(state.trust_ratio["one"], 0.5 * 5 / np.sqrt(2), rtol=1e-6)
        np.testing.assert_allclose(state.update_norm["stacked"], [2.0, 2.0, 2.0], rtol=1e-6)
        chex.assert_trees_all_equal_shapes_and_dtypes(first, state)

    def test_a_parameter_without_a_gradient_keeps_its_record_and_a_masked_one_has_none(self):
        params = {**self.PARAMS}
        tx = optax_ext.lars(0.1, record=True, trust_ratio_mask={"stacked": False, "one": True})
        _, state = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
        (record,) = [node for node in jax.tree.leaves(state, is_leaf=is_record) if is_record(node)]
        assert isinstance(record.trust_ratio["stacked"], optax.MaskedNode)
        _, state = tx.update({"stacked": jnp.ones((3, 4)), "one": None}, state, params)
        (after,) = [node for node in jax.tree.leaves(state, is_leaf=is_record) if is_record(node)]
        chex.assert_trees_all_equal(after, record)

    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
    @pytest.mark.parametrize("make", [optax_ext.lars, optax_ext.lamb])
    def test_it_is_float32_whatever_the_parameters_are(self, make, dtype):
        with jax.enable_x64(dtype == jnp.float64):
            params = jnp.ones(3, dtype)
            tx = make(0.1, record=True)
            state = tx.init(params)
            _, new_state = jax.jit(tx.update)(params, state, params)
            chex.assert_trees_all_equal_shapes_and_dtypes(state, new_state)
            (record,) = [node for node in jax.tree.leaves(new_state, is_leaf=is_record) if is_record(node)]
            assert record.trust_ratio.dtype == record.update_norm.dtype == jnp.float32

    def test_it_changes_no_update_and_without_it_there_is_no_state(self):
        params = {**self.PARAMS}
        updates = jax.tree.map(jnp.ones_like, params)
        chex.assert_trees_all_equal(scaled(updates, params, record=True), scaled(updates, params))
        assert jax.tree.leaves(optax_ext.scale_by_trust_ratio().init(params)) == []


def is_record(node):
    return isinstance(node, TrustRatioState)
