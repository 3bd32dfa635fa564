"""The trust ratio: its formula, its precision, and where it is 1."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext


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
