"""Every optimizer schema against its formula in NumPy, and what the schemas accept."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config

PARAMS = {"kernel": jnp.array([[3.0, -4.0]]), "bias": jnp.array([1.0, 0.5])}
SCHEDULE = optax_ext.PolynomialDecay(0.5, 10, 0.1)
NEW = [
    config.Adam(0.1),
    config.Adam(0.1, amsgrad=True),
    config.AdamW(0.1, weight_decay_rate=0.1),
    config.LAMB(0.1, weight_decay_rate=0.1),
    config.RMSprop(0.1),
    config.RMSprop(0.1, momentum=0.9, centered=True),
    config.RMSprop(0.1, centered=True),
    config.Adagrad(0.1),
    config.LAMB(0.1, weight_decay_rate=0.1, decoupled_weight_decay=True),
    config.Adafactor(0.1, weight_decay_rate=0.1),
    config.Muon(0.1),
    config.ScheduleFreeAdamW(0.1, weight_decay_rate=0.1),
    config.Adadelta(0.1),
    config.Adamax(0.1),
    config.Nadam(0.1),
    config.Ftrl(0.1, l1_regularization_strength=0.1, weight_decay_rate=0.1),
    config.Lion(0.1, weight_decay_rate=0.1),
]
every_new = pytest.mark.parametrize("schema", NEW, ids=lambda schema: f"{schema.type}-{NEW.index(schema)}")


def make_grads(step):
    return {name: np.sin(np.float64(param) * (step + 1)) * (step + 1) for name, param in PARAMS.items()}


def run(tx, steps=6, make_grads=make_grads):
    params, state, update = PARAMS, tx.init(PARAMS), jax.jit(tx.update)
    for step in range(steps):
        grads = jax.tree.map(lambda grad: jnp.asarray(grad, jnp.float32), make_grads(step))
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def expect(schema, formula, steps=6, clip=lambda grads: grads):
    """Compare with `formula(step, rate, slots, p, g) -> p`, for each parameter by itself, in float64."""
    expected = {name: np.float64(param) for name, param in PARAMS.items()}
    slots = {name: {} for name in expected}
    for step in range(steps):
        rate = schema.learning_rate
        rate = float(rate(step) if callable(rate) else rate) / (1 + schema.decay * step)
        for name, grad in clip(make_grads(step)).items():
            expected[name] = formula(step + 1, rate, slots[name], expected[name], grad)
    chex.assert_trees_all_close(run(schema.make(), steps), jax.tree.map(np.float32, expected), rtol=2e-5)


def moments(slots, t, g, b1, b2):
    slots["m"] = b1 * slots.get("m", 0) + (1 - b1) * g
    slots["v"] = b2 * slots.get("v", 0) + (1 - b2) * g**2
    return slots["m"], slots["v"], 1 - b1**t, 1 - b2**t


def shrink(max_norm):
    """Clip by global norm."""

    def clip(grads):
        norm = np.sqrt(sum(np.sum(grad**2) for grad in grads.values()))
        return {name: grad * min(1, max_norm / norm) for name, grad in grads.items()}

    return clip


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("options", [{}, {"decay": 0.3}])
def test_adam_adds_epsilon_to_the_uncorrected_root(amsgrad, options):
    def formula(t, rate, slots, p, g):
        m, v, correct1, correct2 = moments(slots, t, g, 0.8, 0.9)
        slots["largest"] = np.maximum(v, slots.get("largest", 0)) if amsgrad else v
        return p - rate * np.sqrt(correct2) / correct1 * m / (np.sqrt(slots["largest"]) + 0.5)

    expect(config.Adam(SCHEDULE, 0.8, 0.9, 0.5, amsgrad, **options), formula)


def test_amsgrad_keeps_the_largest():
    """After one large gradient, small ones move little; without amsgrad they soon move more."""

    def grads(step):
        return jax.tree.map(lambda p: np.full(p.shape, 100.0 if step == 0 else 0.01), PARAMS)

    moved = [run(config.Adam(0.1, 0.0, 0.5, amsgrad=amsgrad).make(), 20, grads)["bias"] for amsgrad in (True, False)]
    assert (PARAMS["bias"] - moved[0] < 0.11).all()
    assert (PARAMS["bias"] - moved[1] > 0.13).all()


@pytest.mark.parametrize(
    ("patterns", "decaying"),
    [
        ({}, {"kernel", "bias"}),
        ({"exclude_from_weight_decay": ["bias"]}, {"kernel"}),
        ({"exclude_from_weight_decay": []}, {"kernel", "bias"}),
        ({"include_in_weight_decay": ["kernel"]}, {"kernel", "bias"}),
        ({"include_in_weight_decay": ["kernel"], "exclude_from_weight_decay": ["."]}, {"kernel"}),
        ({"include_in_weight_decay": ["bias$"], "exclude_from_weight_decay": ["bias", "kernel"]}, {"bias"}),
    ],
)
def test_adamw_decays_by_the_rate_what_is_included_or_not_excluded(patterns, decaying):
    schema = config.AdamW(0.1, weight_decay_rate=0.5, gradient_clip_norm=0, **patterns)
    plain = config.AdamW(0.1, gradient_clip_norm=0)
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = schema.make().update(grads, schema.make().init(PARAMS), PARAMS)
    without, _ = plain.make().update(grads, plain.make().init(PARAMS), PARAMS)
    for name, param in PARAMS.items():
        decay = -0.1 * 0.5 * param if name in decaying else 0 * param
        np.testing.assert_allclose(updates[name] - without[name], decay, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("times_learning_rate", [True, False])
@pytest.mark.parametrize(
    "schema",
    [
        config.SGD(SCHEDULE, decay=0.3),
        config.SGD(SCHEDULE, 0.9, nesterov=True),
        config.AdamW(SCHEDULE),
        config.SGD(0.1),
    ],
    ids=["sgd", "momentum", "adamw", "number"],
)
def test_decay_precedes_the_step_and_nothing_else_remembers_it(schema, times_learning_rate):
    """Other parameters than those that decay take the same steps, gradients being the same."""
    changes = {"weight_decay_rate": 0.25, "weight_decay_times_learning_rate": times_learning_rate}
    decaying = dataclasses.replace(schema, **changes, exclude_from_weight_decay=["bias"]).make()
    plain, params = schema.make(), PARAMS
    state, decaying_state = plain.init(PARAMS), decaying.init(PARAMS)
    for step in range(3):
        grads = jax.tree.map(lambda grad: jnp.asarray(grad, jnp.float32), make_grads(step))
        own, state = plain.update(grads, state, params)
        updates, decaying_state = decaying.update(grads, decaying_state, params)
        part = 0.25 * (float(schema.learning_rate_at(step)) if times_learning_rate else 1)
        np.testing.assert_allclose(updates["kernel"], own["kernel"] - part * params["kernel"], rtol=1e-5)
        np.testing.assert_array_equal(updates["bias"], own["bias"])
        params = optax.apply_updates(params, updates)


@pytest.mark.parametrize("schema", [config.SGD(0.1, 0.9), config.RMSprop(SCHEDULE), config.Adagrad(SCHEDULE)])
def test_without_decay_nothing_is_added(schema):
    assert "weight decay" not in [stage.name for stage in schema.stages()]
    assert schema.masks() == {}
    checking = dataclasses.replace(schema, exclude_from_weight_decay=["LayerNorm"]).make()
    with pytest.raises(ValueError, match="'LayerNorm' matches none of the 2 parameters"):
        checking.init(PARAMS)


@pytest.mark.parametrize("cls", [config.Adam, config.AdamW])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_without_epsilon_hat_epsilon_is_beside_the_corrected_root(cls, amsgrad):
    def formula(t, rate, slots, p, g):
        m, v, correct1, correct2 = moments(slots, t, g, 0.8, 0.9)
        slots["largest"] = np.maximum(v, slots.get("largest", 0)) if amsgrad else v
        return p - rate * (m / correct1) / (np.sqrt(slots["largest"] / correct2) + 0.5)

    options = {"gradient_clip_norm": 0.0} if cls is config.AdamW else {}
    expect(cls(SCHEDULE, 0.8, 0.9, 0.5, amsgrad, epsilon_hat=False, **options), formula)


@pytest.mark.parametrize("gradient_clip_norm", [0.0, 1.0, 0.01])
@pytest.mark.parametrize("options", [{}, {"decay": 0.3}])
def test_adamw_clips_by_global_norm_and_decays_before_the_step(gradient_clip_norm, options):
    def formula(t, rate, slots, p, g):
        m, v, correct1, correct2 = moments(slots, t, g, 0.9, 0.9)
        return (p - rate * 0.1 * p) - rate * np.sqrt(correct2) / correct1 * m / (np.sqrt(v) + 0.1)

    schema = config.AdamW(
        SCHEDULE, beta_2=0.9, epsilon=0.1, weight_decay_rate=0.1, gradient_clip_norm=gradient_clip_norm, **options
    )
    expect(schema, formula, clip=shrink(gradient_clip_norm) if gradient_clip_norm else lambda grads: grads)
    if not options:
        assert config.AdamW(0.1).gradient_clip_norm == 1.0


def test_adamw_clips_by_its_own_norm_before_what_every_optimizer_clips_by():
    schema = config.AdamW(0.1, 0.0, 0.0, 1.0, gradient_clip_norm=1.0, clipvalue=0.5)
    grads = {"kernel": jnp.array([[8.0, 0.0]]), "bias": jnp.array([6.0, 0.0])}
    tx = schema.make()
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)  # norm first: 0.8 and 0.6, and then 0.5 and 0.5
    np.testing.assert_allclose(updates["kernel"][0, 0], -0.1 * 0.5 / 1.5, rtol=1e-5)
    np.testing.assert_allclose(updates["bias"][0], updates["kernel"][0, 0], rtol=1e-6)
    first = config.AdamW(0.1, 0.0, 0.0, 1.0, gradient_clip_norm=1.0, clipvalue=7.0).make()
    updates, _ = first.update(grads, first.init(PARAMS), PARAMS)  # by value first, it would be 7 and 6 of 9.2
    np.testing.assert_allclose(updates["kernel"][0, 0], -0.1 * 0.8 / 1.8, rtol=1e-5)


def test_lamb_is_the_function_with_its_lists():
    schema = config.LAMB(SCHEDULE, 0.8, 0.9, 1e-3, 0.1, ["bias"], [])
    function = optax_ext.lamb(
        SCHEDULE, b1=0.8, b2=0.9, eps=1e-3, weight_decay=0.1, weight_decay_mask=optax_ext.path_mask(exclude=["bias"])
    )
    chex.assert_trees_all_close(run(schema.make()), run(function), rtol=1e-5)


@pytest.mark.parametrize(("excluded", "adapts"), [(None, False), ([], True), (["kernel"], True)])
def test_lamb_without_a_list_falls_back_to_the_weight_decay_list_and_an_empty_list_does_not(excluded, adapts):
    tx = config.LAMB(0.1, exclude_from_weight_decay=["bias"], exclude_from_layer_adaptation=excluded).make()
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS), PARAMS)
    ratio = np.linalg.norm(PARAMS["bias"]) / np.sqrt(2) if adapts else 1.0
    np.testing.assert_allclose(updates["bias"], -0.1 * ratio, rtol=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("options", [{}, {"decay": 0.3}])
def test_rmsprop_has_epsilon_in_the_root_with_momentum_and_outside_without(momentum, centered, options):
    def formula(t, rate, slots, p, g):
        slots["n"] = 0.8 * slots.get("n", 0) + 0.2 * g**2
        slots["a"] = 0.8 * slots.get("a", 0) + 0.2 * g if centered else 0
        variance = slots["n"] - slots["a"] ** 2
        step = rate * g / (np.sqrt(variance + 0.3) if momentum else np.sqrt(variance) + 0.3)
        slots["v"] = momentum * slots.get("v", 0) + step
        return p - slots["v"]

    expect(config.RMSprop(SCHEDULE, 0.8, momentum, 0.3, centered, **options), formula)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_rmsprop_stays_finite_when_rounding_makes_a_variance_negative(momentum):
    """A steady gradient has none; `optax.scale_by_stddev` returns NaN here, and so does TensorFlow."""
    params, tx = jnp.zeros(2000), config.RMSprop(1e-3, 0.7, momentum, centered=True).make()
    grads = jnp.asarray(np.random.default_rng(0).normal(size=2000) * 10, jnp.float32)
    theirs = optax.scale_by_stddev(0.7, 1e-7, eps_in_sqrt=False)
    state, their_state, update, their_update = tx.init(params), theirs.init(params), jax.jit(tx.update), theirs.update
    found_nan = False
    for _ in range(60):
        updates, state = update(grads, state, params)
        theirs_updates, their_state = their_update(grads, their_state)
        found_nan |= bool(jnp.isnan(theirs_updates).any())
        chex.assert_tree_all_finite(updates)
    assert found_nan


@pytest.mark.parametrize("initial_accumulator_value", [0.0, 0.1])
@pytest.mark.parametrize("options", [{}, {"decay": 0.3}])
def test_adagrad_adds_epsilon_to_the_root(initial_accumulator_value, options):
    def formula(t, rate, slots, p, g):
        slots["a"] = slots.get("a", initial_accumulator_value) + g**2
        return p - rate * g / (np.sqrt(slots["a"]) + 0.3)

    expect(config.Adagrad(SCHEDULE, initial_accumulator_value, 0.3, **options), formula)


def test_epsilon_in_the_root_is_that_of_newer_keras():
    """The first steps of tf_keras 2.21 with a gradient of 1e-5 and a learning rate of 1."""
    params, grads = {"w": jnp.zeros(1)}, {"w": jnp.full(1, 1e-5)}
    for schema, expected in (
        (config.RMSprop(1.0, epsilon_in_root=True), -0.0316),
        (config.RMSprop(1.0, momentum=0.9, epsilon_in_root=True), -0.0316),
        (config.RMSprop(1.0), -3.065),
        (config.Adagrad(1.0, 0.0, epsilon_in_root=True), -0.0316),
        (config.Adagrad(1.0, 0.0), -0.990),
    ):
        tx = schema.make()
        np.testing.assert_allclose(tx.update(grads, tx.init(params), params)[0]["w"], expected, rtol=2e-3)


@every_new
def test_zero_gradients_are_no_problem(schema):
    chex.assert_tree_all_finite(run(schema.make(), 3, lambda step: jax.tree.map(jnp.zeros_like, PARAMS)))


@every_new
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_keeps_its_dtype_and_trains_on_large_and_small_gradients(schema, dtype):
    """In float16 the square of 300 overflows and that of 1e-4 vanishes; the state is in float32 and never changes."""
    tx = schema.make()
    params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
    grads = {"kernel": jnp.full((1, 2), 300.0, dtype), "bias": jnp.full(2, 1e-4, dtype)}
    exact = jax.tree.map(lambda p: p.astype(jnp.float32), params), jax.tree.map(lambda g: g.astype(jnp.float32), grads)
    state, update = tx.init(params), jax.jit(tx.update)
    types = jax.tree.map(lambda leaf: leaf.dtype, state)
    for name in ("mu", "nu", "nu_max", "sum_of_squares", "e_g", "e_x", "accumulator", "linear"):
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(optax.tree.get(state, name)))
    updates, state = update(grads, state, params)
    expected, _ = update(exact[1], tx.init(exact[0]), exact[0])
    assert jax.tree.map(lambda leaf: leaf.dtype, state) == types
    for name in params:
        assert updates[name].dtype == dtype
        np.testing.assert_allclose(np.float32(updates[name]), expected[name], rtol=2e-2, atol=1e-6)


@every_new
def test_of_complex_numbers_the_magnitude_counts_and_the_direction_stays(schema):
    """Turned by an angle, gradients and parameters make updates that are turned by the same."""
    turn = jnp.exp(1j * jnp.float32(0.7))
    results = []
    for factor in (1.0, turn):
        params, tx = jax.tree.map(lambda p, factor=factor: p * factor, PARAMS), schema.make()
        state, update = tx.init(params), jax.jit(tx.update)
        for step in range(4):
            grads = jax.tree.map(lambda g, factor=factor: jnp.float32(g) * factor, make_grads(step))
            updates, state = update(grads, state, params)
        results.append(jax.tree.map(lambda u, factor=factor: u / factor, updates))
    chex.assert_trees_all_close(results[1], jax.tree.map(jnp.complex64, results[0]), rtol=1e-4, atol=1e-7)


@every_new
def test_a_parameter_without_a_gradient_keeps_its_state(schema):
    tx = schema.make()
    _, state = tx.update(jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS), PARAMS)
    updates, after = jax.jit(tx.update)({"kernel": jnp.full((1, 2), 2.0), "bias": None}, state, PARAMS)
    assert updates["bias"] is None
    assert jax.tree.structure(after) == jax.tree.structure(state)
    moved = {
        jax.tree_util.keystr(path): bool((new != old).any())
        for (path, new), old in zip(jax.tree_util.tree_leaves_with_path(after), jax.tree.leaves(state), strict=True)
    }
    assert not any(moves for path, moves in moved.items() if "bias" in path)
    assert any(moves for path, moves in moved.items() if "kernel" in path)


@pytest.mark.parametrize(
    "schema",
    [
        config.AdamW(0.1, exclude_from_weight_decay=["bias", "LayerNorm"]),
        config.AdamW(0.1, include_in_weight_decay=["LayerNorm"]),
        config.LAMB(0.1, exclude_from_weight_decay=["LayerNorm"]),
        config.LAMB(0.1, exclude_from_layer_adaptation=["LayerNorm"]),
        config.LAMB(0.1, weight_decay_rate=0.1, exclude_from_weight_decay=["LayerNorm"], decoupled_weight_decay=True),
        config.Adafactor(0.1, weight_decay_rate=0.1, exclude_from_weight_decay=["LayerNorm"]),
        config.Muon(0.1, exclude_layers=["LayerNorm"]),
        config.Muon(0.1, exclude_from_weight_decay=["LayerNorm"]),
        config.ScheduleFreeAdamW(0.1, weight_decay_rate=0.1, exclude_from_weight_decay=["LayerNorm"]),
        config.Lion(0.1, weight_decay_rate=0.1, exclude_from_weight_decay=["LayerNorm"]),
        config.Ftrl(0.1, weight_decay_rate=0.1, exclude_from_weight_decay=["LayerNorm"]),
    ],
)
def test_a_pattern_without_a_match_is_an_error_unless_allowed(schema):
    with pytest.raises(ValueError, match="'LayerNorm' matches none of the 2 parameters"):
        schema.make().init(PARAMS)
    allowing = config.to_dict(schema) | {"allow_unmatched": True}
    config.from_dict(allowing).make().init(PARAMS)


@pytest.mark.parametrize(
    ("make", "path", "message"),
    [
        (lambda: config.Adam(-1.0), "learning_rate", "must be greater than or equal to 0"),
        (lambda: config.Adam(0.1, beta_1=1.0), "beta_1", "must be less than 1"),
        (lambda: config.Adam(0.1, beta_2=-0.1), "beta_2", "must be greater than or equal to 0"),
        (lambda: config.Adam(0.1, epsilon=0.0), "epsilon", "must be greater than 0"),
        (lambda: config.Adam(0.1, amsgrad=1), "amsgrad", "must be true or false"),
        (lambda: config.AdamW(0.1, gradient_clip_norm=-1.0), "gradient_clip_norm", "must be greater than or equal"),
        (lambda: config.AdamW(0.1, include_in_weight_decay="bias"), "include_in_weight_decay", "must be a list"),
        (
            lambda: config.AdamW(0.1, exclude_from_weight_decay=["("]),
            "exclude_from_weight_decay.0",
            "must be a regular",
        ),
        (lambda: config.LAMB(0.1, exclude_from_weight_decay=None), "exclude_from_weight_decay", "must be a list"),
        (lambda: config.RMSprop(0.1, rho=1.0), "rho", "must be less than 1"),
        (lambda: config.RMSprop(0.1, momentum=1.5), "momentum", "must be less than or equal to 1"),
        (lambda: config.Adagrad(0.1, initial_accumulator_value=-1.0), "initial_accumulator_value", "must be greater"),
        (lambda: config.Adagrad(0.1, clipnorm=1.0, global_clipnorm=1.0), "global_clipnorm", "must not be given with"),
        (lambda: config.LAMB(0.1, decoupled_weight_decay=1), "decoupled_weight_decay", "must be true or false"),
        (lambda: config.Adafactor(0.1, beta_2_decay=0.8), "beta_2_decay", "must be less than or equal to 0, got 0.8"),
        (lambda: config.Adafactor(0.1, epsilon_1=0.0), "epsilon_1", "must be greater than 0"),
        (lambda: config.Adafactor(0.1, epsilon_2=-1.0), "epsilon_2", "must be greater than or equal to 0"),
        (lambda: config.Adafactor(0.1, clip_threshold=0.0), "clip_threshold", "must be greater than 0"),
        (lambda: config.Adafactor(0.1, relative_step=None), "relative_step", "must be true or false"),
        (lambda: config.Muon(0.1, exclude_layers="head"), "exclude_layers", "must be a list"),
        (lambda: config.Muon(0.1, exclude_embeddings="yes"), "exclude_embeddings", "must be true or false"),
        (lambda: config.Muon(0.1, ns_steps=2.5), "ns_steps", "must be an integer"),
        (lambda: config.Muon(0.1, rms_rate=0.0), "rms_rate", "must be greater than 0"),
        (lambda: config.Muon(0.1, adam_lr_ratio=-1.0), "adam_lr_ratio", "must be greater than or equal to 0"),
        (lambda: config.Muon(0.1, weight_decay_rate=None), "weight_decay_rate", "must be a number"),
        (lambda: config.ScheduleFreeAdamW(0.1, beta_1=0.0), "beta_1", "must be greater than 0, got 0"),
        (lambda: config.ScheduleFreeAdamW(0.1, beta_1=1.5), "beta_1", "must be less than or equal to 1"),
        (lambda: config.ScheduleFreeAdamW(0.1, warmup_steps=-1), "warmup_steps", "must be greater than or equal to 0"),
        (lambda: config.SGD(0.1, weight_decay_rate=-1.0), "weight_decay_rate", "must be greater than or equal to 0"),
        (lambda: config.SGD(0.1, exclude_from_weight_decay="bias"), "exclude_from_weight_decay", "must be a list"),
        (lambda: config.Adam(0.1, epsilon_hat=0), "epsilon_hat", "must be true or false, got 0"),
        (lambda: config.Adadelta(0.1, rho=1.0), "rho", "must be less than 1"),
        (lambda: config.Adamax(0.1, epsilon=0.0), "epsilon", "must be greater than 0"),
        (lambda: config.Nadam(0.1, momentum_decay=-1.0), "momentum_decay", "must be greater than or equal to 0"),
        (lambda: config.Ftrl(0.1, 0.5), "learning_rate_power", "must be less than or equal to 0, got 0.5"),
        (lambda: config.Ftrl(0.1, beta=-1.0), "beta", "must be greater than or equal to 0"),
        (lambda: config.Lion(0.1, beta_1=1.5), "beta_1", "must be less than or equal to 1"),
        (lambda: config.ParamsEma(average_decay=1.5), "average_decay", "must be less than or equal to 1"),
        (lambda: config.ParamsEma(average_decay="0.9"), "average_decay", "must be a number or a schedule, got '0.9'"),
        (
            lambda: config.ParamsEma(optax.constant_schedule(0.9)),
            "average_decay",
            "must be a number or a schedule, got the Optax schedule",
        ),
        (
            lambda: config.ParamsEma(optax_ext.Constant(1.5)),
            "average_decay",
            "must be in [0, 1], got a schedule that is 1.5 at step 0",
        ),
        (
            lambda: config.ParamsEma(optax_ext.PolynomialDecay(0.5, 10, end_learning_rate=5.0)),
            "average_decay",
            "must be in [0, 1], got a schedule that is 5 at step 10",
        ),
        (
            lambda: config.ParamsEma({"type": "step_cosine_decay", "boundaries": [0, 5], "values": [0.5]}),
            "average_decay.values",
            "must have",
        ),
        (lambda: config.ParamsEma(debias="yes"), "debias", "must be true or false, got 'yes'"),
        (lambda: config.ParamsEma(start_step=-1), "start_step", "must be greater than or equal to 0"),
        (lambda: config.ParamsEma(initial="ones"), "initial", "must be 'zeros' or 'params'"),
    ],
)
def test_errors(make, path, message):
    with pytest.raises(config.ConfigError) as raised:
        make()
    (problem,) = raised.value.problems
    assert problem.path == path
    assert problem.message.startswith(message)


def test_the_average_is_inside_the_loss_scaling_and_after_the_optimizer():
    recipe = config.OptimizationConfig(
        config.SGD(0.5), config.FixedLossScale(8.0), config.ParamsEma(0.0, dynamic_decay=False)
    )
    tx = recipe.make()
    state = tx.init(PARAMS)
    updates, after = tx.update(jax.tree.map(lambda p: 8 * p, PARAMS), state, PARAMS)
    chex.assert_trees_all_equal(optax_ext.ema_params(after), optax.apply_updates(PARAMS, updates))
    _, skipped = tx.update(jax.tree.map(lambda p: jnp.nan * p, PARAMS), after, PARAMS)
    chex.assert_trees_all_equal(skipped.inner_state, after.inner_state)
    with pytest.raises(ValueError, match="must hold one ParamsEmaState, got 0"):
        optax_ext.ema_params(config.OptimizationConfig(config.SGD(0.5)).make().init(PARAMS))


def test_an_average_is_written_without_a_type_and_read_from_a_mapping():
    recipe = config.OptimizationConfig(config.SGD(0.5), ema=config.ParamsEma(0.9999, trainable_weights_only=False))
    data = config.to_dict(recipe, exclude_defaults=True)
    assert data["ema"] == {"average_decay": 0.9999, "trainable_weights_only": False}
    assert config.from_dict(data) == recipe == config.OptimizationConfig(config.SGD(0.5), None, data["ema"])
    assert config.from_dict(data | {"ema": {}}).ema == config.ParamsEma()
    with pytest.raises(config.ConfigError) as raised:
        config.from_dict(data | {"ema": {"average_deca": 0.5, "start_step": -1, "type": "ema"}})
    assert {problem.path for problem in raised.value.problems} == {"ema.average_deca", "ema.start_step", "ema.type"}
    with pytest.raises(config.ConfigError, match=r"ema: must be a mapping of 'average_decay', .* got 0.99"):
        config.OptimizationConfig(config.SGD(0.5), ema=0.99)


def test_an_average_whose_decay_is_a_schedule(tmp_path):
    rising = {"type": "step_cosine_decay", "boundaries": [0, 4], "values": [0.5, 1.0]}
    text = """\
optimizer: {type: sgd, learning_rate: 0.5}
ema:
  average_decay: {type: step_cosine_decay, boundaries: [0, 4], values: [0.5, 1.0]}
  dynamic_decay: false
  debias: true
"""
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = config.load(tmp_path / "recipe.yaml", config.OptimizationConfig)
    schedule = optax_ext.StepCosineDecay([0, 4], [0.5, 1.0])
    assert recipe.ema == config.ParamsEma(schedule, dynamic_decay=False, debias=True)
    assert config.to_dict(recipe, exclude_defaults=True)["ema"]["average_decay"] == rising
    for name in ("again.yaml", "again.json"):
        config.save(recipe, tmp_path / name)
        assert config.load(tmp_path / name) == recipe
    average_decay = config.json_schema()["$defs"]["ParamsEma"]["properties"]["average_decay"]
    number = {"type": "number", "minimum": 0, "maximum": 1}
    assert (average_decay["anyOf"], average_decay["default"]) == ([number, {"$ref": "#/$defs/Schedule"}], 0.99)

    function = optax_ext.params_ema(schedule, dynamic_decay=False, debias=True)
    average = recipe.ema.make()
    ours, theirs = average.init(PARAMS), function.init(PARAMS)
    for tripled in (PARAMS, jax.tree.map(lambda p: 3 * p, PARAMS)):
        _, ours = average.update(tripled, ours, PARAMS)
        _, theirs = function.update(tripled, theirs, PARAMS)
    chex.assert_trees_all_equal(ours, theirs)
    decay, first = float(schedule(1)), 0.5
    weight = 1 - first * decay  # twice the parameters, then four times
    expected = (2 * (1 - first) * decay + 4 * (1 - decay)) / weight
    np.testing.assert_allclose(ours.ema["bias"], expected * PARAMS["bias"], rtol=1e-6)


@pytest.mark.parametrize("trainable_weights_only", [True, False])
@pytest.mark.parametrize(
    ("start_step", "dynamic_decay", "initial", "factor"),
    [(2, False, "params", 2.0), (0, False, "params", 1.51), (0, False, "zeros", 1.02), (0, True, "zeros", 21 / 11)],
)
def test_the_schema_of_the_average_makes_the_function(
    start_step, dynamic_decay, initial, factor, trainable_weights_only
):
    schema = config.ParamsEma(0.7, start_step, dynamic_decay, initial, trainable_weights_only)
    function = optax_ext.params_ema(0.7, start_step=start_step, dynamic_decay=dynamic_decay, initial=initial)
    for tx in (schema.make(), function):
        _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)  # to twice the parameters, two times
        _, state = tx.update(PARAMS, state, PARAMS)
        np.testing.assert_allclose(optax_ext.ema_params(state)["bias"], factor * PARAMS["bias"], rtol=1e-6)
