"""Loss scaling against TensorFlow's `LossScaleOptimizer`: scales and counters exactly, at every step, and the rest.

TensorFlow's `iterations` counts skipped steps, so `count_skipped_steps=True` throughout.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from tests.parity import golden_data, translation

GOLDEN = golden_data.load("loss_scale")
CASES = {case["name"]: case for case in GOLDEN["cases"]}
TOLERANCE = 1e-5  # of a tensor's largest entry; 4.2e-6 is the most that was seen

# Initial scales that ours refuses, with what TensorFlow makes of them.
REFUSED = {
    "sgd_initial_below_one": "below min_scale: TensorFlow raises a scale of 0.25 to 1 when it ought to lower it",
    "sgd_initial_zero": "gradients are 0 / 0, until the first of them, being NaN, makes the scale 1",
    "sgd_initial_negative": "the scale grows to ever more negative ones until a step is skipped",
    "sgd_initial_overflows_float32": "the scale is infinite for ever and all steps are skipped",
}

# Numbers of growth steps that ours refuses, with the number that TensorFlow in effect takes for them.
GROWTH_STEPS_INSTEAD = {"sgd_growth0": 1, "sgd_growth_negative": 1, "sgd_growth2_7_truncated": 2}

COMPARED = CASES.keys() - REFUSED.keys()

# The first step at which TensorFlow unscales all gradients to 0, by a reciprocal of the scale that is subnormal and
# flushed to zero. Ours go on, so that parameters are compared before that step only; scales and counters throughout.
FLUSHED_FROM = {"sgd_saturate_high": 9, "sgd_saturate_high_nonpower": 0, "lars_saturate_high": 4}
LARGEST_WITH_RECIPROCAL = 2.0**126


class Step(NamedTuple):
    """What a step used and left behind."""

    scaled_loss: Any
    unscaled_grads: Any
    loss_scale: Any
    counter: Any
    params: Any
    trace: Any
    count: Any


def clip_by_norm(max_norm: float) -> optax.GradientTransformation:
    """Clip each tensor by its own norm, as TensorFlow's `clipnorm`."""

    def clip(grad: jax.Array) -> jax.Array:
        return grad * max_norm / jnp.maximum(jnp.linalg.norm(grad), max_norm)

    return optax.stateless(lambda updates, params: jax.tree.map(clip, updates))


def make_inner(spec: dict[str, Any], names: list[str]) -> optax.GradientTransformation:
    config = dict(spec["config"])
    clips = {"clipvalue": optax.clip, "clipnorm": clip_by_norm, "global_clipnorm": optax.clip_by_global_norm}
    before = [clip(config.pop(name)) for name, clip in clips.items() if name in config]
    if spec["class"] == "LARS":
        return optax.chain(*before, translation.make_lars(config, names))
    rate, decay = translation.make_learning_rate(config["learning_rate"]), config.get("decay")

    def decayed(count: Any) -> Any:
        return rate / (1 + decay * count)

    sgd = optax.sgd(decayed if decay else rate, config.get("momentum"), config.get("nesterov", False))
    return optax.chain(*before, sgd)


def make_transformation(case: dict[str, Any], **instead: Any) -> optax.GradientTransformationExtraArgs:
    inner = make_inner(case["inner"], list(case["initial_params"]))
    config = dict(case["config"])
    if not config.pop("dynamic", True):
        return optax_ext.fixed_loss_scaling(
            inner, config["initial_scale"], skip_nonfinite=False, count_skipped_steps=True
        )
    if "dynamic_growth_steps" in config:
        config["growth_steps"] = config.pop("dynamic_growth_steps")
    return optax_ext.dynamic_loss_scaling(inner, **(config | instead), count_skipped_steps=True)


def trajectory(case: dict[str, Any], compiled: bool = False) -> Step:
    """Return a series of each of the fields of `Step`."""
    name = case["name"]
    instead = {"growth_steps": GROWTH_STEPS_INSTEAD[name]} if name in GROWTH_STEPS_INSTEAD else {}
    tx = make_transformation(case, **instead)

    def step(loss: jax.Array, grads: Any, params: Any, state: optax.OptState) -> Any:
        scaled_loss, unscaled = optax_ext.scale_loss(loss, state), optax_ext.unscale(grads, state)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        trace, count = optax.tree.get(state, "trace", ()), optax.tree.get(state, "count", ())
        scale, counter = optax.tree.get(state, "loss_scale"), optax.tree.get(state, "counter")
        return Step(scaled_loss, unscaled, scale, counter, params, trace, count), state

    step = jax.jit(step) if compiled else step
    params = translation.nest({name: jnp.asarray(param) for name, param in case["initial_params"].items()})
    state = tx.init(params)
    series = []
    for t, loss in enumerate(golden_data.float32s(case["losses"])):
        grads = {n: jnp.asarray(g[t], case.get("grad_dtype", "float32")) for n, g in case["scaled_grads"].items()}
        after, state = step(jnp.asarray(loss), translation.nest(grads), params, state)
        params = after.params
        series.append(after)
    return jax.tree.map(lambda *steps: np.stack(steps), *series)


def assert_close(case: dict[str, Any], compiled: bool = False) -> None:
    ours = trajectory(case, compiled)
    np.testing.assert_array_equal(ours.loss_scale, golden_data.float32s(case["loss_scale"]))
    np.testing.assert_array_equal(ours.counter, case.get("counter", np.zeros(len(case["losses"]))))
    np.testing.assert_array_equal(ours.scaled_loss, golden_data.float32s(case["scaled_losses"]))
    if np.size(ours.count):
        np.testing.assert_array_equal(ours.count, case["iterations"])

    tensors = {"unscaled_grads": ours.unscaled_grads, "params": ours.params}
    if "momentum" in case:
        tensors["momentum"] = jax.tree.map(lambda trace: momentum_sign_and_size(case["inner"]) * trace, ours.trace)
    end = FLUSHED_FROM.get(case["name"])
    for field, tree in tensors.items():
        flat = translation.flatten(tree)
        assert flat.keys() == case[field].keys()
        for name, values in flat.items():
            assert golden_data.deviation(values[:end], case[field][name][:end]) <= TOLERANCE, (field, name)


def momentum_sign_and_size(inner: dict[str, Any]) -> float:
    """Return what makes TensorFlow's momentum slot of our trace."""
    if inner["class"] == "LARS":
        return (
            -1 if inner["config"].get("classic_momentum", True) else 1
        )  # the classic one is of updates, which descend
    return -inner["config"]["learning_rate"]  # TensorFlow's SGD has the learning rate in it


def test_every_case_is_compared_or_named():
    assert CASES.keys() > REFUSED.keys() | GROWTH_STEPS_INSTEAD.keys() | FLUSHED_FROM.keys()
    assert (len(CASES), len(COMPARED), sum(len(CASES[name]["losses"]) for name in COMPARED)) == (36, 32, 1139)
    assert len(GOLDEN["helpers"]) == 25

    def first_flushed(case: dict[str, Any]) -> int | None:
        initial = case["config"].get("initial_scale", 2.0**15)
        scales = [initial, *golden_data.float32s(case["loss_scale"])]
        return next((t for t, scale in enumerate(scales) if scale > LARGEST_WITH_RECIPROCAL), None)

    flushed = {name: first_flushed(CASES[name]) for name in COMPARED}
    assert {name: step for name, step in flushed.items() if step is not None} == FLUSHED_FROM


@pytest.mark.parametrize("name", sorted(COMPARED))
def test_trajectory(name: str):
    assert_close(CASES[name])


@pytest.mark.parametrize("name", ["lars_popular_schedule_dynamic_growth5", "sgd_fixed", "sgd_growth3_nonpower_scale"])
def test_compiled_trajectory(name: str):
    assert_close(CASES[name], compiled=True)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_initial_scale(name: str):
    with pytest.raises(ValueError, match="initial_scale"):
        make_transformation(CASES[name])


@pytest.mark.parametrize("name", sorted(GROWTH_STEPS_INSTEAD))
def test_refused_growth_steps(name: str):
    with pytest.raises(ValueError, match="growth_steps"):
        make_transformation(CASES[name])


@pytest.mark.parametrize("name", sorted(FLUSHED_FROM))
def test_gradients_survive_where_tensorflow_flushes_them(name: str):
    case, start = CASES[name], FLUSHED_FROM[name]
    scales = np.array([case["config"]["initial_scale"], *case["loss_scale"][:-1]], np.float32)
    ours = translation.flatten(trajectory(case).unscaled_grads)
    for variable, scaled in case["scaled_grads"].items():
        expected = (scaled.astype(np.float64).T / scales).T
        assert golden_data.deviation(ours[variable][start:], expected[start:]) <= TOLERANCE, variable


# ---------------------------------------------------------------------------------------------------------
# Single values. TensorFlow scales and unscales in the dtype of the value, ours in float32 whatever the dtype; so the
# differences in low precision are by design. How far TensorFlow's result may be off: in parts of ours, and where it is
# subnormal.

HELPERS = {
    f"{helper['loss_scale']}-{helper['dtype']}": helper for helper in GOLDEN["helpers"] if "callable" not in helper
}
ROUNDING = {"float32": (1.2e-7, 0.0), "float16": (2.0**-10, 2.0**-24), "bfloat16": (2.0**-7, 0.0)}
LARGEST_FLOAT16 = 65504
SMALLEST_FLOAT32 = float(np.finfo(np.float32).smallest_normal)


def state_of(helper: dict[str, Any]) -> optax.OptState:
    return optax_ext.fixed_loss_scaling(optax.identity(), helper["loss_scale"]).init(jnp.zeros(1))


@pytest.mark.parametrize("name", HELPERS)
def test_scale_single_values(name: str):
    helper, dtype = HELPERS[name], HELPERS[name]["dtype"]
    values, theirs = golden_data.float32s(helper["values"]), golden_data.float32s(helper["get_scaled_loss"])
    ours = np.asarray(optax_ext.scale_loss(jnp.asarray(values, dtype), state_of(helper)))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(ours, values * np.float32(helper["loss_scale"]), strict=True)
    if dtype == "float16":  # in which a scale or a product past 65504 is infinite
        fits = (np.abs(ours) <= LARGEST_FLOAT16) & (helper["loss_scale"] <= LARGEST_FLOAT16)
        np.testing.assert_array_equal(np.isfinite(theirs), fits)
        ours, theirs = ours[fits], theirs[fits]
    relative, absolute = ROUNDING[dtype]
    np.testing.assert_allclose(theirs, ours, relative, absolute)


@pytest.mark.parametrize("name", HELPERS)
def test_unscale_single_values(name: str):
    helper, dtype = HELPERS[name], HELPERS[name]["dtype"]
    values, theirs = golden_data.float32s(helper["values"]), golden_data.float32s(helper["get_unscaled_gradients"])
    ours = np.asarray(optax_ext.unscale(jnp.asarray(values, dtype), state_of(helper)))
    quotients = values.astype(np.float64) / helper["loss_scale"]
    np.testing.assert_allclose(ours, quotients.astype(np.float32), 2e-7, SMALLEST_FLOAT32, strict=True)
    if helper["loss_scale"] > LARGEST_WITH_RECIPROCAL:
        assert not theirs.any()  # flushed to zero
    else:
        relative, absolute = ROUNDING[dtype]
        np.testing.assert_allclose(theirs, ours, relative, absolute)


def test_scale_the_value_where_tensorflow_takes_a_function():
    (helper,) = [helper for helper in GOLDEN["helpers"] if "callable" in helper]
    ours = optax_ext.scale_loss(jnp.asarray(golden_data.float32s(helper["values"])), state_of(helper))
    np.testing.assert_array_equal(ours, golden_data.float32s(helper["get_scaled_loss"]))
