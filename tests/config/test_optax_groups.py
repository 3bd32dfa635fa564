"""Optimizers of Optax in groups and with factors: what each of them can do is known, and the rest is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config, transforms
from optax_ext.config import ConfigError
from optax_ext.config._optax_aliases import aliases
from tests.marks import slow_unless

PARAMS = {"kernel": jnp.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]]), "bias": jnp.array([1.0, -0.5, 0.125])}
SCHEDULE = optax_ext.CosineDecay(0.9, 10)
# Needed, and without noise.
NEEDED = {"dpsgd": {"l2_norm_clip": 1e3, "noise_multiplier": 0.0, "seed": 1}, "noisy_sgd": {"key": 1, "eta": 0.0}}
# With which updates are not proportional to the rate.
REVEALING = {"momo": {"weight_decay": 0.3}, "momo_adam": {"weight_decay": 0.3}, "rprop": {"min_step_size": 0.01}}


def loss(params, *_):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


def extra_args(name, params, grads):
    if name in ("polyak_sgd", "momo", "momo_adam"):  # of momo so large that the learning rate limits its steps
        return {"value": loss(params) * (1 if name == "polyak_sgd" else 100)}
    if name == "lbfgs":
        return {"value": loss(params), "grad": grads, "value_fn": loss}
    return {"obj_fn": loss} if name == "sophia" else {}


def updates_of(tx, name, steps, first=0, params=PARAMS):
    """Return the updates of some steps, with gradients that depend on the step, from `first` on."""
    tx, found = optax.with_extra_args_support(tx), []
    state, step = tx.init(params), jax.jit(tx.update, static_argnames=("value_fn", "obj_fn"))
    for number in range(first, first + steps):
        grads = jax.tree.map(lambda p, number=number: 2 * p + 0.1 * jnp.sin(p + number), params)
        extra = extra_args(name, params, grads)
        given = jax.tree.map(lambda g: jnp.stack([g, 2 * g]), grads) if name == "dpsgd" else grads
        updates, state = step(given, state, params, **extra)
        params = optax.apply_updates(params, updates)
        found.append(updates)
    return found


def distance(found, expected):
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))
    return max(np.abs(a - b).max() / (np.abs(b).max() + 1e-9) for a, b in pairs)


# ---------------------------------------------------------------------------------------------------------
# Factors of the learning rate


def rate_of(name):
    return next(argument.name for argument in aliases()[name].arguments if argument.name.endswith("learning_rate"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Optax, for some of its own optimizers
@pytest.mark.parametrize(
    ("name", "options"),
    slow_unless(
        lambda name, options: name in ("sgd", "rprop"),
        [
            *((name, REVEALING.get(name, {})) for name in sorted(aliases())),
            ("adafactor", {"weight_decay_rate": 0.3}),
            ("optimistic_adam", {"optimism": 0.3}),
        ],
    ),
    ids=str,
)
def test_factors_are_refused_where_updates_are_not_proportional_to_the_rate(name, options):
    """`pytest -m "slow or not slow" tests/config/test_optax_groups.py`: all of Optax 0.2.7 and 0.2.8 passed."""
    options, rate = NEEDED.get(name, {}) | options, 1.0 if name in ("prodigy", "dadapt_adamw", "polyak_sgd") else 0.02
    function, steps = aliases()[name].function, 40 if name in ("prodigy", "dadapt_adamw") else 4
    tx = optax.chain(function(**options, **{rate_of(name): rate}), optax.scale(0.25))
    found = updates_of(tx, name, steps)
    expected = updates_of(function(**options, **{rate_of(name): rate / 4}), name, steps)
    is_proportional = distance(found, expected) < 1e-4
    # Its estimate weighs parameters by their rates; the authors' own code refuses rates that differ.
    is_proportional &= name != "prodigy"
    data = {"type": "optax", "name": name, **options, rate_of(name): rate, "learning_rate_multipliers": {"bias": 0.25}}
    if is_proportional:
        config.from_dict(data)
    else:
        with pytest.raises(ConfigError, match="must be null for optax.*, whose updates are not proportional to its"):
            config.from_dict(data)


def test_factors_of_all_groups_are_those_of_each_optimizer():
    factors = {"learning_rate_multipliers": {"bias": 0.5}}
    prodigy = config.Optax("prodigy")
    groups = [config.Group(["kernel"], config.Partition([config.Group(["kernel"], prodigy)]))]
    said = r"learning_rate_multipliers: must be null with a group of optax.contrib.prodigy, whose .* of other groups"
    with pytest.raises(ConfigError, match=said):
        config.Partition(groups, rest=config.SGD(0.1), **factors)
    config.Partition(groups, rest=config.SGD(0.1, **factors))
    decay = {"layer_decay": config.LayerDecay(0.5, r"(\d+)")}
    with pytest.raises(ConfigError, match=r"layer_decay: must be null with a group of optax.adafactor with weight_"):
        config.Partition([config.Group(["a"], config.Optax("adafactor", weight_decay_rate=0.1))], **decay)
    with pytest.raises(
        ConfigError, match=r"layer_decay: must be null for optax.contrib.cocob, .* a group of their own"
    ):
        config.Optax("cocob", 1.0, **decay)
    config.Optax("dog", 1.0, **decay)
    config.Optax("adafactor", 0.1, weight_decay_rate=0.0, **decay)


# ---------------------------------------------------------------------------------------------------------
# Groups that wait


def scheduled_arguments(name):
    """Return the arguments of an optimizer that a recipe may have a schedule for, and the warm-up."""
    found = [argument.name for argument in aliases()[name].arguments if argument.name == "warmup_steps"]
    for argument in aliases()[name].arguments:
        if (name, argument.name) == ("simplified_ademamix", "alpha") and optax.__version__ < "0.2.8":
            continue  # Optax cannot evaluate it
        try:
            config.Optax(name, **(options_of(name) | {argument.name: SCHEDULE}))
        except ConfigError:
            continue
        found.append(argument.name)
    return found


def options_of(name):
    has_rate = "learning_rate" in {argument.name for argument in aliases()[name].arguments}
    return NEEDED.get(name, {}) | ({"learning_rate": 0.02} if has_rate else {})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", slow_unless(lambda name: name == "sgd", sorted({*aliases()} - {"lbfgs", "sophia"})))
def test_a_start_step_is_refused_where_schedules_would_wait_too(name):
    """`pytest -m "slow or not slow" tests/config/test_optax_groups.py`: all of Optax 0.2.7 and 0.2.8 passed."""
    function, options = aliases()[name].function, options_of(name)
    for argument in scheduled_arguments(name):
        given = 6 if argument == "warmup_steps" else SCHEDULE
        tx = transforms.frozen_until(function(**options | {argument: given}), 2)
        found = updates_of(tx, name, 4)[2:]
        expected = None
        if argument != "warmup_steps":
            later = function(**options | {argument: lambda step: SCHEDULE(step + 2)})
            expected = updates_of(later, name, 2, first=2)
        data = {"type": "optax", "name": name, **options, argument: given}
        group = {"match": ["bias"], "optimizer": data, "start_step": 2}
        partition = {"type": "partition", "groups": [group], "rest": data}
        if expected is not None and distance(found, expected) < 1e-5:
            config.from_dict(partition)
        else:
            with pytest.raises(
                ConfigError, match=rf"start_step: .* with .*, whose '{argument}' has no count of .*, got 2"
            ):
                config.from_dict(partition)
        config.from_dict(partition | {"groups": [group | {"start_step": 0}]})


def test_a_rewind_is_refused_where_it_would_leave_the_rate():
    scheduled, constant = config.Optax("prodigy", SCHEDULE), config.Optax("prodigy")
    state = scheduled.make().init(PARAMS)
    said = "counts can be set, got optax.contrib.prodigy, whose 'learning_rate' has no count of steps of its own: "
    with pytest.raises(ValueError, match=said + "leave `step` out"):
        config.carry_over(state, scheduled, scheduled, PARAMS, step=2)
    with pytest.raises(ValueError, match=said + "restore the state"):
        config.carry_over(constant.make().init(PARAMS), constant, scheduled, PARAMS)
    config.carry_over(state, scheduled, scheduled, PARAMS)
    config.carry_over(state, scheduled, constant, PARAMS, step=2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_waits_may_take_the_gradients_of_examples():
    dpsgd = config.Optax("dpsgd", 0.5, 1e3, 0.0, 1)
    tx = config.Partition([config.Group(["bias"], dpsgd, start_step=1)], rest=config.Frozen()).make()
    state = tx.init(PARAMS)
    grads = jax.tree.map(lambda p: jnp.stack([p, 3 * p]), PARAMS)
    first, state = tx.update(grads, state, PARAMS)
    second, _ = tx.update(grads, state, PARAMS)
    np.testing.assert_array_equal(first["bias"], jnp.zeros(3))
    np.testing.assert_allclose(second["bias"], -PARAMS["bias"], rtol=1e-6)


# ---------------------------------------------------------------------------------------------------------
# What cannot stand in a group, and schedules that Optax announces and does not take


@pytest.mark.parametrize(("name", "function"), [("lbfgs", "value_fn"), ("sophia", "obj_fn")])
def test_what_needs_a_function_of_all_parameters_is_no_optimizer_of_a_group(name, function):
    optimizer = config.Optax(name, **options_of(name))
    said = f"must be able to move a part of the parameters, got .*{name}, which needs {function}, a function of all"
    with pytest.raises(ConfigError, match=f"optimizer: {said}"):
        config.Group(["bias"], optimizer)
    with pytest.raises(ConfigError, match=f"rest: {said}"):
        config.Partition([config.Group(["bias"], config.SGD(0.1))], rest=optimizer)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("novograd", "weight_decay"),
        ("optimistic_gradient_descent", "alpha"),
        ("optimistic_gradient_descent", "beta"),
    ],
)
def test_schedules_that_optax_cannot_evaluate_are_refused(name, argument):
    tx = aliases()[name].function(0.1, **{argument: SCHEDULE})
    with pytest.raises(TypeError, match="unsupported operand"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    with pytest.raises(ConfigError, match=f"{argument}: must be a number, got "):
        config.Optax(name, 0.1, **{argument: SCHEDULE})
    assert getattr(config.Optax(name, 0.1, **{argument: 0.5}), argument) == 0.5
