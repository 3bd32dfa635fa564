"""What docs/trust.md says of rules that skip bad steps holds, on the training with faults that its table is of."""

import functools

import numpy as np
import pytest

from benchmarks.guards import FAULTS, LATE_FAULTS, RULES, train

OURS, WITH_RATIO = "`skip_bad_steps`", "`skip_bad_steps`, ratio 10"
MAXTEXT, LEVANTER = "MaxText's spike rule", "levanter's skip"
train = functools.cache(lambda name, late=False, train=train: train(RULES[name], LATE_FAULTS if late else FAULTS))


def test_with_a_ratio_no_step_is_lost_and_no_fault_applied():
    outcome = train(WITH_RATIO)
    assert outcome[:3] == (0, 0, 0)
    assert outcome.loss < 0.1


def test_without_a_ratio_spikes_alone_are_applied_and_cost_the_rest_of_the_training():
    outcome = train(OURS)
    assert outcome[:3] == (0, 2, 0)
    assert outcome.loss > 2 * train(WITH_RATIO).loss


def test_a_window_that_learns_a_nan_skips_for_as_long_as_it_is_in_it():
    outcome = train(MAXTEXT, late=True)
    assert outcome.good_skipped >= 200
    assert (outcome.bad_applied, outcome.nonfinite) == (0, 0)


def test_zero_times_nan_is_applied():
    assert train(LEVANTER, late=True).nonfinite > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [MAXTEXT, LEVANTER])
def test_a_nan_before_the_window_is_full_is_applied(name):
    """`pytest -m slow tests/benchmarks/test_guards.py`: 4 passed the last time."""
    assert train(name).nonfinite > 0


@pytest.mark.slow
def test_errors_in_a_row_are_applied_by_apply_if_finite():
    """`pytest -m slow tests/benchmarks/test_guards.py`."""
    assert train("`optax.apply_if_finite`, 5 errors").nonfinite > 0


@pytest.mark.slow
def test_a_limit_in_absolute_numbers_stops_a_training_whose_norms_drift():
    """`pytest -m slow tests/benchmarks/test_guards.py`."""
    outcome = train("`optax.skip_large_updates` in `MultiSteps`")
    assert outcome[1:3] == (0, 0)
    assert outcome.good_skipped > 50
    assert np.isfinite(outcome.loss)
