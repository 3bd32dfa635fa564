"""make(hyperparameters=...): numbers as before, those of TensorFlow after an assignment, in every wrapper."""

import inspect
import json
import operator
from pathlib import Path

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config
from optax_ext.config._hyperparameters import Hyperparameter, value_of
from tests.marks import slow_unless

ASSIGNED = json.loads((Path(__file__).parent / "data" / "assigned_rates.json").read_text())
PARAMS = {"dense": {"kernel": jnp.array([[3.0, -4.0], [0.5, 1.0]]), "bias": jnp.array([1.0, 0.5])}}
GRADS = jax.tree.map(lambda param: param * 0.25 + 0.125, PARAMS)
OPTIMIZERS = {
    name: cls
    for name in config.__all__
    if inspect.isclass(cls := getattr(config, name))
    and issubclass(cls, config.Optimizer)
    and not inspect.isabstract(cls)
}
NOT_ZERO = {"momentum": 0.75, "weight_decay_rate": 0.03125, "clipvalue": 0.75, "clipnorm": 1.25}


def make_optimizer(name):
    given = {key: value for key, value in NOT_ZERO.items() if key in OPTIMIZERS[name].__dataclass_fields__}
    return OPTIMIZERS[name](0.25, **given)


def step(tx, state, params=PARAMS, grads=GRADS):
    return tx.update(grads, state, params)


# ---------------------------------------------------------------------------------------------------------
# The numbers


@pytest.mark.parametrize("case", ASSIGNED["cases"], ids=lambda case: f"{case['class']}-{'-'.join(case['assigned'])}")
def test_the_numbers_of_tensorflow_before_and_after_an_assignment(case):
    recipe = getattr(config, case["class"])(**case["arguments"])
    tx, plain = recipe.make(hyperparameters=[*case["assigned"]]), recipe.make()
    update, plain_update = jax.jit(tx.update), jax.jit(plain.update)
    params = jnp.array(ASSIGNED["initial"])
    state, plain_state = tx.init(params), plain.init(params)
    for number, (grads, expected) in enumerate(zip(ASSIGNED["grads"], case["params"], strict=True)):
        if number == ASSIGNED["assigned_at"]:
            state = optax.tree.set(state, **{key: jnp.float32(value) for key, value in case["assigned"].items()})
        updates, state = update(jnp.array(grads), state, params)
        if number < ASSIGNED["assigned_at"]:
            plain_updates, plain_state = plain_update(jnp.array(grads), plain_state, params)
            np.testing.assert_array_equal(updates, plain_updates)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params, expected, rtol=2e-6)


REPRESENTATIVE = ("SGD", "AdamW", "LARS")


EVERY = [
    (name, field)
    for name in OPTIMIZERS
    for field in make_optimizer(name)._hyperparameters()
    if getattr(make_optimizer(name), field)
]


@pytest.mark.parametrize(("name", "field"), slow_unless(lambda name, field: name in REPRESENTATIVE, EVERY))
def test_each_hyperparameter_of_each_optimizer(name, field):
    """With `-m slow`: 55 passed in 34 seconds."""
    recipe = make_optimizer(name)
    tx = recipe.make(hyperparameters=[field])
    state = tx.init(PARAMS)
    before, _ = step(recipe.make(), recipe.make().init(PARAMS))
    updates, after = step(tx, state)
    chex.assert_trees_all_close(updates, before, rtol=1e-6, atol=1e-8)
    chex.assert_trees_all_equal_dtypes(state, after)
    assert float(optax.tree.get(after, field)) == np.float32(getattr(recipe, field))

    other = getattr(recipe, field) * 0.5
    changed = config.override(recipe, {field: other}).make()
    expected, _ = step(changed, changed.init(PARAMS))
    found, after = step(tx, optax.tree.set(state, **{field: jnp.float32(other)}))
    chex.assert_trees_all_close(found, expected, rtol=1e-6, atol=1e-8)
    assert float(optax.tree.get(after, field)) == np.float32(other)
    if field != "epsilon" and (name, field) not in WITHOUT_EFFECT:
        difference = jax.tree.map(lambda one, two: float(jnp.abs(one - two).max()), found, before)
        assert max(jax.tree.leaves(difference)) > 1e-6


# In a first step. What divides by the norm or the size of gradients, or takes their signs, is as before a clip.
WITHOUT_EFFECT = {
    ("ScheduleFreeAdamW", "weight_decay_rate"),
    *((name, "momentum") for name in OPTIMIZERS),
    *((name, field) for name in OPTIMIZERS for field in ("beta_1", "beta_2", "clipnorm", "clipvalue")),
} - {("SGD", "clipnorm"), ("SGD", "clipvalue")}


@pytest.mark.parametrize("field", ["clipvalue", "momentum", "learning_rate"])
def test_narrow_parameters_keep_their_dtype_and_rates_are_float32(field):
    params, grads = (jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree) for tree in (PARAMS, GRADS))
    tx = config.SGD(0.1, momentum=0.9, clipvalue=0.5).make(hyperparameters=[field])
    updates, state = step(tx, tx.init(params), params, grads)
    chex.assert_trees_all_equal_dtypes(updates, params)
    assert optax.tree.get(state, field).dtype == jnp.float32


def test_a_momentum_that_changes_counts_from_the_next_step_on():
    tx = config.SGD(1.0, momentum=0.5).make(hyperparameters=["momentum"])
    params, grads = jnp.zeros(2), jnp.ones(2)
    _, state = tx.update(grads, tx.init(params), params)
    updates, state = tx.update(grads, state, params)
    np.testing.assert_array_equal(updates, [-1.5, -1.5])
    updates, _ = tx.update(grads, optax.tree.set(state, momentum=jnp.float32(0)), params)
    np.testing.assert_array_equal(updates, [-1, -1])


def test_a_schedule_is_evaluated_in_each_step():
    schedule = optax_ext.PolynomialDecay(1.0, 4, 0.0)
    tx = config.SGD(schedule, decay=1.0).make(hyperparameters=["learning_rate"])
    state = tx.init(jnp.ones(1))
    for update, rate in ((1.0, 1.0), (0.375, 0.75), (1 / 6, 0.5)):
        updates, state = tx.update(jnp.ones(1), state, jnp.ones(1))
        assert -float(updates[0]) == pytest.approx(update)
        assert float(state.hyperparams["learning_rate"]) == rate


# ---------------------------------------------------------------------------------------------------------
# Wrappers, compilation, checkpoints, metrics


def test_inside_every_wrapper_without_another_compilation():
    recipe = config.OptimizationConfig(
        config.LARS(0.5, weight_decay_rate=1e-4),
        config.DynamicLossScale(initial_scale=8.0),
        config.ParamsEma(0.5),
        master_weights=True,
        accumulate_steps=2,
    )
    tx = recipe.make(hyperparameters=["learning_rate"])
    params = {"kernel": jnp.ones((2, 2), jnp.bfloat16)}
    traces = []

    @jax.jit
    def update(state, params):
        traces.append(None)
        updates, state = tx.update(jax.tree.map(lambda leaf: leaf * 8, params), state, params)
        return updates, state, optax_ext.metrics(state), optax_ext.metrics(state, recipe)

    state = tx.init(params)
    masters, rates = [1.0], []
    for number in range(6):
        if number == 2:
            state = optax.tree.set(state, learning_rate=jnp.float32(0.0))
        if number == 4:
            state = optax.tree.set(state, learning_rate=jnp.float32(2.0))
            state = flax.serialization.from_bytes(tx.init(params), flax.serialization.to_bytes(state))
        updates, state, found, given = update(state, params)
        params = optax.apply_updates(params, updates)
        masters.append(float(optax.tree.get(state, "master")["kernel"][0, 0]))
        rates.append(float(found["learning_rate"]))
        assert given["learning_rate"] == found["learning_rate"]
    assert len(traces) == 1
    assert rates[1::2] == [0.5, 0.0, 2.0]
    moved = -np.diff(masters)
    assert [step > 0 for step in moved] == [False, True, False, True, False, True]  # momentum goes on at a rate of 0
    assert moved[5] > 2 * moved[1] > 2 * moved[3]
    assert float(optax.tree.get(state, "loss_scale")) == 8


def test_metrics_of_a_recipe_know_the_rate_in_the_state_and_add_its_decay():
    recipe = config.SGD(0.5, decay=1.0)
    tx = recipe.make(hyperparameters=["learning_rate"])
    state = optax.tree.set(tx.init(PARAMS), learning_rate=jnp.float32(0.25))
    for expected in (0.25, 0.125, 0.25 / 3):
        _, state = step(tx, state)
        assert float(optax_ext.metrics(state, recipe)["learning_rate"]) == pytest.approx(expected)
        assert float(optax_ext.metrics(state, config.OptimizationConfig(recipe))["learning_rate"]) == pytest.approx(
            expected
        )


# ---------------------------------------------------------------------------------------------------------
# Groups


def grouped(kernel_rate, **fields):
    kernel = config.SGD(kernel_rate, momentum=0.5, decay=1.0)
    return config.Partition([config.Group(["kernel"], kernel, start_step=1)], config.SGD(0.5), **fields)


@pytest.mark.parametrize("fields", [{}, {"learning_rate_multipliers": {"kernel": 2.0}, "clipvalue": 0.5}])
def test_a_number_of_one_group_changes_in_that_group_alone(fields):
    names = ["kernel/learning_rate", "kernel/momentum", *(["clipvalue"] if fields else [])]
    tx, recipe = grouped(0.25, **fields).make(hyperparameters=names), config.OptimizationConfig(grouped(0.25, **fields))
    state = optax.tree.set(
        tx.init(PARAMS),
        lambda path, _: any(getattr(key, "key", None) == "kernel" for key in path),
        learning_rate=jnp.float32(0.125),
    )
    other = grouped(0.125, **fields).make()
    other_state = other.init(PARAMS)
    for _ in range(3):
        (updates, state), (expected, other_state) = step(tx, state), step(other, other_state)
        chex.assert_trees_all_close(updates, expected, rtol=1e-6)
    told = optax_ext.metrics(state, recipe)
    assert {name: float(told[f"learning_rate/{name}"]) for name in ("kernel", "rest")} == {
        "kernel": pytest.approx(0.125 / 3),
        "rest": 0.5,
    }
    carried = config.carry_over(state, recipe.optimizer, recipe.optimizer, PARAMS, step=1, hyperparameters=names)
    assert jax.tree.structure(carried) == jax.tree.structure(state)
    assert float(optax_ext.metrics(carried)["learning_rate"]) == 0.25


def test_groups_in_groups_and_their_errors():
    outer = config.Partition([config.Group(["dense"], grouped(0.25), name="all")], config.SGD(0.5))
    state = outer.make(hyperparameters=["all/kernel/learning_rate", "rest/learning_rate"]).init(PARAMS)
    assert [float(rate) for _, rate in optax.tree.get_all_with_path(state, "learning_rate")] == [0.25, 0.5]
    for names, expected in [
        (["all/kernel/nesterov"], "nesterov is fixed when the transformation is made"),
        (["kernel/learning_rate"], "'kernel/learning_rate' is no field of Partition (did you mean 'all/kernel/lear"),
        (["learning_rate"], "is no field of Partition (did you mean 'rest/learning_rate'?); those that can are 'clip"),
        (["rest/learning_rate"] * 2, "must name each field once"),
        ("learning_rate", "must be a list of names of fields"),
        ([3], "3 is no field of Partition"),
    ]:
        with pytest.raises(config.ConfigError) as raised:
            outer.make(hyperparameters=names)
        assert expected in str(raised.value)


# ---------------------------------------------------------------------------------------------------------
# Errors


@pytest.mark.parametrize(
    ("recipe", "names", "expected"),
    [
        (config.SGD(0.1), ["learning_rat"], "'learning_rat' is no field of SGD (did you mean 'learning_rate'?); those"),
        (config.SGD(0.1), ["nesterov"], "nesterov is fixed when the transformation is made; those that can are 'learn"),
        (config.SGD(0.1), ["decay"], "decay is fixed when the transformation is made"),
        (config.Adam(0.1, round_betas=False), ["beta_1"], "beta_1 is fixed when"),
        (config.Adagrad(0.1), ["initial_accumulator_value"], "initial_accumulator_value is fixed when"),
        (config.SGD(0.1), ["clipnorm"], "clipnorm is null, and so there is nothing that it could change: give the"),
        (config.SGD(0.1), ["momentum"], "momentum is 0, for which there may be no stage that it could change: give"),
        (config.SGD(0.1), "learning_rate", "must be a list of names of fields, such as ['learning_rate'], got 'learn"),
        (config.SGD(0.1), ["learning_rate"] * 2, "must name each field once"),
        (config.SGD(0.1), [3], "3 is no field of SGD"),
    ],
    ids=lambda value: str(value) if isinstance(value, list) else "",
)
def test_what_is_no_hyperparameter(recipe, names, expected):
    for made in (recipe, config.OptimizationConfig(recipe)):
        with pytest.raises(config.ConfigError) as raised:
            made.make(hyperparameters=names)
        (problem,) = raised.value.problems
        assert problem.path == "hyperparameters"
        assert problem.message.startswith(expected)


def test_a_rate_of_zero_may_rise_later():
    with pytest.warns(UserWarning, match="is 0 at every step"):
        recipe = config.Adam(0.0)
    tx = recipe.make(hyperparameters=["learning_rate"])
    updates, _ = step(tx, optax.tree.set(tx.init(PARAMS), learning_rate=jnp.float32(0.5)))
    assert float(updates["dense"]["bias"][0]) == pytest.approx(-0.5, rel=1e-3)


def test_a_traced_number_in_a_recipe_is_told_what_to_do():
    tx = optax.inject_hyperparams(lambda learning_rate: config.Adam(learning_rate).make())(learning_rate=0.1)
    state = tx.init(PARAMS)
    with pytest.raises(config.ConfigError, match=r"learning_rate: must be .*make\(hyperparameters=\[...\]\)"):
        jax.eval_shape(tx.update, GRADS, state, PARAMS)
    with pytest.raises(config.ConfigError, match=r"beta_1: must be .*make\(hyperparameters=\[...\]\)"):
        jax.eval_shape(lambda beta: config.Adam(0.1, beta).make().init(PARAMS), 0.5)


# ---------------------------------------------------------------------------------------------------------
# A number that is known at run time only


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "pow"])
def test_arithmetic_is_that_of_the_value(name):
    compute = getattr(operator, name)
    number = Hyperparameter(jnp.float32(3.0), 2.0)
    for first, second in ((number, 4.0), (4.0, number)):
        result = compute(first, second)
        assert float(value_of(result)) == compute(value_of(first), value_of(second))
        assert f"{result:g}" == f"{compute(*(2.0 if one is number else one for one in (first, second))):g}"
    array = jnp.array([2.0, 4.0])
    np.testing.assert_array_equal(compute(number, array), compute(jnp.float32(3.0), array))
    np.testing.assert_array_equal(compute(array, number), compute(array, jnp.float32(3.0)))


def test_words_and_comparisons_are_those_of_the_recipe():
    number = Hyperparameter(jnp.float32(0.0), 2.0)
    assert (number == 0, number != 0, number > 0, number < 1, number <= 2, number >= 3) == (
        *(False, True, True, False, True, False),
    )
    assert f"{-number:.3g} {number!r}" == "-2 Hyperparameter(2.0)"
    with pytest.raises(TypeError):
        float(number)
    with pytest.raises(TypeError):
        hash(number)
