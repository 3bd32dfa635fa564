"""Schedules against TensorFlow's values: at int64 steps, up to and past 2**24, where float32 skips every other one."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from tests.parity import golden_data, translation

CASES = {case["name"]: case for case in golden_data.load("schedules")["cases"]}
EDGES = {name for name, case in CASES.items() if case.get("edge")}
COMPARED = CASES.keys() - EDGES
TOLERANCE = 2e-5  # relative; 3.0e-6 is the most that was seen

FAR = [10000000, 16777216, 16777217, 16777219]

# Steps at which TensorFlow's value is NaN or infinite for no good reason. Ours is finite.
NOT_FINITE = {
    # it divides by warmup_steps, which are 0, before the offset
    "CosineDecayWithOffset_5": [0, 1, 2, 4],
    # before the offset, the number of the cycle is 0, or less, and it divides by it
    "PolynomialDecayWithOffset_2": [0, 1, 2, 19],
    "PolynomialDecayWithOffset_3": [0, 1, 2, 4],
    # it divides by the length of the piece after the last boundary, which is 0
    "StepCosineDecayWithOffset_0": [200, 201, 600, 2007, *FAR],
    "StepCosineDecayWithOffset_1": [70, 71, 210, 707, *FAR],
    "StepCosineDecayWithOffset_2": [100, 101, 300, 1007, *FAR],
    "StepCosineDecayWithOffset_3": [110000, 110001, 330000, 1100007, *FAR],
}

# Steps at which the formula itself is more than float32 holds: 1.05**10000. Ours is infinite too.
OVERFLOWING = {"ExponentialDecay_4": FAR, "ExponentialDecayWithOffset_4": FAR}

# Steps just after a boundary past 2**24 at which TensorFlow still has the value before it, although the step was an
# integer: it compares `step - offset` in float32. Ours changes at once.
LATE = {"PiecewiseConstantDecayWithOffset_4": [16777220, 20000004]}

# Steps at which TensorFlow's value changes by more than the tolerance when the step is a float32, as its legacy
# optimizers make it: the step was rounded. Ours is compared with the value at the integer.
ROUNDED_STEPS = {
    "PiecewiseConstantDecay_4": [16777217, 20000001],
    "PolynomialDecayWithOffset_2": [16777217, 16777219],
    "PolynomialDecayWithOffset_3": [16777217, 16777219],
}

# Steps at which a period starts, by TensorFlow's float32 logarithm if its last bit comes out right, which it did: the
# end of the period before would be defensible too. Ours starts at these steps whatever the logarithm.
RESTARTS = {
    "CosineDecayRestarts_0": [100, 300, 700],
    "CosineDecayRestarts_2": [20, 50, 95],
    "CosineDecayRestarts_3": [64, 192, 448],
}

# Inputs that ours refuses, with the field that its error names.
REFUSED = {
    "PiecewiseConstantDecay_edge_1": "values",  # too few; TensorFlow refuses it too
    "PiecewiseConstantDecay_edge_2": "boundaries",  # not sorted; TensorFlow raises between them, when it gets there
    "PiecewiseConstantDecay_edge_3": "boundaries",  # twice the same
    "PiecewiseConstantDecay_edge_4": "boundaries",  # between two steps
    "PiecewiseConstantDecayWithOffset_edge_0": "boundaries",  # between two steps
    "PiecewiseConstantDecayWithOffset_edge_1": "values",  # too few; TensorFlow refuses it too
    "CosineDecay_edge_1": "decay_steps",  # 0; TensorFlow is NaN for ever
    "CosineDecay_edge_3": "decay_steps",  # negative
    "ExponentialDecay_edge_1": "decay_steps",  # 0; TensorFlow is NaN, then 0
    "PolynomialDecay_edge_1": "decay_steps",  # 0; TensorFlow is NaN for ever
    "PolynomialDecay_edge_2": "decay_steps",  # 0; TensorFlow is NaN for ever
    "CosineDecayRestarts_edge_0": "t_mul",  # below 1, so periods shrink to a limit; TensorFlow is NaN after it
    "StepCosineDecayWithOffset_edge_1": "boundaries",  # none; TensorFlow refuses it too
    "StepCosineDecayWithOffset_edge_2": "values",  # too many; TensorFlow refuses it too
    "LinearWarmup_edge_0": "warmup_steps",  # negative
    "LinearWarmup_edge_1": "warmup_steps",  # between two steps
    "PolynomialWarmUp_edge_0": "warmup_steps",  # negative
    "PowerAndLinearDecay_edge_0": "linear_decay_fraction",  # negative
}

# Inputs that ours takes although TensorFlow raises or is NaN or infinite at some steps; at the others they agree,
# from the step given on.
ONLY_OURS = {
    "PiecewiseConstantDecay_edge_0": None,  # no boundary, one value: an IndexError in TensorFlow
    "CosineDecay_edge_0": None,  # an integer as the learning rate: a type error in TensorFlow
    "ExponentialDecay_edge_0": None,
    "PolynomialDecay_edge_0": None,
    "InverseTimeDecay_edge_0": None,
    "StepCosineDecayWithOffset_edge_0": None,  # one boundary is the last boundary: NaN from it on, and before it
    "PolynomialDecayWithOffset_edge_0": 15,  # before the offset, it divides by 0 and by negative cycles
    "PolynomialDecayWithOffset_edge_1": 25,
}

# Edges that need no exception: integers for floats, and a power of 0.
UNEXCEPTIONAL = {
    "PiecewiseConstantDecay_edge_5",
    "PiecewiseConstantDecay_edge_6",
    "CosineDecay_edge_2",
    "PolynomialWarmUp_edge_1",
}


def excepted(name: str) -> list[int]:
    return [*NOT_FINITE.get(name, []), *OVERFLOWING.get(name, []), *LATE.get(name, [])]


def steps_where(select: Callable[[dict[str, Any]], np.ndarray]) -> dict[str, list[int]]:
    """Return the steps of each compared case that `select` chooses, of the cases that have any."""
    chosen = {name: np.array(CASES[name]["steps"])[select(CASES[name])].tolist() for name in COMPARED}
    return {name: steps for name, steps in chosen.items() if steps}


def expected_values(case: dict[str, Any], key: str = "expected") -> np.ndarray:
    return golden_data.float32s(case.get(key, case["expected"]))


def is_off(values: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return where values differ by more than the tolerance; an expected 0 must be 0."""
    finite = np.isfinite(expected)
    with np.errstate(invalid="ignore"):
        apart = np.abs(values.astype(np.float64) - expected.astype(np.float64))
    return finite & ~(apart <= TOLERANCE * np.abs(expected))


def assert_close(case: dict[str, Any], values: np.ndarray, excepted_steps: list[int]) -> None:
    assert values.dtype == np.float32
    expected = expected_values(case)
    rows = zip(case["steps"], values, expected, is_off(values, expected), strict=True)
    wrong = [(step, ours, theirs) for step, ours, theirs, off in rows if off and step not in excepted_steps]
    assert not wrong, f"(step, ours, TensorFlow's): {wrong}"


def values_at(schedule: Callable[[Any], jax.Array], steps: list[int]) -> np.ndarray:
    """Evaluate all steps at once, in an array of one length for all cases, for which JAX compiles once."""
    return np.asarray(schedule(np.resize(steps, 32)))[: len(steps)]


def test_every_case_is_compared_or_named():
    assert (len(COMPARED), len(EDGES)) == (91, 30)
    named = [*REFUSED, *ONLY_OURS, *UNEXCEPTIONAL]
    assert sorted(named) == sorted(EDGES)


def test_every_value_is_compared_or_named():
    def tensorflow_is_not_finite(case: dict[str, Any]) -> np.ndarray:
        return ~np.isfinite(expected_values(case))

    def rounding_the_step_matters(case: dict[str, Any]) -> np.ndarray:
        return is_off(expected_values(case, "expected_float32_step"), expected_values(case))

    assert steps_where(tensorflow_is_not_finite) == NOT_FINITE | OVERFLOWING
    assert steps_where(rounding_the_step_matters) == ROUNDED_STEPS
    values = sum(len(CASES[name]["steps"]) for name in COMPARED)
    exceptions = sum(len(excepted(name)) for name in COMPARED)
    assert (values, exceptions) == (2067, 54)


@pytest.mark.parametrize("name", sorted(COMPARED))
def test_values(name: str):
    case, schedule = CASES[name], translation.make_schedule(CASES[name])
    assert_close(case, values_at(schedule, case["steps"]), excepted(name))
    compiled = jax.jit(schedule)
    assert_close(case, np.array([compiled(step) for step in case["steps"]]), excepted(name))


@pytest.mark.parametrize("name", sorted(NOT_FINITE))
def test_finite_where_tensorflow_is_not(name: str):
    values = values_at(translation.make_schedule(CASES[name]), NOT_FINITE[name])
    assert np.isfinite(values).all()
    if name.startswith("StepCosine"):
        assert (values == np.float32(CASES[name]["config"]["values"][-1])).all()


@pytest.mark.parametrize("name", sorted(OVERFLOWING))
def test_infinite_where_the_formula_is(name: str):
    values = values_at(translation.make_schedule(CASES[name]), OVERFLOWING[name])
    assert (values == np.inf).all()


@pytest.mark.parametrize("name", sorted(LATE))
def test_changes_at_once_where_tensorflow_is_late(name: str):
    schedule, old_and_new = translation.make_schedule(CASES[name]), CASES[name]["config"]["values"]
    theirs = dict(zip(CASES[name]["steps"], expected_values(CASES[name]), strict=True))
    for step, old, new in zip(LATE[name], old_and_new, old_and_new[1:], strict=False):
        assert (schedule(step - 1), schedule(step)) == (old, new)
        assert theirs[step] == old


@pytest.mark.parametrize("name", sorted(RESTARTS))
def test_restarts_are_where_periods_start(name: str):
    schedule = translation.make_schedule(CASES[name])
    config = {"m_mul": 1.0, "alpha": 0.0} | CASES[name]["config"]
    peaks = [config["m_mul"] ** period for period in (1, 2, 3)]
    rates = [config["initial_learning_rate"] * ((1 - config["alpha"]) * peak + config["alpha"]) for peak in peaks]
    np.testing.assert_allclose(values_at(schedule, RESTARTS[name]), rates, rtol=1e-6)
    np.testing.assert_allclose(values_at(jax.jit(schedule), RESTARTS[name]), rates, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name: str):
    with pytest.raises(ValueError, match=REFUSED[name]):
        translation.make_schedule(CASES[name])


@pytest.mark.parametrize("name", sorted(ONLY_OURS.keys() | UNEXCEPTIONAL))
def test_edges(name: str):
    case = CASES[name]
    agrees_from = ONLY_OURS.get(name, 0)
    values = values_at(translation.make_schedule(case), case["steps"])
    assert np.isfinite(values).all()
    if agrees_from is not None:
        assert_close(case, values, [step for step in case["steps"] if step < agrees_from])
