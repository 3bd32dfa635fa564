"""Skipping bad steps without a scale: non-finite ones, spikes, the average, and a loss scale around it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import optax_ext
from optax_ext import SkipBadStepsState, skip_bad_steps

PARAMS = {"kernel": jnp.array([[1.0, -2.0], [0.5, 4.0]]), "bias": jnp.array([1.0, 2.0])}
SCALE = 8.0
INNER = optax.adam(0.1)


def grads_of(norm, bad=None):
    """Return gradients of a norm, with a number of them replaced."""
    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, norm / np.sqrt(6.0)), PARAMS)
    return grads if bad is None else {**grads, "bias": grads["bias"].at[1].set(bad)}


def scaled(grads):
    return jax.tree.map(lambda grad: grad * scale, grads)


def to_bytes(tree):
    return [(str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


def run(tx, norms, params=PARAMS, compiled=True):
    """Return the states after each step, and the updates of the last."""
    update, state, states, updates = jax.jit(tx.update) if compiled else tx.update, tx.init(params), [], None
    for norm in norms:
        grads = grads_of(1.0, norm) if not np.isfinite(norm) else grads_of(norm)
        if isinstance(state, optax_ext.LossScaleState):
            grads = jax.tree.map(lambda grad, scale=state.loss_scale: grad * scale, grads)
        updates, state = update(grads, state, params)
        states.append(state)
    return states, updates


both_forms = pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])


# Without a ratio.


@both_forms
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_step_changes_nothing_inside(compiled, bad):
    tx = skip_bad_steps(INNER)
    update, state = jax.jit(tx.update) if compiled else tx.update, tx.init(PARAMS)
    _, state = update(grads_of(1.0), state, PARAMS)
    updates, after = update(grads_of(1.0, bad), state, PARAMS)
    assert not any(leaf.any() for leaf in updates.values())
    assert to_bytes(after.inner_state) == to_bytes(state.inner_state)
    assert (bool(after.grads_finite), int(after.skipped_steps), int(after.consecutive_skips)) == (False, 1, 1)
    assert (float(after.grad_norm), int(after.applied_steps)) == (np.inf, 1)
    assert to_bytes((after.average_norm, after.average_weight)) == to_bytes((state.average_norm, state.average_weight))
    _, after = update(grads_of(1.0), after, PARAMS)
    assert (bool(after.grads_finite), int(after.skipped_steps), int(after.consecutive_skips)) == (True, 1, 0)


@both_forms
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_applied_step_is_that_of_the_inner_transformation(compiled, dtype):
    params, grads = (jax.tree.map(lambda leaf: leaf.astype(dtype), tree) for tree in (PARAMS, grads_of(3.0)))
    form = jax.jit if compiled else lambda function: function
    tx = skip_bad_steps(INNER, max_norm_ratio=2.0)
    updates, state = form(tx.update)(grads, tx.init(params), params)
    expected, expected_state = form(INNER.update)(grads, INNER.init(params), params)
    assert to_bytes((updates, state.inner_state)) == to_bytes((expected, expected_state))


def test_the_state_has_one_shape_whatever_the_arguments():
    states = [
        skip_bad_steps(INNER).init(PARAMS),
        skip_bad_steps(INNER, max_norm_ratio=3.0, warmup_steps=0).init(PARAMS),
    ]
    states += [run(skip_bad_steps(INNER, max_norm_ratio=ratio), [1.0, np.nan])[0][-1] for ratio in (None, 2.0)]
    expected = ["bool", "int32", "int32", "float32", "float32", "float32", "int32"]
    for state in states:
        assert isinstance(state, SkipBadStepsState)
        own = [leaf for name, leaf in state._asdict().items() if name != "inner_state"]
        assert [str(leaf.dtype) for leaf in own] == expected
        assert not any(leaf.weak_type or leaf.shape for leaf in own)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, states[0])
    leaves = jax.tree.leaves(states[0])
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


def test_a_step_donates_its_state_and_is_traced_once():
    tx, traces = skip_bad_steps(optax_ext.lars(0.1), max_norm_ratio=2.0, warmup_steps=1), []

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, grads):
        traces.append(None)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.copy, PARAMS)
    state = tx.init(params)
    for norm in (1.0, np.nan, 100.0, 1.5):
        params, state = step(params, state, grads_of(1.0, norm) if np.isnan(norm) else grads_of(norm))
    assert (len(traces), int(state.skipped_steps)) == (1, 2)
    assert jax.tree.all(jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), params))


def test_without_params_and_with_extra_arguments():
    def update(updates, state, params=None, *, value, **extra_args):
        assert extra_args == {"other": "text"}
        return jax.tree.map(lambda grad: grad * value, updates), state

    tx = skip_bad_steps(optax.GradientTransformationExtraArgs(optax.init_empty_state, update), max_norm_ratio=2.0)
    updates, _ = tx.update(grads_of(1.0), tx.init(PARAMS), value=3.0, other="text")
    chex.assert_trees_all_close(updates, grads_of(3.0))


def test_leaves_of_all_kinds():
    params = {"half": jnp.ones(2, jnp.float16), "table": jnp.arange(2), "key": jax.random.key(0), "number": 0.5}
    grads = {
        "half": jnp.full(2, 3e-8, jnp.float16),  # squares of which are zero in float16
        "table": np.zeros(2, jax.dtypes.float0),
        "key": np.zeros((), jax.dtypes.float0),
        "number": 4.0,
    }
    tx = skip_bad_steps(optax_ext.lars(0.5, trust_ratio_mask=False, weight_decay_mask=False))
    updates, state = tx.update(grads, tx.init(params), params)
    assert not updates["table"].any()
    assert updates["half"].dtype == jnp.float32
    np.testing.assert_allclose(updates["half"], -0.5 * np.float32(np.float16(3e-8)), rtol=1e-6)
    np.testing.assert_allclose(state.grad_norm, 4.0, rtol=1e-6)


@both_forms
def test_gradients_that_nothing_reads_are_neither_checked_nor_counted(compiled):
    inner = optax.partition({"t": optax.sgd(1.0), "f": optax.set_to_zero()}, {"kernel": "t", "bias": "f"})
    tx = skip_bad_steps(inner, max_norm_ratio=2.0, warmup_steps=1)
    update, state = jax.jit(tx.update) if compiled else tx.update, tx.init(PARAMS)
    for frozen in (1.0, 1e6, np.nan):
        _, state = update({**grads_of(1.0), "bias": jnp.full(2, frozen)}, state, PARAMS)
        assert (int(state.skipped_steps), bool(state.grads_finite)) == (0, True)
        np.testing.assert_allclose((state.grad_norm, state.average_norm), np.sqrt(4 / 6), rtol=1e-6)


@both_forms
def test_updates_are_checked_if_told(compiled):
    inner = optax.stateless(lambda grads, params: jax.tree.map(lambda grad: grad * 1e38 * 1e2, grads))
    for check_updates in (False, True):
        tx = skip_bad_steps(inner, check_updates=check_updates)
        (state,), updates = run(tx, [6.0], compiled=compiled)
        assert bool(state.grads_finite) is not check_updates
        assert (int(state.skipped_steps), int(state.applied_steps)) == ((1, 0) if check_updates else (0, 1))
        assert bool(jnp.isfinite(updates["kernel"]).all()) is check_updates


# With a ratio.


@both_forms
def test_a_spike_is_skipped_after_the_warm_up_and_not_before(compiled):
    tx = skip_bad_steps(INNER, max_norm_ratio=4.0, warmup_steps=3)
    norms = [1.0, 1.0, 100.0, 1e6, 1.0, 100.0, 1.0]  # the average is about a third of 100 after the third
    states, _ = run(tx, norms, compiled=compiled)
    assert [int(state.skipped_steps) for state in states] == [0, 0, 0, 1, 1, 1, 1]
    assert [bool(state.grads_finite) for state in states] == [True] * 7
    np.testing.assert_allclose([state.grad_norm for state in states], norms, rtol=1e-6)
    assert to_bytes(states[3].inner_state) == to_bytes(states[2].inner_state)
    assert int(states[-1].applied_steps) == 6


def test_the_average_is_that_of_the_applied_steps_corrected_for_its_start():
    decay, norms = 0.8, [2.0, 1.0, np.nan, 3.0, 1e9, np.inf, 1.5]
    states, _ = run(skip_bad_steps(INNER, max_norm_ratio=4.0, norm_decay=decay, warmup_steps=1), norms)
    total = weight = 0.0
    for norm, state in zip(norms, states, strict=True):
        if norm in (2.0, 1.0, 3.0, 1.5):
            total, weight = decay * total + (1 - decay) * norm, decay * weight + (1 - decay)
        np.testing.assert_allclose((state.average_norm, state.average_weight), (total / weight, weight), rtol=1e-6)
    assert [int(state.consecutive_skips) for state in states] == [0, 0, 1, 0, 1, 2, 0]


def test_without_a_warm_up_the_first_step_is_not_judged_and_the_second_is():
    states, _ = run(skip_bad_steps(INNER, max_norm_ratio=2.0, warmup_steps=0), [np.nan, 1e9, 3e9, 1.0, 0.9e9])
    assert [int(state.skipped_steps) for state in states] == [1, 1, 2, 2, 2]


def test_nothing_is_judged_against_an_average_of_zero():
    states, _ = run(skip_bad_steps(INNER, max_norm_ratio=2.0, warmup_steps=0), [0.0, 0.0, 5.0, 11.0])
    assert [int(state.skipped_steps) for state in states] == [0, 0, 0, 1]


def test_a_norm_at_the_limit_is_applied():
    states, _ = run(skip_bad_steps(optax.sgd(1.0), max_norm_ratio=2.0, norm_decay=0.0, warmup_steps=0), [1.0, 2.0, 4.1])
    assert [int(state.skipped_steps) for state in states] == [0, 0, 1]


def test_the_largest_numbers_do_not_spoil_the_average():
    largest = {"kernel": jnp.full((2, 2), np.finfo(np.float32).max), "bias": jnp.ones(2)}
    tx = skip_bad_steps(optax.sgd(1.0), max_norm_ratio=2.0, warmup_steps=1)
    _, state = tx.update(largest, tx.init(PARAMS), PARAMS)
    assert (bool(state.grads_finite), float(state.average_norm)) == (True, np.finfo(np.float32).max)
    for _ in range(3):
        _, state = tx.update(grads_of(1.0), state, PARAMS)
    assert 0 < state.average_norm < np.finfo(np.float32).max


def test_a_spike_in_the_warm_up_fades_as_the_documentation_says():
    """One of 1000 times the norm, at the 51st step, raises the average by 1000 / 51, and by half of it 69 steps on."""
    states, _ = run(skip_bad_steps(optax.sgd(1.0), norm_decay=0.99), [1.0] * 50 + [1000.0] + [1.0] * 200)
    averages = [float(state.average_norm) for state in states]
    assert averages[49] == pytest.approx(1.0)
    assert averages[50] == pytest.approx(1 + 1000 / 51, rel=0.3)
    weights = [float(state.average_weight) for state in states]
    excess = [(average - 1) * weight for average, weight in zip(averages, weights, strict=True)]
    assert excess[50 + 69] / excess[50] == pytest.approx(0.5, rel=0.01)


def test_a_higher_level_is_never_learned_until_the_run_is_ended():
    tx = skip_bad_steps(INNER, max_norm_ratio=3.0, warmup_steps=2)
    states, _ = run(tx, [1.0] * 3 + [10.0] * 50)
    assert (int(states[-1].consecutive_skips), float(states[-1].average_norm)) == (50, pytest.approx(1.0))
    with pytest.raises(
        FloatingPointError, match=r"50 updates in a row were skipped\. .* norm of 10, with an average of 1 "
    ):
        optax_ext.raise_if_stalled(states[-1])
    optax_ext.raise_if_stalled(states[-2])


def test_the_usual_norm_is_rejected_after_a_phase_of_zero_gradients():
    """As the documentation says: the average falls by half in 69 steps, to a quarter of the usual norm in 138."""
    tx = skip_bad_steps(optax.sgd(1.0), max_norm_ratio=4.0)

    @jax.jit
    def train(state, norms):
        return jax.lax.scan(lambda state, norm: (tx.update(grads_of(norm), state, PARAMS)[1], None), state, norms)[0]

    usual = train(tx.init(PARAMS), jnp.full(900, 1.73))
    for zeros, skips in ((100, 0), (160, 20)):
        state = train(train(usual, jnp.zeros(zeros)), jnp.full(20, 1.73))
        assert int(state.consecutive_skips) == skips
    with pytest.raises(FloatingPointError, match=r"rejected their norm of 1\.73, with an average of 0\."):
        optax_ext.raise_if_stalled(state, max_consecutive_skips=20)


# A loss scale around it.


def scale(inner, **options):
    return optax_ext.dynamic_loss_scaling(inner, initial_scale=SCALE, growth_steps=3, **options)


GUARD = {"max_norm_ratio": 4.0, "norm_decay": 0.9, "warmup_steps": 1}
NORMS = [1.0, 2.0, np.nan, 100.0, 1.0, 1.0, np.inf, 1.0]


class Opaque(optax.GradientTransformationExtraArgs):
    """The same transformation, which a loss scale does not recognize."""


@both_forms
def test_in_a_scale_it_does_what_it_does_by_itself_in_one(compiled):
    guarded = skip_bad_steps(INNER, **GUARD)
    states, updates = run(scale(guarded), NORMS, compiled=compiled)
    others, expected = run(scale(Opaque(*guarded)), NORMS, compiled=compiled)
    chex.assert_trees_all_close(updates, expected, rtol=1e-5)
    for state, other in zip(states, others, strict=True):
        chex.assert_trees_all_close(state.inner_state, other.inner_state, rtol=1e-5)
        names = ("loss_scale", "counter", "grads_finite", "skips_since_growth", "grad_norm")
        assert [getattr(state, name) for name in names] == [getattr(other, name) for name in names]
    assert [int(state.skipped_steps) for state in states] == [0, 0, 1, 2, 2, 2, 3, 3]  # all of them
    assert [int(state.consecutive_skips) for state in states] == [0, 0, 1, 2, 0, 0, 1, 0]
    assert [int(other.skipped_steps) for other in others] == [0, 0, 1, 1, 1, 1, 2, 2]
    assert [bool(state.last_step_counted) for state in states] == [True, True, False, False, True, True, False, True]


def test_the_scale_counts_a_rejected_step_as_finite():
    states, _ = run(scale(skip_bad_steps(INNER, **GUARD)), [1.0, 1e3, 1e3, 1e3])
    assert [float(state.loss_scale) for state in states] == [8.0, 8.0, 16.0, 16.0]
    assert [int(state.counter) for state in states] == [1, 2, 0, 1]
    assert [int(state.skipped_steps) for state in states] == [0, 1, 2, 3]


@both_forms
def test_of_its_own_state_a_non_finite_step_changes_nothing_and_a_rejected_one_the_bookkeeping(compiled):
    (first, bad, rejected), _ = run(scale(skip_bad_steps(INNER, **GUARD)), [1.0, np.nan, 50.0])
    assert to_bytes(bad.inner_state) == to_bytes(first.inner_state)
    guard = rejected.inner_state
    assert to_bytes(guard.inner_state) == to_bytes(first.inner_state.inner_state)
    np.testing.assert_allclose(guard.grad_norm, rejected.grad_norm)
    assert (int(guard.skipped_steps), int(guard.consecutive_skips), int(guard.applied_steps)) == (1, 1, 1)
    assert to_bytes(guard.average_norm) == to_bytes(first.inner_state.average_norm)
    assert (int(rejected.skipped_steps), int(rejected.consecutive_skips), bool(rejected.grads_finite)) == (2, 2, True)


@both_forms
def test_a_fixed_scale_that_applies_everything_leaves_the_skip_to_it(compiled):
    tx = optax_ext.fixed_loss_scaling(skip_bad_steps(INNER, **GUARD), SCALE, skip_nonfinite=False)
    states, _ = run(tx, [1.0, np.nan, 50.0], compiled=compiled)
    assert [int(state.skipped_steps) for state in states] == [0, 1, 2]
    assert [int(state.inner_state.skipped_steps) for state in states] == [0, 1, 2]
    assert [bool(state.grads_finite) for state in states] == [True, False, True]
    for state in states[1:]:
        assert to_bytes(state.inner_state.inner_state) == to_bytes(states[0].inner_state.inner_state)


@pytest.mark.parametrize("outside", [False, True])
def test_whose_check_of_updates_it_is(outside):
    inner = optax.stateless(lambda grads, params: jax.tree.map(lambda grad: grad * 1e38 * 1e2, grads))
    tx = scale(skip_bad_steps(inner, check_updates=not outside), check_updates=outside)
    (state,), updates = run(tx, [6.0])
    assert not any(leaf.any() for leaf in updates.values())
    assert (int(state.skipped_steps), float(state.loss_scale)) == (1, SCALE / 2 if outside else SCALE)
    assert (bool(state.grads_finite), int(state.inner_state.skipped_steps)) == ((False, 0) if outside else (True, 1))


def test_counts_go_on_in_every_skip_if_told():
    states, _ = run(scale(skip_bad_steps(INNER, **GUARD), count_skipped_steps=True), [1.0, np.nan, 50.0])
    assert [int(state.inner_state.inner_state[0].count) for state in states] == [1, 2, 3]
    assert [int(state.inner_state.applied_steps) for state in states] == [1, 1, 1]
    assert all(state.last_step_counted for state in states)


def test_there_is_one_check_and_one_selection():
    """The compiled step does the arithmetic of a scale alone, but for some of scalars."""
    params = {"kernel": jnp.ones((64, 1024)), "bias": jnp.ones(1024)}
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)

    def cost(tx):
        analysis = jax.jit(tx.update).lower(shapes, tx.init(params), shapes).compile().cost_analysis()
        return analysis["bytes accessed"]

    plain = cost(scale(INNER))
    assert cost(scale(skip_bad_steps(INNER, **GUARD))) < plain + 4096
    assert cost(skip_bad_steps(INNER, **GUARD)) < plain + 4096
    assert cost(scale(Opaque(*skip_bad_steps(INNER, **GUARD)))) > plain + 4 * 64 * 1024


def test_a_changed_copy_in_a_scale_is_one_of_its_own():
    guard = skip_bad_steps(INNER, **GUARD)
    states, updates = run(scale(guard._replace(init=guard.init)), NORMS)
    expected_states, expected = run(scale(Opaque(*guard)), NORMS)
    chex.assert_trees_all_equal((states, updates), (expected_states, expected))


def test_deeper_inside_it_is_one_of_its_own():
    tx = scale(optax.chain(optax.identity(), skip_bad_steps(INNER, **GUARD)))
    states, _ = run(tx, [1.0, np.nan, 50.0])
    assert [int(state.skipped_steps) for state in states] == [0, 1, 1]
    assert [int(state.inner_state[1].skipped_steps) for state in states] == [0, 0, 1]


def test_master_weights_inside():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), PARAMS)
    inner = optax_ext.master_weights(optax.sgd(1e-4))
    for tx in (skip_bad_steps(inner), scale(skip_bad_steps(inner))):
        states, _ = run(tx, [1.0, np.nan, 1.0], params)
        state = states[-1].inner_state if isinstance(states[-1], optax_ext.LossScaleState) else states[-1]
        assert all(leaf.dtype == jnp.float32 for leaf in state.inner_state.master.values())
        expected = np.float32(params["bias"]) - 2 * 1e-4 / np.sqrt(6)
        np.testing.assert_allclose(state.inner_state.master["bias"], expected, rtol=1e-6)


@pytest.mark.parametrize("around", [lambda tx: tx, optax.chain], ids=["directly", "in a chain"])
def test_what_cannot_stand_inside_is_refused(around):
    with pytest.raises(ValueError, match=r"put loss scaling outside, dynamic_loss_scaling\(skip_bad_steps\(inner\)\)"):
        skip_bad_steps(around(scale(INNER))).init(PARAMS)
    with pytest.raises(ValueError, match="must not skip bad steps itself, got one with a SkipBadStepsState"):
        skip_bad_steps(around(skip_bad_steps(INNER))).init(PARAMS)
    with pytest.raises(ValueError, match="must not scale losses"):
        scale(skip_bad_steps(around(scale(INNER)))).init(PARAMS)


def test_a_state_of_another_layout_is_refused():
    tx = skip_bad_steps(INNER)
    with pytest.raises(ValueError, match=r"must be a SkipBadStepsState\(grads_finite, .* got dict\(a\): restore"):
        tx.update(grads_of(1.0), {"a": 1}, PARAMS)
    state = scale(INNER).init(PARAMS)
    with pytest.raises(ValueError, match=r"must be a SkipBadStepsState\(.*, got tuple\("):
        scale(tx).update(grads_of(1.0), state, PARAMS)


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_norm_ratio": 1.0}, "max_norm_ratio must be greater than 1, got 1.0"),
        ({"max_norm_ratio": np.nan}, "max_norm_ratio must be .*, got nan"),
        ({"max_norm_ratio": np.inf}, "max_norm_ratio must be .*, got inf"),
        ({"max_norm_ratio": "2"}, "max_norm_ratio must be .*, got '2'"),
        ({"norm_decay": 1.0}, "norm_decay must be less than 1, got 1.0"),
        ({"norm_decay": -0.1}, "norm_decay must be .* 0, got -0.1"),
        ({"warmup_steps": -1}, "warmup_steps must be .* 0, got -1"),
        ({"warmup_steps": 1.5}, "warmup_steps must be an integer, got 1.5"),
        ({"check_updates": 1}, "check_updates must be True or False, got 1"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        skip_bad_steps(INNER, **arguments)


def test_what_is_wrapped_is_a_transformation():
    with pytest.raises(ValueError, match=r"inner must be an optax.GradientTransformation"):
        skip_bad_steps(0.1)


def test_hyperparameters_can_be_injected():
    tx = optax.inject_hyperparams(skip_bad_steps)(inner=INNER, max_norm_ratio=4.0, norm_decay=0.9, warmup_steps=1)
    states, updates = run(tx, NORMS)
    expected_states, expected = run(skip_bad_steps(INNER, **GUARD), NORMS)
    chex.assert_trees_all_close(updates, expected)
    chex.assert_trees_all_close(states[-1].inner_state, expected_states[-1])
    changed = states[-1]._replace(hyperparams={**states[-1].hyperparams, "max_norm_ratio": jnp.float32(100.0)})
    _, after = jax.jit(tx.update)(grads_of(50.0), changed, PARAMS)
    assert int(after.inner_state.consecutive_skips) == 0
    with pytest.raises(FloatingPointError, match="1 updates in a row"):
        optax_ext.raise_if_stalled(states[2], max_consecutive_skips=1)


# Losses without a scale, and stalled runs.


def test_it_counts_as_no_scale():
    state = skip_bad_steps(INNER).init(PARAMS)
    with pytest.raises(ValueError, match="or pass missing_ok=True"):
        optax_ext.scale_loss(jnp.float32(1.0), state)
    assert optax_ext.scale_loss(jnp.float32(3.0), state, missing_ok=True) == 3.0
    state = scale(skip_bad_steps(INNER)).init(PARAMS)
    assert optax_ext.scale_loss(jnp.float32(3.0), state) == 3.0 * SCALE


def test_a_stalled_run_is_told_by_the_larger_count():
    tx = scale(skip_bad_steps(INNER, **GUARD))
    states, _ = run(tx, [1.0, np.nan, 50.0, 50.0])
    message = r"^stalled: 3 updates .* skipped, and the loss scale is 4.0. The last gradients are finite, and .* of 50,"
    with pytest.raises(FloatingPointError, match=message):
        optax_ext.raise_if_stalled(states[-1], max_consecutive_skips=3)
    optax_ext.raise_if_stalled(states[-1], max_consecutive_skips=4)
    states, _ = run(tx, [1.0, 50.0, np.nan])
    with pytest.raises(
        FloatingPointError, match=r"2 updates .* Non-finite gradients: bias \(1 NaN, 0 infinite, of 2\)"
    ):
        optax_ext.raise_if_stalled(states[-1], grads_of(1.0, np.nan), max_consecutive_skips=2)
    deep = scale(optax.chain(skip_bad_steps(INNER, **GUARD)))
    states, _ = run(deep, [1.0, 50.0, 50.0])
    with pytest.raises(FloatingPointError, match=r"2 updates .* the loss scale is 16.0.* of 50,"):
        optax_ext.raise_if_stalled(states[-1], max_consecutive_skips=2)
    alone, _ = run(skip_bad_steps(INNER), [np.nan])
    with pytest.raises(FloatingPointError, match=r"^stalled: 1 updates in a row were skipped\. Give the gradients"):
        optax_ext.raise_if_stalled(alone[-1], max_consecutive_skips=1)
    with pytest.raises(
        ValueError, match=r"must hold one SkipBadStepsState, got 2, at opt_state\[0\], .*: give the part"
    ):
        optax_ext.raise_if_stalled((alone[-1], alone[-1]))


# Sharded arrays.


def test_the_first_state_lies_with_the_parameters():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    params = jax.device_put({"kernel": jnp.ones((8, 2))}, NamedSharding(mesh, P("data")))
    for tx in (skip_bad_steps(INNER), scale(skip_bad_steps(INNER))):
        state = tx.init(params)
        assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(state))
