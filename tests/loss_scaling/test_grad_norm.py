"""The norm that comes with the finite check: of numbers of any size, of parts on devices, and of what is read."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import optax_ext
from optax_ext._core import remat
from optax_ext.loss_scaling._grad_norm import finite_and_norm
from optax_ext.loss_scaling._precision import unscale_by
from tests.marks import slow_unless

FLOAT32_MAX = np.finfo(np.float32).max


def check(scale, leaves):
    return finite_and_norm(scale, leaves, unscale_by(scale, leaves))


def check_elsewhere(scale, leaves):
    """Check as on a GPU."""
    token = remat._platform.set("cuda")
    try:
        return check(scale, leaves)
    finally:
        remat._platform.reset(token)


compiled = jax.jit(check)
forms = pytest.mark.parametrize(
    "check", [check, compiled, jax.jit(check_elsewhere)], ids=["eager", "compiled", "elsewhere"]
)


def norm_of(check, leaves, scale=None):
    finite, norm = check(scale, leaves)
    assert (finite.dtype, norm.dtype, norm.shape) == (bool, np.float32, ())
    return bool(finite), float(norm)


@forms
@pytest.mark.parametrize("size", [1.0, 1e-12, 1.1e-19, 1e-30, 1e-37, 1e20, 1e30, 1e38])
@pytest.mark.parametrize(
    "scale", slow_unless(lambda scale: scale in (None, 2.0**-3, 2.0**127), [None, 1.0, 2.0**15, 2.0**-3, 2.0**127])
)
def test_numbers_of_any_size(check, size, scale):
    numbers = np.float32(size) * np.array([[3.0, 0.0], [-2.0, 1.0]], np.float32)
    leaves = [jnp.array(numbers), jnp.array([np.float32(size)])]
    expected = np.sqrt(15.0) * np.float64(np.float32(size)) / (scale or 1.0)
    scale = None if scale is None else jnp.float32(scale)
    finite, norm = norm_of(check, leaves, scale)
    with np.errstate(over="ignore"):
        assert finite == np.isfinite(numbers / np.float32(1 if scale is None else scale)).all()
        expected = min(expected, FLOAT32_MAX)
    if not finite:
        assert norm == np.inf
    elif expected > 2.0**-120 and (
        size > 2.0**-63 or "elsewhere" not in check.__name__
    ):  # of smaller ones XLA makes zero
        np.testing.assert_allclose(norm, expected, rtol=1e-6)


@forms
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_number_makes_it_infinite(check, bad):
    for scale in (None, jnp.float32(8.0), jnp.float32(0.5)):
        assert norm_of(check, [jnp.ones(3), jnp.array([1.0, bad])], scale) == (False, np.inf)


@forms
def test_a_norm_of_finite_numbers_is_finite(check):
    assert norm_of(check, [jnp.full(5000, FLOAT32_MAX)]) == (True, FLOAT32_MAX)


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("scale", [None, 1.0, 0.5])
def test_finite_is_what_a_bfloat16_parameter_can_hold(elsewhere, scale):
    param, factor = jnp.ones(3, jnp.bfloat16), scale or 1.0
    token = remat._platform.set("cuda" if elsewhere else None)
    try:
        check = jax.jit(lambda leaves: finite_and_norm(scale, leaves, unscale_by(scale, leaves, [param])))
        for number, expected in ((1.0, True), (3.38e38, True), (FLOAT32_MAX, False), (np.nan, False)):
            finite, norm = check([jnp.full(3, number * factor, jnp.float32)])
            assert (bool(finite), bool(np.isfinite(norm))) == (expected,) * 2 or (elsewhere and factor < 1 < number)
    finally:
        remat._platform.reset(token)


@forms
@pytest.mark.parametrize("scale", [None, 8.0, 0.5])
def test_float64_numbers_past_the_largest_float32_are_finite(check, scale):
    with jax.enable_x64(True):
        scale = None if scale is None else jnp.float32(scale)
        for leaves in ([np.full(2, 1e70), np.ones(3, np.float32)], [np.full(2, 1e70)]):
            leaves = [*map(jnp.asarray, leaves)]
            assert norm_of(check, leaves, scale) == (True, FLOAT32_MAX)
            for index, leaf in enumerate(leaves):
                bad = [*leaves[:index], leaf.at[1].set(jnp.nan), *leaves[index + 1 :]]
                assert norm_of(check, bad, scale) == (False, np.inf)


@pytest.mark.parametrize("scale", [None, 0.5])
def test_elsewhere_each_leaf_is_judged_in_its_own_dtype(scale):
    """A float32 leaf whose numbers overflow when unscaled, beside a bfloat16 parameter and parts on devices."""
    specs = {"whole": P(), "split": P("a"), "narrow": P("b")}
    params = {"narrow": jnp.ones(8, jnp.bfloat16)}

    def check(tree):
        unscaled = unscale_by(scale, tree, {name: params.get(name, leaf) for name, leaf in tree.items()})
        return finite_and_norm(None if scale is None else jnp.float32(scale), tree, unscaled, ("a", "b"))

    token = remat._platform.set("cuda")
    try:
        mapped = jax.jit(jax.shard_map(check, mesh=MESH, in_specs=(specs,), out_specs=P()))
        tree = {name: np.ones(8, np.float32) for name in specs}
        finite, norm = mapped(tree)
        assert finite
        np.testing.assert_allclose(norm, np.sqrt(24) / (scale or 1), rtol=1e-6)
        for name in specs:
            for number in (np.nan, FLOAT32_MAX):
                bad = {**tree, name: np.where(np.arange(8) == 5, np.float32(number), tree[name])}
                expected = number == FLOAT32_MAX and scale is None and name != "narrow"
                assert bool(mapped(bad)[0]) == expected, (name, number)
    finally:
        remat._platform.reset(token)


@forms
def test_of_nothing_and_of_zeros(check):
    assert norm_of(check, []) == norm_of(check, [jnp.zeros(3), jnp.ones((0, 2))]) == (True, 0.0)
    assert norm_of(check, [jnp.arange(3), jnp.array([3.0 - 4.0j])], jnp.float32(2.0))[1] == 2.5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e5m2"])
def test_of_narrow_numbers_in_float32(dtype):
    leaf = jnp.full(4096, 48.0, dtype)
    assert norm_of(compiled, [leaf], jnp.float32(8.0)) == (True, 64 * 48.0 / 8)


MESH = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
TREE = {
    "whole": np.linspace(1, 2, 8),
    "split": np.linspace(-3, 1, 8),
    "both": np.linspace(0, 5, 8),
    "zero": np.zeros(8),
}
SPECS = {"whole": P(), "split": P("a"), "both": P(("a", "b")), "zero": P("b")}
WHOLE_NORM = np.sqrt(sum(np.sum(leaf**2) for leaf in TREE.values()))


def on_devices(axis_name, factor=1.0, check_vma=True, specs=SPECS):
    def check(tree):
        finite, norm = finite_and_norm(None, tree, tree, axis_name)
        return finite[None], norm[None]

    everywhere = P(("a", "b"))
    mapped = jax.shard_map(check, mesh=MESH, in_specs=(specs,), out_specs=(everywhere,) * 2, check_vma=check_vma)
    finite, norms = jax.jit(mapped)({name: jnp.float32(factor * leaf) for name, leaf in TREE.items()})
    return np.asarray(finite), np.asarray(norms)


@pytest.mark.parametrize("factor", [1.0, 1e30, 1e-30])
def test_of_parts_and_copies_on_devices(factor):
    finite, norms = on_devices(("a", "b"), factor)
    assert finite.all()
    np.testing.assert_allclose(norms, factor * WHOLE_NORM, rtol=1e-6)
    assert len(set(norms.tolist())) == 1


def test_of_copies_alone_on_devices():
    for check_vma in (True, False):
        _, norms = on_devices(("a", "b"), check_vma=check_vma, specs=dict.fromkeys(SPECS, P()))
        np.testing.assert_allclose(norms, WHOLE_NORM, rtol=1e-6)


def test_without_types_each_part_counts_as_a_copy():
    _, norms = on_devices(("a", "b"), check_vma=False, specs=dict.fromkeys(SPECS, P(("a", "b"))))
    np.testing.assert_allclose(norms, WHOLE_NORM / np.sqrt(8), rtol=1e-6)
    assert len(set(norms.tolist())) == 1


def test_in_pmap_and_a_mapped_axis_of_copies():
    for transform in (jax.pmap, jax.vmap):
        finite, norms = transform(lambda x: finite_and_norm(None, [x], [x], "i"), axis_name="i")(jnp.ones((8, 4)))
        assert finite.all()
        np.testing.assert_allclose(norms, 2.0, rtol=1e-6)


@pytest.mark.parametrize("check_vma", [True, False])
def test_a_non_finite_part_makes_it_infinite_on_all_devices(check_vma):
    bad = {name: leaf.copy() for name, leaf in TREE.items()}
    bad["both"][5] = np.nan

    def check(tree):
        finite, norm = finite_and_norm(None, tree, tree, ("a", "b"))
        return finite, norm

    mapped = jax.shard_map(check, mesh=MESH, in_specs=(SPECS,), out_specs=P(), check_vma=check_vma)
    finite, norm = jax.jit(mapped)(jax.tree.map(jnp.float32, bad))
    assert (bool(finite), float(norm)) == (False, np.inf)


def test_under_jit_it_is_of_whole_arrays():
    tree = {name: jax.device_put(jnp.float32(leaf), NamedSharding(MESH, SPECS[name])) for name, leaf in TREE.items()}
    _, norm = jax.jit(lambda tree: finite_and_norm(None, tree, tree))(tree)
    np.testing.assert_allclose(norm, WHOLE_NORM, rtol=1e-6)


# In the state of loss scaling.

PARAMS = {"kernel": jnp.ones((2, 2)), "frozen": jnp.ones(3)}
GRADS = {"kernel": jnp.full((2, 2), 16.0), "frozen": jnp.full(3, 8.0)}


def freeze(inner):
    return optax.partition({"train": inner, "frozen": optax.set_to_zero()}, {"kernel": "train", "frozen": "frozen"})


@pytest.mark.parametrize("wrap", [optax_ext.dynamic_loss_scaling, optax_ext.fixed_loss_scaling])
def test_the_state_has_the_norm_of_unscaled_gradients(wrap):
    options = {"initial_scale": 8.0} if wrap is optax_ext.dynamic_loss_scaling else {"scale": 8.0}
    tx = wrap(optax.sgd(0.1), **options)
    state = tx.init(PARAMS)
    assert (float(state.grad_norm), bool(state.last_step_counted)) == (0.0, True)
    for update in (tx.update, jax.jit(tx.update)):
        _, after = update(GRADS, state, PARAMS)
        np.testing.assert_allclose(after.grad_norm, np.sqrt(4 * 2**2 + 3), rtol=1e-6)
        assert (after.grad_norm.dtype, after.grad_norm.weak_type) == (np.float32, False)
        assert (after.last_step_counted.dtype, bool(after.last_step_counted)) == (bool, True)
        _, after = update({**GRADS, "kernel": GRADS["kernel"].at[0, 0].set(jnp.nan)}, after, PARAMS)
        assert (float(after.grad_norm), bool(after.last_step_counted)) == (np.inf, False)


def test_gradients_that_nothing_reads_do_not_count():
    tx = optax_ext.dynamic_loss_scaling(freeze(optax.sgd(0.1)), initial_scale=8.0)
    _, after = jax.jit(tx.update)(GRADS, tx.init(PARAMS), PARAMS)
    assert after.grad_norm == 4.0


def test_a_skipped_step_whose_counts_go_on_is_counted():
    tx = optax_ext.dynamic_loss_scaling(optax.adam(0.1), count_skipped_steps=True)
    _, after = tx.update(jax.tree.map(lambda g: g * jnp.nan, GRADS), tx.init(PARAMS), PARAMS)
    assert (bool(after.grads_finite), bool(after.last_step_counted)) == (False, True)
    tx = optax_ext.fixed_loss_scaling(optax.adam(0.1), 8.0, skip_nonfinite=False)
    _, after = tx.update(jax.tree.map(lambda g: g * jnp.nan, GRADS), tx.init(PARAMS), PARAMS)
    assert (bool(after.grads_finite), bool(after.last_step_counted), int(after.skipped_steps)) == (False, True, 0)


def test_a_compiled_step_that_skips_is_quiet_under_nan_checks():
    tx = optax_ext.dynamic_loss_scaling(optax.adam(0.1))
    with jax.debug_nans(True):
        _, after = jax.jit(tx.update)({**GRADS, "kernel": np.full((2, 2), np.nan, np.float32)}, tx.init(PARAMS), PARAMS)
    assert after.grad_norm == np.inf


def test_a_derivative_at_zero_gradients_is_finite():
    tx = optax_ext.skip_bad_steps(optax.sgd(0.1, momentum=0.9), max_norm_ratio=2.0)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)

    def total(grads):
        updates, state = tx.update(grads, tx.init(PARAMS), PARAMS)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(updates)) + state.grad_norm + state.average_norm

    for gradient in jax.tree.leaves(jax.jit(jax.grad(total))(zeros)):
        np.testing.assert_allclose(gradient, -0.1, rtol=1e-6)
