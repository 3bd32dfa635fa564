"""Looking for what is not finite: which leaves the report names, and when a run counts as stalled."""

import functools

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import optax_ext
from optax_ext.loss_scaling import _diagnostics

BAD = [1.0, np.nan, np.inf, -np.inf, np.nan, np.nan]
PARAMS = {"dense": {"bias": jnp.ones(2), "kernel": jnp.ones((2, 3), jnp.float16)}}
GRADS = {"dense": {"bias": jnp.ones(2), "kernel": jnp.array(BAD, jnp.float16).reshape(2, 3)}}


def make(**options):
    return optax_ext.dynamic_loss_scaling(optax.sgd(0.1, momentum=0.9), **{"initial_scale": 4.0, **options})


def skip(tx, params, grads, times):
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(times):
        _, state = update(grads, state, params)
    return state


class TestReport:
    def test_names_paths_and_counts_in_the_order_of_the_tree(self):
        tree = {"b": {"kernel": jnp.array(BAD).reshape(2, 3), "bias": jnp.zeros(3)}, "a": [jnp.ones(2), jnp.inf]}
        report = optax_ext.nonfinite_leaves(tree)
        assert list(report.items()) == [("a/1", (0, 1, 1)), ("b/kernel", (3, 2, 6))]
        assert report["b/kernel"] == optax_ext.NonfiniteCounts(nan=3, inf=2, size=6)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float8_e5m2", "complex64"])
    def test_counts_in_every_type(self, dtype):
        leaf = jnp.array(BAD).astype(dtype)
        for same in (leaf, np.asarray(leaf), leaf.reshape(3, 1, 2)):
            assert optax_ext.nonfinite_leaves(same) == {"": (3, 2, 6)}
        assert optax_ext.nonfinite_leaves(jnp.ones(3, dtype)) == {}

    def test_a_complex_number_is_nan_before_it_is_infinite(self):
        leaf = jnp.array([complex(np.inf, np.nan), complex(0, -np.inf), complex(np.nan, 0), 1j])
        assert optax_ext.nonfinite_leaves([leaf]) == {"0": (2, 1, 4)}

    def test_what_holds_no_numbers_is_passed_over(self):
        tree = {
            "none": None,
            "masked": optax.MaskedNode(),
            "integer": jnp.array([3]),
            "bool": jnp.array([True]),
            "key": jax.random.key(0),
            "float0": np.zeros(2, jax.dtypes.float0),
            "empty": jnp.ones((0, 2)),
            "no_rows": jnp.ones((2, 0), jnp.float16),
            "function": jax.nn.relu,
            "text": "nan",
        }
        assert optax_ext.nonfinite_leaves(tree) == {}
        assert optax_ext.nonfinite_leaves({**tree, "scalar": np.float32("nan"), "float": -np.inf}) == {
            "float": (0, 1, 1),
            "scalar": (1, 0, 1),
        }
        for empty in ({}, (), None):
            assert optax_ext.nonfinite_leaves(empty) == {}

    def test_large_float64_numbers_of_numpy_are_finite(self):
        assert optax_ext.nonfinite_leaves([np.array([1e300, np.inf]), 1e300]) == {"0": (0, 1, 2)}

    def test_paths_are_those_of_masks(self):
        linear = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        grads = nnx.grad(lambda model: jnp.nan * model(jnp.ones((1, 2))).sum())(linear)
        assert optax_ext.nonfinite_leaves(grads) == {"bias": (3, 0, 3), "kernel": (6, 0, 6)}
        module = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
        assert optax_ext.nonfinite_leaves(module) == {}
        module = eqx.tree_at(lambda m: m.layers[0].bias, module, jnp.full(4, jnp.nan))
        assert optax_ext.nonfinite_leaves(module) == {"layers/0/bias": (4, 0, 4)}

    @pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
    def test_sharded_leaves_are_counted_whole(self, kind):
        mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind, kind))
        leaf = np.ones((8, 6), np.float32)
        leaf[[0, 3, 7], [5, 0, 2]] = np.nan, np.inf, np.nan
        specs = {"both": P("data", "model"), "rows": P("data"), "whole": P()}
        tree = {name: jax.device_put(leaf, NamedSharding(mesh, spec)) for name, spec in specs.items()}
        assert optax_ext.nonfinite_leaves({**tree, "host": leaf}) == dict.fromkeys(
            ("both", "host", "rows", "whole"), (2, 1, 48)
        )

    def test_compiles_once_for_a_structure_and_brings_one_array_to_the_host(self, monkeypatch):
        tree = {"a": jnp.ones((3, 5)), "b": jnp.ones(7)}
        seen = []

        def count(leaves):
            seen.append(_count(leaves))
            return seen[-1]

        _count = _diagnostics._count
        optax_ext.nonfinite_leaves(tree)
        compiled = _count._cache_size()
        monkeypatch.setattr(_diagnostics, "_count", count)
        bad = optax_ext.nonfinite_leaves({**tree, "a": tree["a"] * jnp.nan})
        assert bad == {"a": (15, 0, 15)}
        assert _count._cache_size() == compiled
        assert [(counts.shape, counts.dtype) for counts in seen] == [((2, 2), np.int64)]  # 2**32 NaN are not 0

    @pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.vmap])
    def test_traced_values_are_refused(self, transform):
        def fun(x):
            optax_ext.nonfinite_leaves({"conv": {"kernel": x}, "bias": np.ones(2)})
            return x

        message = "must be called outside of jit, grad and vmap, on arrays .* got a traced value at 'conv/kernel'"
        with pytest.raises(TypeError, match=message):
            transform(fun)(jnp.ones(3) if transform is jax.vmap else 1.0)

    def test_runs_with_checks_on(self):
        tree = {"w": jnp.array(BAD, jnp.bfloat16)}
        with jax.debug_nans(True), jax.debug_infs(True), jax.numpy_dtype_promotion("strict"), jax.checking_leaks():
            assert optax_ext.nonfinite_leaves(tree) == {"w": (3, 2, 6)}
        with jax.enable_x64(True):
            assert optax_ext.nonfinite_leaves(jnp.array(BAD)) == {"": (3, 2, 6)}
        assert not jax.config.jax_enable_x64


class TestStall:
    def test_names_the_scale_the_skips_and_the_paths(self):
        state = skip(make(), PARAMS, GRADS, 7)
        message = (
            r"^stalled: 7 updates in a row were skipped, and the loss scale is 1.0. "
            r"Non-finite gradients: dense/kernel \(3 NaN, 2 infinite, of 6\). "
            r"Look at the batch, the loss, and nonfinite_leaves of parameters and statistics.$"
        )
        with pytest.raises(FloatingPointError, match=message):
            optax_ext.raise_if_stalled(state, GRADS, max_consecutive_skips=7)
        with pytest.raises(FloatingPointError, match="Give the gradients as well"):
            optax_ext.raise_if_stalled(state, max_consecutive_skips=7)

    def test_names_five_paths_and_how_many_more(self):
        grads = {f"layer{index}": jnp.array([jnp.inf]) for index in range(8)}
        state = skip(make(), grads, grads, 1)
        with pytest.raises(FloatingPointError) as error:
            optax_ext.raise_if_stalled(state, grads, max_consecutive_skips=1)
        assert "layer4 (0 NaN, 1 infinite, of 1) and 3 more." in str(error.value)
        assert "layer5" not in str(error.value)
        with pytest.raises(FloatingPointError) as error:
            optax_ext.raise_if_stalled(state, dict(list(grads.items())[:5]), max_consecutive_skips=1)
        assert "more" not in str(error.value)

    def test_comes_at_the_limit_and_not_before(self):
        tx = make()
        optax_ext.raise_if_stalled(skip(tx, PARAMS, GRADS, 49), GRADS)
        with pytest.raises(FloatingPointError, match="50 updates in a row"):
            optax_ext.raise_if_stalled(skip(tx, PARAMS, GRADS, 50), GRADS)

    def test_a_finite_step_ends_it(self):
        tx = make()
        state = skip(tx, PARAMS, GRADS, 9)
        _, state = tx.update(PARAMS, state, PARAMS)
        optax_ext.raise_if_stalled(state, max_consecutive_skips=1)

    def test_a_scale_that_comes_down_from_far_too_large_is_no_stall(self):
        """As long as there is a smaller scale to try: float16 gradients of 4 bear scales up to 8192."""
        tx = make(initial_scale=2.0**40)
        params = jnp.ones(2, jnp.float16)
        state, step = tx.init(params), jax.jit(lambda state: tx.update(4 * params * state.loss_scale, state, params)[1])
        for _ in range(40):
            state = step(state)
            optax_ext.raise_if_stalled(state)
        assert bool(state.grads_finite)

    def test_gradients_that_overflow_only_in_their_parameters_dtype_are_said_to_be_finite(self):
        params, grads = jnp.ones(2, jnp.bfloat16), jnp.full(2, 3.4e38)
        state = skip(make(initial_scale=1.0), params, grads, 3)
        with pytest.raises(FloatingPointError, match="gradients given are finite: .* overflow in the dtype of their"):
            optax_ext.raise_if_stalled(state, grads, max_consecutive_skips=3)
        as_checked = optax_ext.unscale(grads, state).astype(params.dtype)
        with pytest.raises(FloatingPointError, match=r"\(0 NaN, 2 infinite, of 2\)"):
            optax_ext.raise_if_stalled(state, as_checked, max_consecutive_skips=3)

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda tx: optax.chain(optax.identity(), optax.chain(tx)),
            lambda tx: optax.MultiSteps(tx, 1).gradient_transformation(),
            lambda tx: optax.inject_hyperparams(lambda initial_scale: make(initial_scale=initial_scale))(4.0),
        ],
    )
    def test_finds_the_state_at_any_depth(self, wrap):
        state = skip(wrap(make()), PARAMS, GRADS, 2)
        optax_ext.raise_if_stalled(state, max_consecutive_skips=3)
        with pytest.raises(FloatingPointError, match="2 updates"):
            optax_ext.raise_if_stalled(state, max_consecutive_skips=2)

    def test_reads_a_state_of_numpy_and_a_fixed_scale(self):
        tx = optax_ext.fixed_loss_scaling(optax.sgd(0.1), 128.0)
        state = jax.tree.map(np.asarray, skip(tx, PARAMS, GRADS, 2))
        with pytest.raises(FloatingPointError, match="2 updates in a row were skipped, and the loss scale is 128.0"):
            optax_ext.raise_if_stalled(state, max_consecutive_skips=np.int64(2))

    def test_reads_replicated_states_and_stacked_ones(self):
        tx = make()
        mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
        replicated = jax.device_put(skip(tx, PARAMS, GRADS, 2), NamedSharding(mesh, P()))
        with pytest.raises(FloatingPointError, match="2 updates"):
            optax_ext.raise_if_stalled(replicated, max_consecutive_skips=2)
        params = jnp.ones((3, 2))
        runs = params.at[1, 0].set(jnp.nan)
        stacked, update = jax.vmap(tx.init)(params), jax.jit(jax.vmap(tx.update))
        for _ in range(2):
            _, stacked = update(runs, stacked, params)
        optax_ext.raise_if_stalled(stacked, runs, max_consecutive_skips=3)
        message = r"2 updates in a row were skipped, and the loss scale is 1.0.* \(1 NaN, 0 infinite, of 6\)"
        with pytest.raises(FloatingPointError, match=message):
            optax_ext.raise_if_stalled(stacked, runs, max_consecutive_skips=2)

    def test_looks_at_no_gradient_of_a_healthy_run(self, monkeypatch):
        monkeypatch.setattr(_diagnostics, "nonfinite_leaves", lambda tree: pytest.fail("gradients were looked at"))
        optax_ext.raise_if_stalled(make().init(PARAMS), GRADS)

    def test_a_state_without_one_scale_is_refused(self):
        with pytest.raises(ValueError, match="must hold one LossScaleState, got 0: wrap the optimizer in"):
            optax_ext.raise_if_stalled(optax.sgd(0.1).init(PARAMS))
        with pytest.raises(ValueError, match=r"one LossScaleState, got 2, at opt_state\[0\], opt_state\[1\]: give"):
            optax_ext.raise_if_stalled(optax.chain(make(), make()).init(PARAMS))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (optax_ext.skip_bad_steps(optax.sgd(0.1)), "got a transformation, GradientTransformationExtraArgs: call"),
            (PARAMS, "without any of Optax's states: parameters"),
        ],
    )
    def test_what_is_no_optimizer_state_is_said(self, given, message):
        with pytest.raises(TypeError, match=message):
            optax_ext.raise_if_stalled(given)

    def test_updates_that_would_be_non_finite_are_among_the_causes(self):
        tx = optax_ext.dynamic_loss_scaling(optax.scale(1e38), initial_scale=1.0, check_updates=True)
        _, state = tx.update(jnp.full(2, 1e3), tx.init(jnp.ones(2)), jnp.ones(2))
        with pytest.raises(FloatingPointError, match="or check_updates found non-finite updates made of them"):
            optax_ext.raise_if_stalled(state, jnp.full(2, 1e3), max_consecutive_skips=1)

    @pytest.mark.parametrize(
        ("limit", "accepted"),
        [
            *((0, "greater than 0"), (-1, "greater than 0")),
            *((limit, "an integer") for limit in (2.5, True, "50", None, float("inf"))),
        ],
    )
    def test_a_bad_limit_is_named(self, limit, accepted):
        with pytest.raises(ValueError, match=f"max_consecutive_skips must be {accepted}, got {limit!r}"):
            optax_ext.raise_if_stalled(make().init(PARAMS), max_consecutive_skips=limit)

    def test_a_traced_state_is_refused(self):
        with pytest.raises(TypeError, match="raise_if_stalled must be called outside of jit"):
            jax.jit(optax_ext.raise_if_stalled)(make().init(PARAMS))


def test_the_offenders_of_a_skip_are_found_again_from_the_same_batch():
    """The way to a report when the compiled step returns no gradients, and donates what it is given."""
    tx, params = make(), {"scale": jnp.ones(2), "kernel": jnp.ones((2, 2))}

    def loss_fn(params, batch):
        return jnp.sum(params["scale"] * 0.5) + jnp.sum(batch @ params["kernel"])

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, batch):
        _, grads = optax_ext.value_and_grad(loss_fn, state)(params, batch)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    batch = jnp.array([[1.0, jnp.inf]])
    params, state = step(params, tx.init(params), batch)
    chex.assert_trees_all_equal(params, {"scale": jnp.ones(2), "kernel": jnp.ones((2, 2))})
    assert not state.grads_finite
    _, grads = optax_ext.value_and_grad(loss_fn, state)(params, batch)
    assert optax_ext.nonfinite_leaves(grads) == {"kernel": (0, 2, 4)}


def test_a_batch_of_text_and_leaves_on_several_devices():
    first, second = (jax.device_put(jnp.array([np.nan, 1.0]), device) for device in jax.devices()[:2])
    batch = {"id": np.array(["a"]), "date": np.array(["2026-01-01"], "datetime64[D]"), "x": first, "y": second}
    assert optax_ext.nonfinite_leaves(batch) == {"x": (1, 0, 2), "y": (1, 0, 2)}
