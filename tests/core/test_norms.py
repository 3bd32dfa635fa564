"""Norms: of many leaves, of magnitudes, of what overflows, and with a derivative of 0 at 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from optax_ext._core import remat
from optax_ext._core.norms import norms, reduce_over, root, sum_of_squares

LEAVES = [jnp.array([1.0, -2.0]), jnp.array([[2.0]]), jnp.array(4.0)]


def test_a_norm_is_of_all_leaves_of_its_group():
    np.testing.assert_allclose(norms(LEAVES, LEAVES[:2]), [5.0, 3.0], rtol=1e-6)
    np.testing.assert_allclose(norms(LEAVES, LEAVES[:2], may_overflow=False), [5.0, 3.0], rtol=1e-6)


def test_one_group_that_overflows_does_not_touch_the_other():
    for number in (1e20, 1e38):
        large, tiny = norms([jnp.full(4, number)], [jnp.full(4, 1e-12)])
        np.testing.assert_allclose((large, tiny), (2 * number, 2e-12), rtol=1e-6)
    (squared,) = norms([jnp.full(4, 1e20)], may_overflow=False)
    assert np.isinf(squared)


@pytest.mark.parametrize(("dtype", "expected"), [("float16", 4000.0), ("bfloat16", 4000.0), ("complex64", 4000.0)])
def test_the_sum_is_in_at_least_float32(dtype, expected):
    (norm,) = norms([jnp.full(400, 200.0, dtype)])
    assert norm.dtype == jnp.float32
    np.testing.assert_allclose(norm, expected, rtol=1e-6)


def test_in_64_bits_large_numbers_are_not_rounded():
    with jax.enable_x64(True):
        (norm,) = norms([jnp.full(4, 1e160, jnp.float64)])
        np.testing.assert_allclose(norm, 2e160, rtol=1e-15)


def test_a_factor_comes_before_the_square():
    np.testing.assert_array_equal(sum_of_squares([jnp.full(2, 2.0**80)], 2.0**-80), 2.0)
    np.testing.assert_array_equal(sum_of_squares([jnp.array([3 + 4j]), jnp.array([2.0])]), 29.0)


def test_the_root_is_real_and_its_derivative_is_finite_at_zero():
    assert root(jnp.array(9 + 0j)).dtype == jnp.float32
    assert root(jnp.array(9 + 0j)) == 3
    assert jax.grad(root)(4.0) == 0.25
    assert jax.grad(root)(0.0) == 0
    np.testing.assert_array_equal(jax.grad(lambda leaf: norms([leaf])[0])(jnp.zeros(2)), 0)


def test_what_a_mesh_holds_counts_over_all_the_axes_named():
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)

    def sums(axis_name):
        def add(x):
            return reduce_over(jax.lax.psum, x.sum(), axis_name)[None]

        mapped = jax.shard_map(add, mesh=mesh, in_specs=P(("a", "b")), out_specs=P(("a", "b")))
        return np.asarray(mapped(jnp.arange(8.0))).tolist()

    def norm_of(x):
        return norms([x], axis_name=("a", "b"))[0]

    for number in (1.0, 1e20):
        norm = jax.shard_map(norm_of, mesh=mesh, in_specs=P(("a", "b")), out_specs=P())(jnp.full(8, number))
        np.testing.assert_allclose(norm, 8**0.5 * number, rtol=1e-6)
    assert sums(None) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert sums("b") == [1, 1, 5, 5, 9, 9, 13, 13]
    assert sums(("a", "b")) == [28] * 8


def test_norms_of_large_numbers_are_taken_on_every_platform():
    def norm_of(platform, leaf):
        token = remat._platform.set(platform)
        try:
            return jax.jit(lambda leaf: norms([leaf], [2 * leaf]))(leaf)
        finally:
            remat._platform.reset(token)

    for leaf in (jnp.full(4, 1e20), jnp.full(4, 1e-3), jnp.array([1e20, 1e-3]), jnp.full(4, 1e20 + 1e20j)):
        for platform in ("cpu", "default"):
            first, second = norm_of(platform, leaf)
            expected = np.linalg.norm(np.asarray(leaf, np.complex128))
            np.testing.assert_allclose([first, second], [expected, 2 * expected], rtol=1e-6)
    assert not np.isfinite(norm_of("default", jnp.array([1e20, jnp.inf]))[0])
