"""Any sequence of norms, finite or not, under `skip_bad_steps`, against a model in NumPy: alone and in a scale."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import optax_ext
from tests.properties.test_loss_scaling_model import is_finite, to_bytes
from tests.properties.test_loss_scaling_model import model as scale_model

f32 = np.float32
SCALING = {"initial_scale": f32(8), "min_scale": f32(0.5), "max_scale": f32(2**20), "growth_steps": 2}
SCALING |= {"multiplier": f32(2), "hysteresis": 1}
PLACES = ("alone", "dynamic", "fixed", "opaque")  # the last is a loss scale that does not see what is inside


def model(step, norm, o):
    """The rule, written once more: average, weight, applied, skipped, and skipped in a row, after one more step."""
    average, weight, applied, skipped, in_a_row = step
    limit = (
        o["max_norm_ratio"] * average if o["max_norm_ratio"] and applied >= o["warmup_steps"] and average else np.inf
    )
    if not np.isfinite(norm) or norm > limit:
        return average, weight, applied, skipped + 1, in_a_row + 1
    total = o["norm_decay"] * average * weight + (1 - o["norm_decay"]) * norm
    weight = o["norm_decay"] * weight + (1 - o["norm_decay"])
    return total / weight, weight, applied + 1, skipped, 0


def is_close_to_the_limit(step, norm, o):
    """Whether float32 may decide the other way."""
    return bool(o["max_norm_ratio"]) and np.isclose(norm, o["max_norm_ratio"] * step[0], rtol=1e-4)


INNER = optax.chain(optax.clip(10.0), optax.adamw(0.1), optax_ext.params_ema(0.9, initial="params"))
PARAMS = {
    "w": jnp.ones(2),
    "narrow": jnp.ones(2, jnp.bfloat16),
    "table": jnp.arange(2),
    "half": jnp.ones((), "float16"),
}


def make_grads(norm, leaf, scale):
    """Return gradients of a norm, all of it in one number of one leaf, which makes it exact."""
    grads = {"w": np.zeros(2, f32), "narrow": np.zeros(2, f32), "table": np.zeros(2, jax.dtypes.float0), "half": f32(0)}
    number = f32(norm) * f32(scale)
    return grads | {leaf: number if leaf == "half" else np.array([0, number], f32)}


def wrap(place, options):
    guarded = optax_ext.skip_bad_steps(INNER, **options)
    if place == "alone":
        return guarded
    if place == "fixed":
        return optax_ext.fixed_loss_scaling(guarded, 8.0, skip_nonfinite=False)
    inner = guarded if place == "dynamic" else optax.GradientTransformationExtraArgs(*guarded)
    return optax_ext.dynamic_loss_scaling(inner, **SCALING)


@partial(jax.jit, static_argnums=(0, 1))  # with traced options, so that few programs serve all
def compiled_update(place, has_ratio, options, grads, state, params):
    updates, state = wrap(place, {**options, **({} if has_ratio else {"max_norm_ratio": None})}).update(
        grads, state, params
    )
    return updates, state, optax.apply_updates(params, updates)


def check_sequence(place, options, sequence):
    params, state = PARAMS, wrap(place, options).init(PARAMS)
    step, scale_step = (0.0, 0.0, 0, 0, 0), (f32(8), 0, 0, 0, 0)
    skips = in_a_row = 0
    for norm, leaf in sequence:
        finite = bool(np.isfinite(norm))
        if is_close_to_the_limit(step, norm, options):
            return
        scale = 1.0 if place == "alone" else state.loss_scale.item()
        before, old_params, old_step = state, params, step
        traced = {name: f32(2 if value is None else value) for name, value in options.items()}
        traced["warmup_steps"] = np.int32(options["warmup_steps"])
        has_ratio = options["max_norm_ratio"] is not None
        updates, state, params = compiled_update(place, has_ratio, traced, make_grads(norm, leaf, scale), state, params)
        if finite or place in ("alone", "fixed"):
            step = model(step, norm, options)
        applied = finite and step[2] > old_step[2]
        guard, old_guard = (state, before) if place == "alone" else (state.inner_state, before.inner_state)

        assert [guard.applied_steps, guard.skipped_steps, guard.consecutive_skips] == [*step[2:]]
        np.testing.assert_allclose([guard.average_norm, guard.average_weight], step[:2], rtol=1e-5)
        if finite or place in ("alone", "fixed"):
            assert (bool(guard.grads_finite), float(guard.grad_norm)) == (finite, norm if finite else np.inf)
        else:
            assert to_bytes(guard) == to_bytes(old_guard)
        assert is_finite((params, guard.inner_state))
        if not applied:
            assert to_bytes(guard.inner_state) == to_bytes(old_guard.inner_state)
            assert to_bytes(params) == to_bytes(old_params)
            assert not any(np.asarray(update).any() for update in jax.tree.leaves(updates))
        elif norm > 0:
            assert to_bytes(guard.inner_state) != to_bytes(old_guard.inner_state)
        if place == "alone":
            continue
        counted = not applied if place != "opaque" else not finite
        skips, in_a_row = skips + counted, in_a_row + 1 if counted else 0
        assert [state.skipped_steps, state.consecutive_skips] == [skips, in_a_row]
        assert (bool(state.grads_finite), float(state.grad_norm)) == (finite, norm if finite else np.inf)
        assert bool(state.last_step_counted) == (not counted)
        if place != "fixed":
            scale_step = scale_model(scale_step, finite, SCALING)
            assert [state.loss_scale, state.counter, state.skips_since_growth] == [*scale_step[:2], scale_step[4]]


norms = st.sampled_from([1.0, 1.0, 1.5, 0.75, 2.0, 0.0, 1e3, 1e6, 1e20, 1e-12, np.nan, np.inf, -np.inf])
norms = norms.map(lambda norm: float(f32(norm).astype(jnp.bfloat16)))
sequences = st.lists(st.tuples(norms, st.sampled_from(["w", "narrow", "half"])), min_size=1, max_size=12)
options = st.fixed_dictionaries(
    {
        "max_norm_ratio": st.sampled_from([None, 1.7, 3.3, 10.9, 900.0]),
        "norm_decay": st.sampled_from([0.0, 0.5, 0.9, 0.99]),
        "warmup_steps": st.integers(0, 4),
    }
)
places = st.sampled_from(PLACES)


@settings(max_examples=25)
@given(place=places, options=options, sequence=sequences)
def test_skips_and_averages_are_those_of_the_model(place, options, sequence):
    check_sequence(place, options, sequence)


@pytest.mark.slow
@settings(max_examples=20_000, derandomize=False, database=None)
@given(place=places, options=options, sequence=sequences)
def test_twenty_thousand_sequences(place, options, sequence):
    """`pytest -m slow tests/properties/test_skip_bad_steps_model.py`: new ones each time.

    They passed the last time, on Python 3.11 with JAX 0.10.2.
    """
    check_sequence(place, options, sequence)
