"""LARS and LAMB against their formulas in NumPy, in every combination of options."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext

PARAMS = {"kernel": np.array([[1.0, -2.0], [0.5, 0.25]], np.float32), "bias": np.array([0.1, -0.3], np.float32)}
SCHEDULE = optax_ext.PolynomialDecay(0.5, 5, 0.1)


def gradients(step):
    rng = np.random.default_rng(step)
    return {name: rng.normal(size=param.shape).astype(np.float32) for name, param in PARAMS.items()}


def trust(param, x, adapts):
    return 0.01 * np.linalg.norm(param) / (np.linalg.norm(x) + 1e-3) if adapts else 1.0


@pytest.mark.parametrize("separate_norms", [False, True])
def test_the_rate_may_stand_outside_the_momentum(separate_norms):
    settings = {"weight_decay": 0.1, "nesterov": True, "separate_norms": separate_norms}
    outside = optax_ext.lars(SCHEDULE, learning_rate_in_momentum=False, **settings)
    chained = optax.chain(optax_ext.lars(1.0, **settings), optax.scale_by_schedule(SCHEDULE))
    state, expected_state = outside.init(PARAMS), chained.init(PARAMS)
    for step in range(3):
        updates, state = outside.update(gradients(step), state, PARAMS)
        expected, expected_state = chained.update(gradients(step), expected_state, PARAMS)
        chex.assert_trees_all_close(updates, expected, rtol=1e-6)
    inside = optax_ext.lars(SCHEDULE, **settings)
    state = inside.init(PARAMS)
    for step in range(3):
        updates, state = inside.update(gradients(step), state, PARAMS)
    assert np.abs(updates["kernel"] / expected["kernel"] - 1).max() > 0.01


def test_the_rate_of_the_popular_form_stands_outside_the_momentum_anyway():
    popular = [optax_ext.lars(SCHEDULE, classic_momentum=False, learning_rate_in_momentum=on) for on in (True, False)]
    assert [*map(list, map(optax_ext.transforms.stages_of, popular))] == 2 * [
        ["weight decay", "momentum", "trust ratio", "learning rate"]
    ]


@pytest.mark.parametrize(("nesterov", "classic", "masked"), [*itertools.product([False, True], repeat=3)])
def test_lars_is_its_formula(nesterov, classic, masked):
    mask = optax_ext.path_mask(exclude=["bias"]) if masked else True
    tx = optax_ext.lars(
        SCHEDULE,
        momentum=0.9,
        weight_decay=0.1,
        trust_coefficient=0.01,
        eps=1e-3,
        nesterov=nesterov,
        classic_momentum=classic,
        weight_decay_mask=mask,
        trust_ratio_mask=mask,
    )
    params, state = PARAMS, tx.init(PARAMS)
    expected = dict(PARAMS)
    velocity = jax.tree.map(np.zeros_like, PARAMS)
    update = jax.jit(tx.update)
    for step in range(4):
        grads, rate = gradients(step), float(SCHEDULE(step))
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for name, p in expected.items():
            chosen = not (masked and name == "bias")
            g = grads[name] + (0.1 * p if chosen else 0)
            s = rate * trust(p, g, chosen) if classic else 1
            v = velocity[name] = 0.9 * velocity[name] + s * g
            u = 0.9 * v + s * g if nesterov else v
            expected[name] = p - (u if classic else rate * trust(p, u, chosen) * u)
        chex.assert_trees_all_close(params, expected, rtol=2e-6, atol=1e-7)


def test_lars_keeps_the_momentum_of_a_parameter_without_a_gradient():
    tx = optax_ext.lars(0.5, weight_decay=0.1)
    state = tx.init(PARAMS)
    _, state = tx.update(gradients(0), state, PARAMS)
    before = optax.tree.get(state, "trace")
    updates, state = tx.update({**gradients(1), "kernel": None}, state, PARAMS)
    assert updates["kernel"] is None
    chex.assert_trees_all_equal(optax.tree.get(state, "trace")["kernel"], before["kernel"])
    updates, _ = tx.update(gradients(2), state, PARAMS)
    assert np.isfinite(updates["kernel"]).all()
    theirs = optax.lars(0.5, weight_decay=0.1)
    with pytest.raises(ValueError, match="None"):
        theirs.update({**gradients(1), "kernel": None}, theirs.init(PARAMS), PARAMS)


def test_lars_moves_a_layer_in_low_precision():
    for dtype, gradient in itertools.product([jnp.float16, jnp.bfloat16], [300.0, 1e-4]):
        params = jnp.ones(1000, dtype)
        tx = optax_ext.lars(100.0)
        updates, state = tx.update(jnp.full(1000, gradient, dtype), tx.init(params), params)
        np.testing.assert_allclose(np.float32(updates), -0.1, rtol=0.01)
        chex.assert_trees_all_equal_dtypes(updates, optax.tree.get(state, "trace"), params)


def test_lars_holds_where_weight_decay_cancels_the_gradient():
    params = jnp.asarray(np.random.default_rng(0).normal(size=100), jnp.float32)
    tx = optax_ext.lars(0.5, weight_decay=0.1, momentum=0.0)
    updates, _ = tx.update(-jnp.float32(0.1) * params, tx.init(params), params)
    chex.assert_trees_all_equal(updates, jnp.zeros(100))  # nothing is left, so nothing is scaled up


@pytest.mark.parametrize("make", [optax_ext.lars, optax_ext.lamb])
class TestBoth:
    @pytest.mark.parametrize("masked", [False, True])
    def test_the_trust_ratio_mask_decides_what_adapts(self, make, masked):
        params = {"kernel": jnp.full(3, 5.0), "bias": jnp.full(3, 5.0)}
        tx = make(0.5, trust_ratio_mask=optax_ext.path_mask(exclude=["bias"]) if masked else True)
        updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
        assert bool((updates["kernel"] == updates["bias"]).all()) is not masked

    @pytest.mark.parametrize("masked", [False, True])
    def test_the_weight_decay_mask_decides_what_decays(self, make, masked):
        params = {"kernel": jnp.full(3, 5.0), "bias": jnp.full(3, 5.0)}
        tx = make(0.5, weight_decay=0.1, weight_decay_mask={"kernel": True, "bias": not masked})
        updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
        assert updates["kernel"].any()
        assert bool(updates["bias"].any()) is not masked

    @pytest.mark.parametrize("name", ["weight_decay_mask", "trust_ratio_mask"])
    def test_a_mask_is_a_function_or_a_tree_of_bool_or_none(self, make, name):
        for mask in ("bias", ["bias"], {"kernel": "no", "bias": "no"}, 1):
            with pytest.raises(ValueError, match=rf"{name} must be a tree of bool, or a function.*path_mask"):
                make(0.5, **{name: mask})
        tx = make(0.5, **{name: None})
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)

    def test_missing_and_masked_gradients(self, make):
        params = {**PARAMS, "masked": optax.MaskedNode()}
        tx = make(0.5, weight_decay=0.1)
        state = tx.init(params)
        updates, next_state = tx.update({**params, "bias": None}, state, params)
        assert updates["bias"] is None
        assert updates["masked"] == optax.MaskedNode()
        chex.assert_trees_all_equal_structs(next_state, state)

    def test_extra_arguments_are_forwarded_and_ignored(self, make):
        tx = make(0.5)
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=jnp.float32(0.5))

    def test_parameters_are_required(self, make):
        tx = make(0.5)
        with pytest.raises(ValueError, match="param"):
            tx.update(PARAMS, tx.init(PARAMS))

    @pytest.mark.parametrize(
        ("value", "accepted"),
        [
            *(
                (-1.0, "greater than or equal to 0"),
                (float("nan"), "a finite number"),
                (float("inf"), "a finite number"),
            ),
            *((value, "a number or a schedule") for value in ("0.1", None, True, jnp.ones(3))),
        ],
    )
    def test_a_bad_learning_rate_is_named(self, make, value, accepted):
        with pytest.raises(ValueError, match=f"learning_rate must be {accepted}, got"):
            make(value)

    def test_a_bad_weight_decay_is_named(self, make):
        with pytest.raises(ValueError, match="weight_decay must be greater than or equal to 0, got -0.1"):
            make(0.1, weight_decay=-0.1)

    def test_weight_decay_may_be_a_schedule(self, make):
        tx = make(0.5, weight_decay=optax_ext.PiecewiseConstantDecay((0,), (0.0, 0.5)))
        zeros, state = jax.tree.map(np.zeros_like, PARAMS), tx.init(PARAMS)
        updates, state = tx.update(zeros, state, PARAMS)
        assert not updates["kernel"].any()
        updates, _ = tx.update(zeros, state, PARAMS)
        assert updates["kernel"].any()


@pytest.mark.parametrize(
    ("momentum", "accepted"),
    [
        *((-0.1, "greater than or equal to 0"), (1.5, "less than or equal to 1")),
        *((float("nan"), "a finite number"), ("x", "a number")),
    ],
)
def test_a_bad_momentum_is_named(momentum, accepted):
    with pytest.raises(ValueError, match=f"momentum must be {accepted}, got {momentum!r}"):
        optax_ext.lars(0.1, momentum=momentum)


@pytest.mark.parametrize(
    ("make", "name"), [(optax_ext.lamb, "eps"), (optax_ext.lars, "eps"), (optax_ext.lars, "trust_coefficient")]
)
def test_a_negative_argument_is_named(make, name):
    with pytest.raises(ValueError, match=f"{name} must be greater than or equal to 0, got -1.0"):
        make(0.1, **{name: -1.0})


@pytest.mark.parametrize("name", ["nesterov", "classic_momentum"])
def test_a_flag_is_a_bool(name):
    with pytest.raises(ValueError, match=f"{name} must be True or False, got 'popular'"):
        optax_ext.lars(0.1, **{name: "popular"})


@pytest.mark.parametrize("name", ["b1", "b2"])
def test_a_bad_moment_decay_is_named(name):
    with pytest.raises(ValueError, match=f"{name} must be less than 1, got 1.0"):
        optax_ext.lamb(0.1, **{name: 1.0})


def test_lamb_is_its_formula():
    tx = optax_ext.lamb(SCHEDULE, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.1)
    params, state, expected = PARAMS, tx.init(PARAMS), dict(PARAMS)
    first, second = jax.tree.map(np.zeros_like, PARAMS), jax.tree.map(np.zeros_like, PARAMS)
    for step in range(3):
        grads = gradients(step)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for name, p in expected.items():
            m = first[name] = 0.8 * first[name] + 0.2 * grads[name]
            v = second[name] = 0.95 * second[name] + 0.05 * grads[name] ** 2
            u = m / (1 - 0.8 ** (step + 1)) / (np.sqrt(v / (1 - 0.95 ** (step + 1))) + 1e-3) + 0.1 * p
            expected[name] = p - float(SCHEDULE(step)) * np.linalg.norm(p) / np.linalg.norm(u) * u
        chex.assert_trees_all_close(params, expected, rtol=1e-5)


@pytest.mark.parametrize(("make", "field"), [(optax_ext.lars, "trace"), (optax_ext.lamb, "mu")], ids=["lars", "lamb"])
@pytest.mark.parametrize(("dtype", "accumulator"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_momentum_is_kept_in_the_dtype_that_is_asked_for(make, field, dtype, accumulator):
    tx = make(0.1, weight_decay=optax_ext.Constant(0.1), accumulator_dtype=accumulator)
    params = jnp.ones(3, dtype)
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(2):
        updates, state = update(params, state, params)
        assert optax.tree.get(state, field).dtype == accumulator
        assert jnp.isfinite(updates).all()
    default = make(0.1).init(params)
    assert optax.tree.get(default, field).dtype == ("float32" if make is optax_ext.lamb else dtype)


def test_momentum_of_complex_parameters_stays_complex():
    params, grads = jnp.ones(3, jnp.complex64), jnp.full(3, 1 + 1j)
    updates = []
    for accumulator_dtype in (None, "float32"):
        tx = optax_ext.lars(0.1, trust_ratio_mask=False, accumulator_dtype=accumulator_dtype)
        state = tx.init(params)
        for _ in range(3):
            update, state = tx.update(grads, state, params)
        updates.append(update)
    chex.assert_trees_all_equal(*updates)


class TestSeparateNorms:
    @pytest.mark.parametrize("nesterov", [False, True])
    @pytest.mark.parametrize("weight_decay", [0.3, lambda step: 0.3 + 0.1 * step])
    def test_gradient_and_decay_have_norms_apart(self, nesterov, weight_decay):
        rng = np.random.default_rng(0)
        params = {name: rng.normal(size=(3, 2)) for name in ("both", "decay", "trust", "neither")}
        grads = {name: rng.normal(size=(3, 2)) for name in params}
        tx = optax_ext.lars(
            0.2,
            trust_coefficient=0.5,
            eps=0.1,
            nesterov=nesterov,
            weight_decay=weight_decay,
            separate_norms=True,
            weight_decay_mask=optax_ext.path_mask(include=["both", "decay"]),
            trust_ratio_mask=optax_ext.path_mask(include=["both", "trust"]),
        )
        moved = jax.tree.map(jnp.float32, params)
        state = tx.init(moved)
        trace = {name: np.zeros((3, 2)) for name in params}
        for step in range(3):
            updates, state = tx.update(jax.tree.map(jnp.float32, grads), state, moved)
            moved = optax.apply_updates(moved, updates)
            for name, p in params.items():
                decay = (weight_decay(step) if callable(weight_decay) else weight_decay) if name in _DECAYED else 0.0
                below = np.linalg.norm(grads[name]) + decay * np.linalg.norm(p) + 0.1
                ratio = 0.5 * np.linalg.norm(p) / below if name in ("both", "trust") else 1.0
                added = 0.2 * ratio * (grads[name] + decay * p)
                trace[name] = 0.9 * trace[name] + added
                params[name] = p - (0.9 * trace[name] + added if nesterov else trace[name])
        for name, p in params.items():
            np.testing.assert_allclose(moved[name], p, rtol=2e-6, atol=1e-6)

    def test_a_zero_gradient_has_a_ratio_of_one_whatever_decays(self):
        params = jnp.array([3.0, 4.0])
        tx = optax_ext.lars(1.0, weight_decay=0.5, separate_norms=True)
        updates, _ = tx.update(jnp.zeros(2), tx.init(params), params)
        np.testing.assert_allclose(updates, -0.5 * params, rtol=1e-6)

    def test_without_decay_it_is_the_default(self):
        params, grads = jnp.array([3.0, 4.0]), jnp.array([1.0, -2.0])
        separate, together = (optax_ext.lars(0.5, separate_norms=flag) for flag in (True, False))
        results = [tx.update(grads, tx.init(params), params)[0] for tx in (separate, together)]
        np.testing.assert_array_equal(*results)

    def test_holes_integers_and_records_are_as_without(self):
        params = {"a": jnp.ones((2, 3)), "b": jnp.ones(3), "table": jnp.arange(2)}
        grads = {"a": jnp.ones((2, 3)), "b": None, "table": jnp.zeros(2)}
        tx = optax_ext.lars(1.0, weight_decay=0.1, separate_norms=True, record=True, stacked_axes={**_A_IS_STACKED})
        state = tx.init(params)
        updates, new_state = jax.jit(tx.update)(grads, state, params)
        assert updates["b"] is None
        np.testing.assert_array_equal(updates["table"], 0)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, new_state)
        norm = np.sqrt(3)
        expected = {"a": jnp.full(2, 0.001 * norm / (norm + 0.1 * norm)), "b": jnp.float32(0), "table": None}
        chex.assert_trees_all_close(new_state[0][1].inner_state.trust_ratio, expected, rtol=1e-6)

    def test_the_popular_form_has_no_gradient_to_take_the_norm_of(self):
        with pytest.raises(ValueError, match="separate_norms=True needs classic_momentum=True, got classic_momentum=F"):
            optax_ext.lars(0.1, separate_norms=True, classic_momentum=False)


_DECAYED = ("both", "decay")
_A_IS_STACKED = {"a": 0, "b": None, "table": None}
