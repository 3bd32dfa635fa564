"""Metrics: which keys there are, what they hold, and where the state is found."""

import functools
import typing

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import optax_ext

PARAMS = {
    "blocks": {"kernel": np.arange(1, 13, dtype=np.float32).reshape(3, 2, 2)},  # three stacked layers
    "head": {"bias": np.zeros(2, np.float32), "kernel": np.ones((2, 2), np.float32)},
}
GRADS = jax.tree.map(lambda param: np.cos(param) + 2, PARAMS)
no_biases = optax_ext.path_mask(exclude=["bias"])
recording = {"record": True, "stacked_axes": optax_ext.path_axes({"^blocks/": 0}), "trust_ratio_mask": no_biases}
SKIPS = ["grads_finite", "skipped_steps", "consecutive_skips", "grad_norm"]
SUMMARIES = [f"{field}/{name}" for field in ("trust_ratio", "update_norm") for name in ("min", "median", "max")]
LAYERS = ["blocks/kernel/0", "blocks/kernel/1", "blocks/kernel/2", "head/kernel"]


def lars(rate=0.5, **options):
    return optax_ext.lars(rate, **recording, **options)


def norm(array):
    return np.sqrt(np.sum(np.square(array, dtype=np.float64)))


def expected_of_layers(params, grads, coefficient=0.001):
    """Return the norm of the update and the trust ratio of each layer, in the order of `LAYERS`."""
    pairs = [*zip(params["blocks"]["kernel"], grads["blocks"]["kernel"], strict=True)]
    pairs.append((params["head"]["kernel"], grads["head"]["kernel"]))
    norms = np.array([norm(grad) for _, grad in pairs])
    return norms, coefficient * np.array([norm(param) for param, _ in pairs]) / norms


def check(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def expected_metrics(grads=GRADS, per_layer=False):
    norms, ratios = expected_of_layers(PARAMS, grads)
    found = {}
    for field, numbers in (("trust_ratio", ratios), ("update_norm", norms)):
        found |= {f"{field}/{name}": getattr(np, name)(numbers) for name in ("min", "median", "max")}
        found |= {f"{field}/{path}": number for path, number in zip(LAYERS, numbers, strict=True) if per_layer}
    return found


# Keys and values.


def test_everything_of_one_step():
    schedule = optax_ext.LinearWarmup(0.5, warmup_steps=4, warmup_learning_rate=0.25)
    tx = optax_ext.dynamic_loss_scaling(optax_ext.skip_bad_steps(lars(schedule)), initial_scale=8.0, growth_steps=1)
    scaled = jax.tree.map(lambda grad: 8 * grad, GRADS)
    _, state = jax.jit(tx.update)(scaled, tx.init(PARAMS), PARAMS)
    grad_norm = norm(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(GRADS)]))
    skips = {"grads_finite": True, "skipped_steps": 0, "consecutive_skips": 0, "grad_norm": grad_norm}
    expected = {"loss_scale": 16.0} | skips | {"average_norm": grad_norm, "learning_rate": 0.25}
    check(optax_ext.metrics(state, schedule), expected | expected_metrics())
    check(optax_ext.metrics(state, schedule, per_layer=True), expected | expected_metrics(per_layer=True))

    nan = jax.tree.map(lambda grad: grad * np.float32(np.nan), scaled)
    _, state = jax.jit(tx.update)(nan, state, PARAMS)
    skips = {"grads_finite": False, "skipped_steps": 1, "consecutive_skips": 1, "grad_norm": np.inf}
    expected = {"loss_scale": 8.0} | skips | {"average_norm": grad_norm, "learning_rate": 0.3125}
    check(optax_ext.metrics(state, schedule), expected | expected_metrics())  # the layers of the last applied step


@pytest.mark.parametrize(
    ("tx", "keys"),
    [
        (optax.sgd(0.1), []),
        (optax.identity(), []),
        (optax_ext.lars(0.1), []),
        (optax_ext.fixed_loss_scaling(optax.sgd(0.1), 2.0), ["loss_scale", *SKIPS]),
        (optax_ext.skip_bad_steps(optax.sgd(0.1)), [*SKIPS, "average_norm"]),
        (lars(), SUMMARIES),
        (optax_ext.lamb(0.1, **recording), SUMMARIES),
        (optax_ext.lars(0.1, record=True, separate_norms=True), SUMMARIES),
        (optax_ext.lars(0.1, record=True, trust_ratio_mask=False), []),
        (optax.chain(optax_ext.scale_by_trust_ratio(record=True), optax.sgd(0.1)), SUMMARIES),
    ],
)
def test_keys(tx, keys):
    state = tx.init(PARAMS)
    assert list(optax_ext.metrics(state)) == keys
    if not any("trust" in key for key in keys):
        assert list(optax_ext.metrics(state, per_layer=True)) == keys


def test_types_inside_jit_and_outside():
    tx = optax_ext.dynamic_loss_scaling(lars())
    state = tx.init(PARAMS)
    read = functools.partial(optax_ext.metrics, learning_rate=0.5, per_layer=True)
    others = {"grads_finite": jnp.bool_, "skipped_steps": jnp.int32, "consecutive_skips": jnp.int32}
    for found in (read(state), jax.jit(read)(state)):
        for name, value in found.items():
            assert (value.shape, value.dtype, value.weak_type) == ((), others.get(name, jnp.float32), False), name


def test_a_scan_stacks_them():
    tx = optax_ext.skip_bad_steps(lars(optax_ext.Constant(0.5)))

    def step(state, factor):
        _, state = tx.update(jax.tree.map(lambda grad: factor * grad, GRADS), state, PARAMS)
        return state, optax_ext.metrics(state, optax_ext.Constant(0.5), per_layer=True)

    _, found = jax.lax.scan(step, tx.init(PARAMS), jnp.float32([1.0, jnp.inf, 2.0]))
    norms, _ = expected_of_layers(PARAMS, GRADS)
    np.testing.assert_allclose(found["update_norm/head/kernel"], norms[-1] * np.array([1, 1, 2]), rtol=1e-6)
    np.testing.assert_array_equal(found["skipped_steps"], [0, 1, 1])


@pytest.mark.parametrize(("numbers", "median"), [([5.0, 1.0, 30.0], 5.0), ([5.0, 1.0, 30.0, 4.0], 4.5)])
def test_the_median_of_odd_and_even_numbers_of_layers(numbers, median):
    record = dict(enumerate(map(jnp.float32, numbers)))
    found = optax_ext.metrics(optax_ext.transforms.TrustRatioState(record, record))
    assert [float(found[name]) for name in SUMMARIES] == 2 * [1.0, median, 30.0]


def test_an_infinite_norm_is_not_lost():
    record = {"a": jnp.float32(jnp.inf), "b": jnp.float32(1.0), "c": jnp.float32(2.0)}
    found = optax_ext.metrics(optax_ext.transforms.TrustRatioState(record, record))
    assert [float(found[name]) for name in SUMMARIES[3:]] == [1.0, 2.0, np.inf]


def test_layers_along_two_axes():
    params = {"moe": {"kernel": np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4)}}
    tx = optax_ext.scale_by_trust_ratio(stacked_axes=(0, 1), record=True)
    _, state = tx.update(jax.tree.map(np.ones_like, params), tx.init(params), params)
    found = optax_ext.metrics(state, per_layer=True)
    for index in np.ndindex(2, 3):
        ratio = found[f"trust_ratio/moe/kernel/{index[0]}/{index[1]}"]
        np.testing.assert_allclose(ratio, norm(params["moe"]["kernel"][index]) / 2, rtol=1e-6)
    assert len(found) == 2 * (3 + 6)


def test_a_parameter_by_itself():
    tx = optax_ext.scale_by_trust_ratio(record=True)
    assert "trust_ratio" in optax_ext.metrics(tx.init(jnp.ones(3)), per_layer=True)
    tx = optax_ext.scale_by_trust_ratio(record=True, stacked_axes=0)
    assert {"trust_ratio/0", "update_norm/1"} <= set(optax_ext.metrics(tx.init(jnp.ones((2, 3))), per_layer=True))


def test_a_parameter_that_is_called_like_a_summary():
    params = {"min": np.full(2, 3.0, np.float32), "max": {"kernel": np.ones(2, np.float32)}}
    tx = optax_ext.scale_by_trust_ratio(record=True)
    _, state = tx.update(jax.tree.map(np.ones_like, params), tx.init(params), params)
    found = optax_ext.metrics(state, per_layer=True)
    ratios = {name: float(value) for name, value in found.items() if name.startswith("trust_ratio/")}
    assert ratios == pytest.approx(
        {
            "trust_ratio/min": 1.0,
            "trust_ratio/median": 2.0,
            "trust_ratio/max": 3.0,
            "trust_ratio/max/kernel": 1.0,
            "trust_ratio/./min": 3.0,
        }
    )


def test_two_layers_of_one_key():
    params = {"a": jnp.ones((2, 3)), "a/0": jnp.ones(3)}
    state = optax_ext.scale_by_trust_ratio(record=True, stacked_axes={"a": 0, "a/0": None}).init(params)
    with pytest.raises(ValueError, match="two layers have the key 'trust_ratio/a/0': rename one of their parameters"):
        optax_ext.metrics(state, per_layer=True)
    assert list(optax_ext.metrics(state)) == SUMMARIES


def test_a_stack_of_no_layers_has_no_entry():
    params = {"blocks": jnp.ones((0, 3)), "head": jnp.full(4, 2.0)}
    for stacked_axes in ({"blocks": 0, "head": None}, None):
        tx = optax_ext.scale_by_trust_ratio(stacked_axes=stacked_axes, record=True)
        found = optax_ext.metrics(tx.update(params, tx.init(params), params)[1], per_layer=True)
        assert found["trust_ratio/head"] == 1
    state = optax_ext.scale_by_trust_ratio(stacked_axes=0, record=True).init(jnp.ones((0, 3)))
    assert optax_ext.metrics(state, per_layer=True) == {}


GUARD = {"max_norm_ratio": 4.0, "warmup_steps": 0}
FACTORS = [1.0, np.nan, np.nan, 100.0, 1.0, 100.0, np.nan]
BOTH = {
    "directly inside": lambda: optax_ext.skip_bad_steps(optax.sgd(0.1), **GUARD),
    "in a chain inside": lambda: optax.chain(optax.identity(), optax_ext.skip_bad_steps(optax.sgd(0.1), **GUARD)),
    "injected": lambda: optax.inject_hyperparams(optax_ext.skip_bad_steps)(inner=optax.sgd(0.1), **GUARD),
}


@pytest.mark.parametrize("place", BOTH)
def test_the_skips_of_a_loss_scale_and_a_guard(place):
    tx = optax_ext.dynamic_loss_scaling(BOTH[place](), initial_scale=8.0)

    @jax.jit
    def step(state, factor):
        grads = jax.tree.map(lambda grad: factor * optax.tree.get(state, "loss_scale") * grad, GRADS)
        _, state = tx.update(grads, state, PARAMS)
        return state, optax_ext.metrics(state)

    state, found = tx.init(PARAMS), []
    for factor in FACTORS:
        state, last = step(state, factor)
        found.append(last)
    assert [int(last["skipped_steps"]) for last in found] == [0, 1, 2, 3, 3, 4, 5]
    applied = [int(last["consecutive_skips"]) == 0 for last in found]
    assert applied == [True, False, False, False, True, False, False]
    assert {last[name].dtype for last in found for name in ("skipped_steps", "consecutive_skips")} == {np.dtype("i4")}


def test_the_skips_of_a_guard_directly_inside_are_counted_once_in_flax_nnx():
    tx = optax_ext.dynamic_loss_scaling(BOTH["directly inside"](), initial_scale=1.0)
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for factor in (1.0, 100.0):
        optimizer.update(model, jax.tree.map(lambda leaf, f=factor: jnp.full_like(leaf, f), nnx.state(model)))
    found = optax_ext.metrics(optimizer.opt_state)
    assert (int(found["skipped_steps"]), int(found["consecutive_skips"])) == (1, 1)


# What stands around, and how a model keeps its parameters.


def test_holes_have_no_entry():
    params = {"frozen": None, "steps": np.int32(3), "kernel": np.ones(2, np.float32)}
    masked = optax.masked(optax_ext.lars(0.1, record=True), {"frozen": True, "steps": True, "kernel": True})
    groups = optax.partition({"a": optax_ext.lars(0.1, record=True), "b": optax.set_to_zero()}, {"x": "a", "y": "b"})
    for state, name in ((masked.init(params), "kernel"), (groups.init({"x": np.ones(2), "y": np.ones(2)}), "x")):
        found = optax_ext.metrics(state, per_layer=True)
        assert list(found) == [*SUMMARIES[:3], f"trust_ratio/{name}", *SUMMARIES[3:], f"update_norm/{name}"]


def test_groups_that_both_record():
    groups = {"body": optax_ext.lars(0.1, record=True), "head": optax_ext.lamb(0.1, record=True)}
    state = optax.partition(groups, {"blocks": "body", "head": "head"}).init(PARAMS)
    found = optax_ext.metrics(state, per_layer=True)
    assert {"trust_ratio/blocks/kernel", "trust_ratio/head/kernel", "trust_ratio/head/bias"} <= set(found)


WRAPPERS = {
    "accumulation around": lambda: optax.MultiSteps(
        optax_ext.dynamic_loss_scaling(lars()), 1
    ).gradient_transformation(),
    "accumulation inside": lambda: optax_ext.dynamic_loss_scaling(
        optax.MultiSteps(lars(), 1).gradient_transformation()
    ),
    "injected": lambda: optax_ext.dynamic_loss_scaling(
        optax.inject_hyperparams(optax_ext.lars, static_args=[*recording])(0.5, **recording)
    ),
    "injected scale": lambda: optax.inject_hyperparams(optax_ext.dynamic_loss_scaling)(
        inner=lars(), initial_scale=2.0**15
    ),
    "master weights": lambda: optax_ext.dynamic_loss_scaling(
        optax_ext.master_weights(optax.chain(lars(), optax_ext.params_ema()))
    ),
    "masked in a chain": lambda: optax.chain(
        optax.identity(), optax.masked(optax_ext.dynamic_loss_scaling(lars()), True)
    ),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers(name):
    found = optax_ext.metrics(WRAPPERS[name]().init(PARAMS), per_layer=True)
    layers = {f"{field}/{path}" for field in ("trust_ratio", "update_norm") for path in LAYERS}
    assert set(found) == {"loss_scale", *SKIPS, *SUMMARIES, *layers} | (
        {"learning_rate"} if name == "injected" else set()
    )


def test_scalars_outlive_a_state_that_is_donated():
    tx = optax_ext.dynamic_loss_scaling(lars())
    for read in (optax_ext.metrics, jax.jit(optax_ext.metrics)):
        state = tx.init(PARAMS)
        found = read(state, jnp.float32(0.5)) | read(state)
        layers = optax_ext.metrics(state, per_layer=True)
        jax.jit(lambda state: state, donate_argnums=0)(state)
        jax.tree.map(lambda leaf: isinstance(leaf, jax.Array) and leaf.delete(), state)
        assert float(found["loss_scale"]) == 2.0**15
        assert all(np.isfinite(value) for value in (found | layers).values())


def test_a_step_that_donates_its_state_returns_them():
    tx = optax_ext.dynamic_loss_scaling(optax.sgd(0.1))

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, grads):
        _, state = tx.update(grads, state, PARAMS)
        return state, optax_ext.metrics(state)

    state, first = step(tx.init(PARAMS), GRADS)
    step(state, GRADS)
    assert float(first["loss_scale"]) == 2.0**15


def test_flax_nnx():
    class Network(nnx.Module):
        def __init__(self, rngs):
            make_blocks = nnx.split_rngs(splits=3)(nnx.vmap(lambda rngs: nnx.Linear(2, 2, rngs=rngs)))
            self.blocks = make_blocks(rngs)
            self.head = nnx.Linear(2, 1, rngs=rngs)

    optimizer = nnx.Optimizer(Network(nnx.Rngs(0)), optax_ext.dynamic_loss_scaling(lars(0.5)), wrt=nnx.Param)

    @nnx.jit
    def read(optimizer):
        return optax_ext.metrics(optimizer.opt_state, 0.5, per_layer=True)

    expected = {"loss_scale", *SKIPS, "learning_rate", *SUMMARIES}
    expected |= {f"{field}/{path}" for field in ("trust_ratio", "update_norm") for path in LAYERS}
    for found in (read(optimizer), optax_ext.metrics(optimizer.opt_state, 0.5, per_layer=True)):
        assert set(found) == expected
        assert all(isinstance(value, jax.Array) for value in found.values())
        assert float(found["loss_scale"]) == 2.0**15


def test_flax_nnx_schedules_and_injected_rates():
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    schedule = optax_ext.LinearWarmup(1.0, warmup_steps=4, warmup_learning_rate=0.5)
    for tx, rate in ((optax.sgd(schedule), schedule), (optax.inject_hyperparams(optax.sgd)(schedule), None)):
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        for expected in (0.5, 0.625):
            optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
            assert optax_ext.metrics(optimizer.opt_state, rate)["learning_rate"] == expected


def test_flax_linen_boxes_and_train_state():
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            init = nn.with_partitioning(nn.initializers.ones, ("in", "out"))
            return nn.Dense(2, kernel_init=init, name="head")(x)

    variables = Network().init(jax.random.key(0), jnp.ones((1, 2)))
    tx = optax_ext.dynamic_loss_scaling(optax_ext.lars(0.5, record=True, trust_ratio_mask=no_biases))
    train_state = TrainState.create(apply_fn=None, params=variables["params"], tx=tx)
    for found in (
        optax_ext.metrics(train_state.opt_state, per_layer=True),
        optax_ext.metrics(train_state, per_layer=True),
    ):
        assert [key for key in found if "/" in key and key not in SUMMARIES] == [
            "trust_ratio/head/kernel",
            "update_norm/head/kernel",
        ]


def test_equinox():
    model = eqx.nn.MLP(2, 2, 2, depth=1, key=jax.random.key(0))
    tx = optax_ext.dynamic_loss_scaling(optax_ext.lars(0.5, record=True))
    found = optax_ext.metrics(tx.init(eqx.filter(model, eqx.is_array)), per_layer=True)
    assert {"trust_ratio/layers/0/weight", "update_norm/layers/1/bias"} <= set(found)


# Devices.


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_sharded_layers(axis_type):
    mesh = jax.make_mesh((2,), ("data",), (axis_type,), devices=jax.devices()[:2])
    params = {"blocks": {"kernel": np.arange(1, 17, dtype=np.float32).reshape(4, 2, 2)}, "head": {"kernel": np.eye(2)}}
    tx = optax_ext.scale_by_trust_ratio(record=True, stacked_axes={"blocks": 0, "head": None})

    def step(state, params):
        _, state = tx.update(params, state, params)
        return optax_ext.metrics(state, per_layer=True)

    expected = jax.jit(step)(tx.init(params), params)
    placed = jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, P())), params)
    placed["blocks"] = jax.device_put(params["blocks"], NamedSharding(mesh, P("data")))
    with jax.set_mesh(mesh):
        state = tx.init(placed)
        found = jax.jit(step)(state, placed)
        eager = optax_ext.metrics(state, per_layer=True)
    check(found, expected)
    assert set(eager) == set(expected)


def test_inside_shard_map():
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    tx = optax_ext.dynamic_loss_scaling(lars(), axis_name="data")

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(), P(), P()), out_specs=P())
    def step(state, grads, params):
        _, state = tx.update(grads, state, params)
        return optax_ext.metrics(state, per_layer=True)

    found = jax.jit(step)(tx.init(PARAMS), jax.tree.map(lambda grad: 2.0**15 * grad, GRADS), PARAMS)
    expected = expected_metrics(per_layer=True)
    check({key: found[key] for key in expected}, expected)


# Mistakes.

TX = optax_ext.dynamic_loss_scaling(optax.sgd(0.1))
NOT_STATES = {
    "transformation": (lambda: TX, r"a transformation, GradientTransformationExtraArgs: call its init\(params\)"),
    "guard": (lambda: optax_ext.skip_bad_steps(optax.sgd(0.1)), "a transformation, GradientTransformationExtraArgs: "),
    "parameters": (lambda: PARAMS, "got dict without any of Optax's states: parameters"),
    "schedule": (lambda: optax_ext.Constant(0.1), "got Constant"),
    "model": (lambda: nnx.Linear(2, 2, rngs=nnx.Rngs(0)), "got a Flax NNX module, Linear: give the opt_state of its"),
}


@pytest.mark.parametrize("name", NOT_STATES)
def test_what_is_no_state(name):
    make, message = NOT_STATES[name]
    with pytest.raises(TypeError, match=message):
        optax_ext.metrics(make())


@pytest.mark.parametrize(
    ("tx", "kind"), [(TX, "LossScaleState"), (optax_ext.skip_bad_steps(optax.sgd(0.1)), "SkipBadStepsState")]
)
def test_of_several_optimizers_one_must_be_given(tx, kind):
    state = {"generator": tx.init(PARAMS), "discriminator": (tx.init(PARAMS),)}
    expected = rf"one {kind}, got 2, at opt_state\['discriminator'\]\[0\], opt_state\['generator'\]: give the part"
    with pytest.raises(ValueError, match=expected):
        optax_ext.metrics(state)
    assert "skipped_steps" in optax_ext.metrics(state["generator"])


def test_two_records_of_one_parameter():
    state = {"a": lars().init(PARAMS), "b": lars().init(PARAMS)}
    with pytest.raises(ValueError, match="got several that record 'blocks/kernel': give the part of the state"):
        optax_ext.metrics(state)
    assert list(optax_ext.metrics(state["a"])) == SUMMARIES


def test_a_state_with_a_leading_axis():
    state = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), TX.init(PARAMS))
    with pytest.raises(ValueError, match=r"loss_scale must be a scalar, got the shape \(2,\).* use jax.vmap over met"):
        optax_ext.metrics(state)
    assert jax.vmap(optax_ext.metrics)(state)["loss_scale"].shape == (2,)


def test_per_layer_is_a_flag():
    with pytest.raises(ValueError, match="per_layer must be True or False, got 'no'"):
        optax_ext.metrics(TX.init(PARAMS), per_layer=typing.cast(bool, "no"))
