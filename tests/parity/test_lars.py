"""LARS against TensorFlow's trajectories: parameters and momentum after each of 12 steps, and the learning rates."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from tests.parity import golden_data, translation

GOLDEN = golden_data.load("lars")
CASES = {case["name"]: case for case in GOLDEN["cases"]}
TOLERANCE = 1e-5  # of a tensor's largest entry; 5.8e-7 is the most that was seen

# Cases that `lars` alone has no arguments for: clipping and the decay of the rate are those of `optax_ext.config.LARS`.
CONFIG_LAYER = {
    "schedule_decay",
    "decay",
    "decay_nesterov_popular",
    "clipnorm_classic1",
    "clipvalue_classic1",
    "global_clipnorm_classic1",
    "clipvalue_clipnorm_classic1",
    "clipvalue_global_clipnorm_classic1",
    "clipnorm_classic0",
    "clipvalue_classic0",
    "global_clipnorm_classic0",
    "clipvalue_clipnorm_classic0",
    "clipvalue_global_clipnorm_classic0",
    "clipnorm_huge_noop",
    "clipnorm_no_adaptation",
    "clipvalue_no_adaptation",
    "global_clipnorm_no_adaptation",
    "clipnorm_zero",
    "clipvalue_zero",
    "inf_gradient_clipvalue",
    "inf_gradient_clipnorm",
    "inf_gradient_global_clipnorm",
}

# Cases of these in which clipping makes TensorFlow divide by zero, or by infinity, and ours not: a gradient of zero
# clipped to norm 0, and the other gradients where one has an infinite entry.
ONLY_TENSORFLOW_NAN = {"clipnorm_zero", "inf_gradient_global_clipnorm"}

# TensorFlow takes the letters of a string for patterns, so that "bias" excludes all names with a, b, i or s. Ours
# refuses a string where a list belongs.
REFUSED = {"exclude_from_weight_decay_as_plain_string"}

# Variables in low precision, with the most that parameters and momentum may be off; the comments say how much they are.
# TensorFlow computes norms and trust ratios in the variable's dtype, ours in float32. With popular momentum the norm
# only enters the update, so that momentum is the same and parameters differ by the last bit.
LOW_PRECISION = {
    "bfloat16_classic": (1e-3, 3e-2),  # 3.8e-4 and 1.6e-2: the last bit of bfloat16 is 3.9e-3 to 7.8e-3
    "bfloat16_popular_nesterov": (3e-4, 0),  # 9.6e-5 and 0
    "float16_classic": (2e-2, 0.6),  # 1.1e-2 and 0.43, but see UNDERFLOWING
    "float16_popular_nesterov": (3e-4, 0),  # 8.1e-5 and 0
}

# The first step at which the gradient of a variable is all zeros, in "float16_classic". Only its weight decay is left,
# the norm of that is 0 in float16, and TensorFlow takes a trust ratio of 1 where ours is 10. Before it, parameters
# are off by 1.5e-4 and momentum by 3.8e-3.
UNDERFLOWING = {
    "conv1/kernel": 9,
    "conv1/bias": 7,
    "batch_normalization/gamma": 9,
    "batch_normalization/beta": 9,
    "dense/kernel": 4,
    "dense/bias": 9,
    "head/kernel": 9,
}
BEFORE_UNDERFLOW = (3e-4, 1e-2)

COMPARED = CASES.keys() - CONFIG_LAYER - REFUSED - LOW_PRECISION.keys()

# Regexes that mean another thing in TensorFlow, whose names end in ":0".
OF_TENSORFLOW_NAMES = {
    "regex_dollar_never_matches": ["kernel$"],
    "regex_with_suffix": ["kernel:0$"],
}


def trajectory(
    case: dict[str, Any], compiled: bool = False, make: Callable[..., Any] = translation.make_lars
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return parameters and momentum after each step, with TensorFlow's sign."""
    data, dtype = GOLDEN["data"][case["data"]], case.get("dtype", "float32")
    tx = make(case["config"], list(data["params"]))
    overrides = {(step, name): grad for step, name, grad in case.get("grads_override", [])}

    def apply(update: Any, param: jax.Array) -> Any:
        return param if update is None else optax.apply_updates(param, update)

    def step(grads: Any, params: Any, state: optax.OptState) -> Any:
        updates, state = tx.update(grads, state, params)
        return jax.tree.map(apply, updates, params, is_leaf=lambda node: node is None), state

    step = jax.jit(step) if compiled else step
    params = translation.nest({name: jnp.asarray(param, dtype) for name, param in data["params"].items()})
    state = tx.init(params)
    series: list[Any] = []
    for t in range(12):
        grads = {name: overrides.get((t, name), grad[t]) for name, grad in data["grads"].items()}
        grads = {name: None if grad is None else jnp.asarray(grad, dtype) for name, grad in grads.items()}
        params, state = step(translation.nest(grads), params, state)
        series.append((params, optax.tree.get(state, "trace")))
    all_params, traces = jax.tree.map(lambda *steps: np.stack(steps).astype(np.float32), *series)
    sign = -1 if case["config"].get("classic_momentum", True) else 1  # the classic trace is of updates, which descend
    return translation.flatten(all_params), {n: sign * trace for n, trace in translation.flatten(traces).items()}


def assert_close(case: dict[str, Any], params_tolerance: float, momentum_tolerance: float, **kwargs: Any) -> None:
    params, momentum = trajectory(case, **kwargs)
    assert params.keys() == case["params"].keys()
    for name in params:
        assert golden_data.deviation(params[name], case["params"][name]) <= params_tolerance, name
        assert golden_data.deviation(momentum[name], case["momentum"][name]) <= momentum_tolerance, name


def test_every_case_is_compared_or_named():
    keywords = {"clipnorm", "clipvalue", "global_clipnorm", "decay"}
    assert {name for name, case in CASES.items() if case["config"].keys() & keywords} == CONFIG_LAYER
    assert {name for name, case in CASES.items() if "dtype" in case} == LOW_PRECISION.keys()
    assert CASES.keys() > REFUSED
    assert (len(CASES), len(CONFIG_LAYER), len(REFUSED), len(LOW_PRECISION), len(COMPARED)) == (83, 22, 1, 4, 56)


@pytest.mark.parametrize("name", sorted(COMPARED))
def test_trajectory(name: str):
    assert_close(CASES[name], TOLERANCE, TOLERANCE)


@pytest.mark.parametrize("name", sorted(CONFIG_LAYER - ONLY_TENSORFLOW_NAN))
def test_clipping_and_decay_trajectory(name: str):
    assert_close(CASES[name], TOLERANCE, TOLERANCE, make=translation.make_config_lars)


@pytest.mark.parametrize("name", sorted(ONLY_TENSORFLOW_NAN))
def test_clipping_leaves_finite_what_tensorflow_does_not(name: str):
    params, momentum = trajectory(CASES[name], make=translation.make_config_lars)
    with_infinity = {variable for _, variable, _ in CASES[name].get("grads_override", [])}
    for variable in params:
        expected = CASES[name]["params"][variable]
        assert np.isnan(expected).any()
        before = np.isfinite(expected).reshape(len(expected), -1).all(axis=1).argmin()
        assert golden_data.deviation(params[variable][:before], expected[:before]) <= TOLERANCE, variable
        if variable not in with_infinity:
            assert np.isfinite(params[variable]).all()
            assert np.isfinite(momentum[variable]).all()


@pytest.mark.parametrize(
    "name",
    [
        "schedule_nesterov0_classic0",
        "schedule_nesterov1_classic1",
        "full_classic",
        "full_popular_nesterov_schedule",
        "inf_gradient",
    ],
)
def test_compiled_trajectory(name: str):
    assert_close(CASES[name], TOLERANCE, TOLERANCE, compiled=True)


@pytest.mark.parametrize("name", sorted(COMPARED | LOW_PRECISION.keys()))
def test_learning_rates(name: str):
    rate = translation.make_learning_rate(CASES[name]["config"].get("learning_rate", 0.01))
    ours = rate(np.arange(12)) if callable(rate) else np.full(12, rate, np.float32)
    dtype = CASES[name].get("dtype", "float32")  # TensorFlow casts the rate to it
    expected = golden_data.float32s(CASES[name]["learning_rates"])
    np.testing.assert_allclose(np.asarray(jnp.asarray(ours, dtype), np.float32), expected, rtol=2e-5)


@pytest.mark.parametrize("name", sorted(LOW_PRECISION))
def test_low_precision_trajectory(name: str):
    assert_close(CASES[name], *LOW_PRECISION[name])


def test_float16_before_tensorflow_underflows():
    case, grads = CASES["float16_classic"], GOLDEN["data"]["tiny"]["grads"]
    params, momentum = trajectory(case)
    params_tolerance, momentum_tolerance = BEFORE_UNDERFLOW
    for name, end in UNDERFLOWING.items():
        assert end == np.flatnonzero([not grad.any() for grad in grads[name]])[0]
        assert golden_data.deviation(params[name][:end], case["params"][name][:end]) <= params_tolerance, name
        assert golden_data.deviation(momentum[name][:end], case["momentum"][name][:end]) <= momentum_tolerance, name


@pytest.mark.parametrize("name", sorted(CASES.keys() - REFUSED))
def test_masks(name: str):
    config, params = CASES[name]["config"], GOLDEN["data"][CASES[name]["data"]]["params"]
    decay, adaptation = CASES[name]["excluded_weight_decay"], CASES[name]["excluded_layer_adaptation"]
    if not config.get("weight_decay_rate"):
        assert decay == list(params)  # nothing decays, so TensorFlow calls everything excluded
        decay = None
    patterns = config.get("exclude_from_weight_decay") or []
    adaptation_patterns = config.get("exclude_from_layer_adaptation") or patterns
    for excluded, exclude in ((decay, patterns), (adaptation, adaptation_patterns)):
        if excluded is None:
            continue
        expected = translation.nest({name: name not in excluded for name in params})
        assert translation.make_mask(exclude, list(params)) == expected
        mask = optax_ext.path_mask(exclude=exclude, allow_unmatched=True)
        assert (mask(translation.nest(params)) == expected) == (exclude != OF_TENSORFLOW_NAMES.get(name))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name: str):
    with pytest.raises(ValueError, match="exclude must be a list"):
        optax_ext.path_mask(exclude=CASES[name]["config"]["exclude_from_weight_decay"])
