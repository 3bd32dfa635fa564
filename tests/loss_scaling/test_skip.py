"""The wrapper under every scale: what it asks, what it hands on, and what a scale makes of it."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext.loss_scaling._skip import skip_nonfinite_steps

PARAMS, GOOD, BAD = jnp.array([1.0, 2.0]), jnp.array([8.0, 16.0]), jnp.array([8.0, jnp.inf])
DEFAULTS = {"check_updates": False, "count_skipped_steps": False, "axis_name": None}


def wrapper(seen, inner=None, **options):
    """Wrap SGD; each step adds 1 to the scale, 10 to the counter and 100 to the skips, and notes what it is asked."""

    def adapt(state, finite, consecutive_skips):
        seen.append((float(state.loss_scale), bool(finite), int(consecutive_skips)))
        return state.loss_scale + 1, state.counter + 10, state.skips_since_growth + 100

    return skip_nonfinite_steps(inner or optax.sgd(1.0, momentum=0.5), 8.0, adapt, **{**DEFAULTS, **options})


def test_the_next_scale_is_made_of_the_state_before_and_of_what_was_found():
    seen = []
    tx = wrapper(seen)
    state = tx.init(PARAMS)
    for grads in (GOOD, BAD, BAD, GOOD):
        _, state = tx.update(grads, state, PARAMS)
    assert seen == [(8.0, True, 0), (9.0, False, 1), (10.0, False, 2), (11.0, True, 0)]
    assert (float(state.loss_scale), int(state.counter), int(state.skips_since_growth)) == (12.0, 40, 400)
    assert (int(state.skipped_steps), int(state.consecutive_skips), bool(state.grads_finite)) == (2, 0, True)


def test_gradients_are_divided_by_the_scale_of_the_state():
    tx = wrapper([])
    updates, state = tx.update(GOOD, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates, [-1.0, -2.0])
    updates, _ = tx.update(9 * PARAMS, state, PARAMS)
    np.testing.assert_array_equal(updates, [-1.5, -3.0])


def test_without_skipping_everything_is_applied_and_nothing_counts_as_skipped():
    seen = []
    tx = wrapper(seen, skip_nonfinite=False)
    updates, state = tx.update(BAD, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates, [-1.0, -np.inf])
    assert seen == [(8.0, False, 0)]
    assert (int(state.skipped_steps), bool(state.grads_finite)) == (0, False)


def test_the_inner_transformation_is_given_parameters_and_extra_arguments():
    def update(updates, state, params=None, *, value, **extra_args):
        return params + value, state

    inner = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    tx = wrapper([], inner)
    updates, _ = tx.update(GOOD, tx.init(PARAMS), PARAMS, value=3.0, other="text")
    np.testing.assert_array_equal(updates, [4.0, 5.0])


def test_the_first_state_can_be_donated():
    scale = jnp.float32(8.0)
    tx = skip_nonfinite_steps(optax.sgd(1.0), scale, lambda *_: None, **DEFAULTS)
    state = tx.init(PARAMS)
    assert state.loss_scale.unsafe_buffer_pointer() != scale.unsafe_buffer_pointer()
    numbers = [state.counter, state.skipped_steps, state.consecutive_skips, state.skips_since_growth]
    assert len({number.unsafe_buffer_pointer() for number in numbers}) == 4
    found = (int(state.counter), int(state.skipped_steps), int(state.consecutive_skips), bool(state.grads_finite))
    assert found == (0, 0, 0, True)


@pytest.mark.parametrize("name", ["skip_nonfinite", "check_updates", "count_skipped_steps"])
def test_a_flag_is_a_bool(name):
    with pytest.raises(ValueError, match=f"{name} must be True or False, got 'no'"):
        wrapper([], **{name: "no"})


@pytest.mark.parametrize("skip_nonfinite", [True, False])
@pytest.mark.parametrize("count_skipped_steps", [True, False])
def test_the_counts_of_what_is_skipped_go_on_if_told(skip_nonfinite, count_skipped_steps):
    inner = optax.scale_by_schedule(lambda count: 1.0)
    tx = wrapper([], inner, skip_nonfinite=skip_nonfinite, count_skipped_steps=count_skipped_steps)
    _, state = tx.update(BAD, tx.init(PARAMS), PARAMS)
    assert int(state.inner_state.count) == (count_skipped_steps or not skip_nonfinite)
