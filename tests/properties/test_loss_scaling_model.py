"""Any sequence of finite and non-finite gradients, in any leaf, against a model in plain Python."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import given, settings
from hypothesis import strategies as st

import optax_ext

DTYPES = ("float32", "float16", "bfloat16")


def model(finite_steps, scale, growth_steps, multiplier, min_scale, max_scale, hysteresis):
    """The rule, written once more: yields scale, counter, skipped and consecutive skips after each step."""
    counter = skipped = consecutive = 0
    for finite in finite_steps:
        if finite:
            counter, consecutive = counter + 1, 0
            if counter >= growth_steps:
                counter = 0
                scale = scale * multiplier if scale * multiplier <= max_scale else scale
        else:
            counter, skipped, consecutive = 0, skipped + 1, consecutive + 1
            if consecutive >= hysteresis:
                scale = max(scale / multiplier, min_scale)
        yield scale, counter, skipped, consecutive


@st.composite
def options(draw):
    low, start, high = sorted(draw(st.lists(st.integers(-10, 40), min_size=3, max_size=3)))
    return {
        "initial_scale": 2.0**start,
        "min_scale": 2.0**low,
        "max_scale": 2.0**high,
        "growth_steps": draw(st.integers(1, 4)),
        "multiplier": draw(st.sampled_from([2.0, 4.0])),
        "hysteresis": draw(st.integers(1, 3)),
    }


@settings(max_examples=60, deadline=None)
@given(
    options=options(),
    faults=st.lists(st.none() | st.tuples(st.integers(0, 2), st.sampled_from([np.nan, np.inf, -np.inf])), max_size=12),
    dtypes=st.tuples(*[st.sampled_from(DTYPES)] * 3),
)
def test_scale_counters_and_skips_are_those_of_the_model(options, faults, dtypes):
    tx = optax_ext.dynamic_loss_scaling(optax.sgd(0.5, momentum=0.9), **options)
    params = [jnp.ones(2, dtypes[0]), jnp.ones((1, 2), dtypes[1]), jnp.ones([], dtypes[2])]
    state = tx.init(params)
    initial = options.pop("initial_scale")
    expected = model([fault is None for fault in faults], initial, **options)
    for fault, (scale, counter, skipped, consecutive) in zip(faults, expected, strict=True):
        grads = [jnp.full_like(p, 0.5, jnp.float32) * state.loss_scale for p in params]
        if fault is not None:
            grads[fault[0]] = grads[fault[0]].at[...].set(fault[1])
        before = state
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        assert (float(state.loss_scale), int(state.counter)) == (scale, counter)
        assert (int(state.skipped_steps), int(state.consecutive_skips)) == (skipped, consecutive)
        assert bool(state.grads_finite) is (fault is None)
        chex.assert_tree_all_finite(params)
        if fault is not None:
            chex.assert_trees_all_equal(state.inner_state, before.inner_state)
            assert not any(leaf.any() for leaf in jax.tree.leaves(updates))
