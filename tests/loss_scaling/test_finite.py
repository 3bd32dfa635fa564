"""Whether numbers are finite: in every type, in one leaf among many, before and after an update, on all devices."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import optax_ext
from optax_ext._core.remat import remat_scope, rematerializable
from optax_ext.loss_scaling._finite import agree, all_finite, all_finite_after
from optax_ext.loss_scaling._grad_norm import finite_and_norm

DTYPES = ["float8_e5m2", "float16", "bfloat16", "float32", "complex64"]
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@every_dtype
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_number_in_any_leaf_is_seen(dtype, bad):
    good = {"a": jnp.ones((2, 3), dtype), "b": jnp.zeros(4, dtype), "c": jnp.ones((), dtype)}
    assert all_finite(good)
    for name, leaf in good.items():
        assert not all_finite({**good, name: leaf.at[(-1,) * leaf.ndim].set(bad)})


@pytest.mark.parametrize("number", [1 + 1j * np.inf, np.inf + 1j, 1j * np.nan, complex(np.inf, -np.inf)])
def test_both_parts_of_a_complex_number_count(number):
    assert not all_finite(jnp.array([1j, number]))


@every_dtype
@pytest.mark.parametrize("sign", [1, -1])
def test_many_of_the_largest_numbers_are_finite(dtype, sign):
    largest = jnp.full(5000, sign * float(jnp.finfo(dtype).max), dtype)
    assert all_finite([largest, largest])


def test_in_64_bits_large_numbers_are_finite():
    with jax.enable_x64(True):
        assert all_finite(jnp.full(5000, np.finfo(np.float64).max))
        assert not all_finite(jnp.array([1.0, np.inf]))


def test_what_holds_no_inexact_numbers_is_finite():
    float0 = np.zeros(2, jax.dtypes.float0)
    assert all_finite({})
    assert all_finite(
        [None, optax.MaskedNode(), jnp.arange(3), jax.random.key(0), float0, jax.nn.relu, jnp.ones((0, 2))]
    )
    assert all_finite([1.5, 2j, 3])
    assert not all_finite([1, float("nan")])


@pytest.mark.parametrize("form", [lambda function: function, jax.jit])
@pytest.mark.parametrize(
    ("scale", "scaled", "expected"),
    [
        (8.0, 16.0, True),
        (8.0, np.nan, False),
        (8.0, np.inf, False),
        (8.0, 1e30, True),  # its square is infinite, and it is not
        (2.0**-4, 2.0**126, False),  # its square is infinite, and so is what it is divided to
        (2.0**-80, 2.0**60, False),  # its square is finite, and what it is divided to is not
    ],
)
def test_numbers_are_finite_if_they_are_so_unscaled(form, scale, scaled, expected):
    def is_finite(scale, scaled):
        return finite_and_norm(scale, scaled, [leaf / scale for leaf in scaled])[0]

    assert form(is_finite)(jnp.float32(scale), [jnp.ones(3), jnp.array([1.0, scaled], jnp.float32)]) == expected


@pytest.mark.parametrize(("update", "finite"), [(100.0, True), (10_000.0, False), (np.nan, False)])
def test_after_an_update_a_float16_parameter_is_finite_in_its_own_dtype(update, finite):
    params = {
        "half": jnp.array([60_000.0], jnp.float16),
        "wide": jnp.ones(2),
        "table": jnp.arange(2),
        "none": jnp.ones(1),
    }
    updates = {"half": jnp.array([update]), "wide": jnp.ones(2), "table": jnp.full(2, np.inf), "none": None}
    assert all_finite_after(updates, params) == finite  # integers cannot be infinite, and None changes nothing
    assert all_finite_after({**updates, "table": None}, None) == np.isfinite(update)


def test_a_flag_is_agreed_upon_by_the_devices_of_the_axes_named():
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    flags = jnp.ones(8, bool).at[3].set(False)

    def agreed(axis_name):
        mapped = jax.shard_map(
            lambda flag: agree(flag[0], axis_name)[None], mesh=mesh, in_specs=P(("a", "b")), out_specs=P(("a", "b"))
        )
        return np.flatnonzero(~np.asarray(mapped(flags))).tolist()

    assert agreed(None) == [3]
    assert agreed("b") == [2, 3]
    assert agreed("a") == [1, 3, 5, 7]
    assert agreed(("a", "b")) == list(range(8))


@pytest.mark.parametrize(("dtype", "too_large"), [("float16", 65520), ("bfloat16", 2.0**128 - 2.0**119)])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("rounds", [True, False])
def test_finite_is_what_rounds_to_a_finite_parameter(dtype, too_large, sign, rounds):
    @jax.jit
    def is_finite(gradient):
        calls = iter([True, rounds])  # the second without rounding, as XLA may compute it: no check may rely on that
        with remat_scope():
            return all_finite([rematerializable(lambda x: x.astype(dtype) if next(calls) else x, gradient)])

    for number, finite in [
        (0, True),
        (jnp.finfo(dtype).tiny, True),
        (float(jnp.finfo(dtype).max), True),
        (np.nextafter(np.float32(too_large), np.float32(0)), True),
        (too_large, False),
        (np.finfo(np.float32).max, False),
        (np.inf, False),
        (np.nan, False),
    ]:
        gradient = jnp.asarray([1, sign * number], jnp.float32)
        narrow = gradient.astype(dtype)
        assert (is_finite(gradient), all_finite([narrow]), jnp.isfinite(narrow).all()) == (finite,) * 3, number


# XLA's flags for fast arithmetic allow it to assume that nothing is NaN or infinite.

FAST_MATH = """
    import itertools, jax, jax.numpy as jnp, numpy as np, optax, optax_ext

    assert jax.jit(lambda x: jnp.sum(x - x) == 0)(jnp.full(100, jnp.nan))  # so the flag is on

    for dtype in ("float32", "bfloat16", "float16"):
        params = {"a": jnp.ones((33, 5), dtype), "b": jnp.ones(7, "float32"), "c": jnp.ones((), dtype)}
        good = jax.tree.map(lambda p: np.full(p.shape, 0.5, p.dtype), params)
        for tx in (
            optax_ext.dynamic_loss_scaling(optax.adamw(0.1)),
            optax_ext.fixed_loss_scaling(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, 0.9)), 8.0),
        ):
            compiled = jax.jit(tx.update)
            _, state = compiled(good, tx.init(params), params)
            assert state.grads_finite
            for leaf, value in itertools.product(params, (np.nan, np.inf, -np.inf)):
                bad = {**good, leaf: good[leaf].copy()}
                bad[leaf][(-1,) * bad[leaf].ndim] = value
                for update in (compiled, tx.update):
                    updates, after = update(bad, state, params)
                    where = dtype, update, leaf, value
                    assert not after.grads_finite and int(after.skipped_steps) == 1, where
                    for zeros in jax.tree.leaves(updates):
                        assert not np.asarray(zeros, np.float32).any(), where
                    for new, old in zip(*map(jax.tree.leaves, (after.inner_state, state.inner_state))):
                        assert np.asarray(new).tobytes() == np.asarray(old).tobytes(), where
    print("all seen")
"""


@pytest.mark.skipif(jax.__version_info__ < (0, 10, 1), reason="older XLA keeps what is NaN with the flag alone")
def test_what_is_not_finite_is_seen_with_fast_arithmetic():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_enable_fast_math=true"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    root = Path(optax_ext.__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FAST_MATH)],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == "all seen", run.stderr[-2000:]
