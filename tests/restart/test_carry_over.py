"""A run that goes on by another recipe equals, bit by bit, one that had the new schedules from the start."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
import pytest

import optax_ext
from optax_ext import config
from tests.restart.training import leaf_bytes

PARAMS = {"kernel": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3).astype(jnp.bfloat16), "bias": jnp.ones(3)}
SCALE = config.DynamicLossScale(initial_scale=4.0, growth_steps=3)
EMA = config.ParamsEma(0.9)
HELD = optax_ext.PiecewiseConstantDecay((30,), (0.25, 0.5))
COOLED = optax_ext.PolynomialDecay(0.25, 10, 0.0, offset=10, before_offset="hold")  # 0.25 up to step 10, 0 at step 20


def recipe(optimizer: config.UpdateRule, **fields: Any) -> config.OptimizationConfig:
    return config.OptimizationConfig(optimizer, **{"loss_scale": SCALE, "ema": EMA, **fields})


def momentum(learning_rate: Any) -> config.OptimizationConfig:
    return recipe(config.SGD(learning_rate, momentum=0.9))


@functools.cache
def train_step(made_by: config.OptimizationConfig) -> Callable[..., Any]:
    tx = made_by.make()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, at: Any) -> tuple[Any, Any]:
        factor = jnp.where(at % 9 == 3, jnp.inf, 1.0 + at / 8)  # two steps in twenty are skipped
        grads = jax.tree.map(lambda param: jnp.sin(param) * (factor * state.loss_scale).astype(param.dtype), params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


Run = tuple[Any, Any]  # parameters and state


def train(made_by: config.OptimizationConfig, start: Run | None, first: int, last: int) -> Run:
    run = (PARAMS, made_by.make().init(PARAMS)) if start is None else start
    run = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), run)  # a step donates its state
    for at in range(first, last):
        run = train_step(made_by)(*run, at)
    return run


@functools.cache
def ten_steps(made_by: config.OptimizationConfig) -> Run:
    return train(made_by, None, 0, 10)


def through_orbax(path: Path, tree: Any, like: Any) -> Any:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
        checkpointer.wait_until_finished()
        return checkpointer.restore(path, jax.eval_shape(lambda: like))


# ---------------------------------------------------------------------------------------------------------
# Whole runs


def test_a_schedule_for_a_schedule_needs_no_more_than_a_restore(tmp_path: Path) -> None:
    new = momentum(COOLED)
    run = through_orbax(tmp_path / "checkpoint", ten_steps(momentum(HELD)), (PARAMS, new.make().init(PARAMS)))
    run = train(new, run, 10, 20)
    assert leaf_bytes(run) == leaf_bytes(train(new, None, 0, 20))
    assert run[1].skipped_steps == 2


def test_a_constant_rate_becomes_a_schedule(tmp_path: Path) -> None:
    old, new = momentum(0.25), momentum(COOLED)
    params, state = through_orbax(tmp_path / "old", ten_steps(old), (PARAMS, old.make().init(PARAMS)))
    state = config.carry_over(state, old, new, params)  # the count of the average tells how many steps there were
    params, state = through_orbax(tmp_path / "new", (params, state), (PARAMS, new.make().init(PARAMS)))
    assert leaf_bytes(train(new, (params, state), 10, 20)) == leaf_bytes(train(new, None, 0, 20))


def test_a_schedule_becomes_constant_and_a_schedule_again() -> None:
    held, constant = momentum(HELD), momentum(0.25)
    params, state = ten_steps(held)
    params, state = train(constant, (params, config.carry_over(state, held, constant, params)), 10, 15)
    run = params, config.carry_over(state, constant, held, params)
    assert leaf_bytes(train(held, run, 15, 20)) == leaf_bytes(train(held, None, 0, 20))


def test_inside_all_wrappers_and_between_two_updates() -> None:
    """Nine calls are four updates and one gradient that waits for another, apart from those that are skipped."""
    wrapped = functools.partial(recipe, master_weights=True, accumulate_steps=2)
    old = wrapped(config.Adam(0.25))
    new = wrapped(config.Adam(optax_ext.PolynomialDecay(0.25, 5, 0.0, offset=4, before_offset="hold")))
    params, state = train(old, None, 0, 10)
    assert state.inner_state.inner_state.mini_step == 1
    run = train(new, (params, config.carry_over(state, old, new, params)), 10, 20)
    assert leaf_bytes(run) == leaf_bytes(train(new, None, 0, 20))


def test_rewinding_sets_the_counts_of_schedules_and_keeps_all_else() -> None:
    cooled = recipe(config.Adam(COOLED))
    params, state = PARAMS, optax.tree.set(cooled.make().init(PARAMS), count=17)
    state = state._replace(loss_scale=jnp.float32(8), skipped_steps=jnp.int32(2))
    rewound = config.carry_over(state, cooled, cooled, params, step=3)
    (moments, schedule), average = rewound.inner_state
    assert (schedule.count, moments.count, average.count) == (3, 17, 17)
    assert (rewound.loss_scale, rewound.skipped_steps) == (8, 2)
    rising = dataclasses.replace(EMA, average_decay=optax_ext.StepCosineDecay((0, 20), (0.9, 1.0)))
    rising = dataclasses.replace(cooled, ema=rising)
    assert config.carry_over(state, cooled, rising, params, step=3).inner_state[1].count == 3


# ---------------------------------------------------------------------------------------------------------
# What is added and taken away


def carry(old: Any, new: Any, state: Any = None, **arguments: Any) -> Any:
    """Carry over a state in which every number is 2 and every count 5, and every bool is True."""
    marked = jax.tree.map(lambda leaf: jnp.full_like(leaf, 2), old.make().init(PARAMS)) if state is None else state
    marked = optax.tree.set(marked, count=jnp.int32(5)) if optax.tree.get_all_with_path(marked, "count") else marked
    carried = config.carry_over(marked, old, new, PARAMS, **arguments)
    assert jax.tree.structure(carried) == jax.tree.structure(new.make().init(PARAMS))
    expected = jax.tree.leaves(jax.eval_shape(new.make().init, PARAMS))
    assert [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(carried)] == [(x.shape, x.dtype) for x in expected]
    return carried


def values(tree: Any) -> list[float]:
    return [float(jnp.max(leaf)) for leaf in jax.tree.leaves(tree)]


def test_moments_stay_where_an_optimizer_has_more_stages() -> None:
    moments = optax.tree.get(carry(config.Adam(0.1), config.LAMB(COOLED, weight_decay_rate=0.1)), "mu")
    assert values(moments) == [2, 2]
    state = carry(config.SGD(HELD, momentum=0.9), config.SGD(HELD, momentum=0.9, weight_decay_rate=0.1, clipnorm=1.0))
    assert values(optax.tree.get(state, "trace")) == [2, 2]
    assert {int(count) for _, count in optax.tree.get_all_with_path(state, "count")} == {5}


def test_a_loss_scale_and_masters_are_added() -> None:
    old = config.SGD(HELD, momentum=0.9)
    state = carry(old, recipe(old, ema=None, master_weights=True))
    assert (state.loss_scale, state.skipped_steps) == (4, 0)
    assert state.inner_state.master["kernel"].dtype == jnp.float32
    trace = optax.tree.get(state, "trace")
    assert (trace["kernel"].dtype, values(trace)) == (jnp.float32, [2, 2])


def test_limits_of_the_scale_change_and_the_scale_stays() -> None:
    state = carry(momentum(HELD), recipe(config.SGD(HELD, momentum=0.9), loss_scale=config.FixedLossScale(16.0)))
    assert (state.loss_scale, state.counter, state.grads_finite) == (2, 2, True)


def test_records_of_the_last_step_are_no_loss() -> None:
    state = carry(config.LARS(HELD, record=True), config.LARS(HELD))
    assert values(optax.tree.get(state, "trace")) == [2, 2]


def test_amsgrad_is_added() -> None:
    state = carry(config.Adam(0.1), config.Adam(0.1, amsgrad=True))
    assert (values(state[0].mu), values(state[0].nu_max), int(state[0].count)) == ([2, 2], [0, 0], 5)


def test_masters_are_kept_or_given_up() -> None:
    old = recipe(config.SGD(HELD), master_weights=True)
    with pytest.raises(
        ValueError, match=r"MasterWeightsState.master of 'kernel'. If it may go, give discard=\['master'"
    ):
        carry(old, recipe(config.SGD(HELD)))
    assert optax.tree.get_all_with_path(carry(old, recipe(config.SGD(HELD)), discard=["master"]), "master") == []


@pytest.mark.parametrize(("start_step", "count"), [(0, 0), (6, 5), (100, 5)])
def test_an_average_is_added(start_step: int, count: int) -> None:
    state = carry(config.SGD(HELD), recipe(config.SGD(HELD), ema=config.ParamsEma(0.9, start_step=start_step)))
    assert state.inner_state[1].count == count


def test_an_average_cannot_have_started_already() -> None:
    for fields, hint in [({"start_step": 5}, "write 6, or 0 to begin"), ({"average_decay": HELD}, "got 0: write 6$")]:
        with pytest.raises(ValueError, match=f"start_step of ema must be after step 5, .*{hint}"):
            carry(config.SGD(HELD), recipe(config.SGD(HELD), ema=config.ParamsEma(**fields)))
    with pytest.raises(ValueError, match="which start_step of ema goes by: give step="):
        carry(config.SGD(0.1), recipe(config.SGD(0.1), ema=config.ParamsEma(start_step=7)))


def test_an_average_that_starts_after_it_is_added_equals_one_that_was_always_there() -> None:
    old = config.SGD(HELD, momentum=0.9)
    new = config.OptimizationConfig(old, ema=config.ParamsEma(0.9, start_step=4))

    def take_steps(rule: Any, params: Any, state: Any, steps: int) -> Run:
        for _ in range(steps):
            updates, state = rule.make().update(params, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    params, state = take_steps(old, PARAMS, old.make().init(PARAMS), 2)
    run = take_steps(new, params, config.carry_over(state, old, new, params), 3)
    assert leaf_bytes(run) == leaf_bytes(take_steps(new, PARAMS, new.make().init(PARAMS), 5))


@pytest.mark.parametrize("jitted", [False, True])
def test_accumulation_goes_on_with_more_or_fewer_steps(jitted: bool) -> None:
    """A state with three gradients of four, in a recipe of two, moves with the next one, by the mean of all four."""
    of_four, of_two = config.OptimizationConfig(config.SGD(1.0), accumulate_steps=4), config.SGD(1.0)
    of_two = config.OptimizationConfig(of_two, accumulate_steps=2)
    params = {"kernel": jnp.zeros(1)}
    state = of_four.make().init(params)
    for gradient in (1.0, 2.0, 3.0):
        _, state = of_four.make().update({"kernel": jnp.full(1, gradient)}, state, params)
    carried = config.carry_over(state, of_four, of_two, params)
    assert leaf_bytes(carried) == leaf_bytes(state)
    update = jax.jit(of_two.make().update) if jitted else of_two.make().update
    updates, state = update({"kernel": jnp.full(1, 6.0)}, carried, params)
    assert (float(updates["kernel"][0]), int(state.mini_step), int(state.gradient_step)) == (-3, 0, 1)


def test_accumulation_ends_between_two_updates_without_loss_and_else_with_an_error() -> None:
    old, new = recipe(config.SGD(HELD), accumulate_steps=2), recipe(config.SGD(HELD))
    state = old.make().init(PARAMS)
    carry(old, new, state)
    waiting = optax.tree.set(state, mini_step=jnp.int32(1))
    with pytest.raises(ValueError, match="MultiStepsState.acc_grads of 'bias', 'kernel'"):
        carry(old, new, waiting)
    carry(old, new, waiting, discard=["acc_grads"])


# ---------------------------------------------------------------------------------------------------------
# What would be lost, or would train wrong


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (config.Adam(HELD), config.SGD(HELD), r"ScaleByAdamState.mu of 'bias', 'kernel'; ScaleByAdamState.nu of"),
        (
            config.LARS(HELD),
            config.LARS(HELD, classic_momentum=False),
            r"TraceState.trace of 'bias', 'kernel' \(it is that of updates, after the learning rate there, and of "
            r"updates, before the learning rate here\). If it may go, give discard=\['trace'\]",
        ),
        (
            config.Adam(HELD),
            config.Adamax(HELD),
            r"ScaleByAdamState.mu of .* \(it is that of adam there, and of adamax",
        ),
        (config.SGD(HELD, momentum=0.9), config.SGD(HELD), r"TraceState.trace of 'bias', 'kernel'. If"),
    ],
)
def test_what_would_be_lost_is_an_error(old: Any, new: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        carry(old, new)
    discard = ["mu", "nu"] if isinstance(old, config.Adam) else ["trace"]
    assert 2 not in values(carry(old, new, discard=discard))


def test_what_is_discarded_starts_anew_and_so_does_the_count_of_its_bias() -> None:
    state = carry(config.Adam(HELD), config.Adam(HELD), discard=["mu", "nu"])
    assert (values(state[0].mu), int(state[0].count), int(state[1].count)) == ([0, 0], 0, 5)


def test_a_schedule_needs_a_step_where_nothing_counts() -> None:
    with pytest.raises(ValueError, match="the old recipe counts none, as with a constant rate: give step="):
        carry(config.SGD(0.1, momentum=0.9), config.SGD(HELD, momentum=0.9))
    assert carry(config.SGD(0.1), config.SGD(HELD), step=7)[0].count == 7


def test_counts_that_differ_do_not_tell_the_step() -> None:
    old = config.Adadelta(HELD, weight_decay_rate=0.1)
    _, rate, decay = old.make().init(PARAMS)
    state = (_, rate, decay._replace(inner_state=decay.inner_state._replace(count=jnp.int32(3))))
    new = recipe(old, ema=config.ParamsEma(start_step=9))
    with pytest.raises(ValueError, match="got counts of 0, 3: give step="):
        config.carry_over(state, old, new, PARAMS)
    assert config.carry_over(state, old, new, PARAMS, step=3).inner_state[1].count == 3


def test_numbers_in_the_state_are_those_of_the_new_recipe() -> None:
    old, new = momentum(0.5), momentum(0.25)
    state = optax.tree.set(old.make(hyperparameters=["learning_rate"]).init(PARAMS), learning_rate=jnp.float32(0.125))
    with pytest.raises(ValueError, match=r"state must be one of the old recipe .* give the same hyperparameters=\["):
        config.carry_over(state, old, new, PARAMS)
    carried = config.carry_over(state, old, new, PARAMS, hyperparameters=["learning_rate"])
    assert optax.tree.get(carried, "learning_rate") == 0.25
    assert jax.tree.structure(carried) == jax.tree.structure(state)


def test_coefficients_in_the_state_of_muon_are_those_of_the_new_recipe() -> None:
    old, new = (config.Optax("muon", learning_rate=0.1, ns_coeffs=(x, -4.75, 2.0)) for x in (3.5, 3.0))
    assert values([optax.tree.get(carry(old, new), "ns_coeffs")[0]]) == [3.0]


@pytest.mark.parametrize("old", [config.ScheduleFreeAdamW(0.1), config.Optax("schedule_free_sgd", learning_rate=0.1)])
def test_an_average_in_the_parameters_has_the_weight_it_had(old: Any) -> None:
    """The state keeps the weight, and another one in the recipe would have no effect."""
    ours = isinstance(old, config.ScheduleFreeAdamW)
    other = dataclasses.replace(old, beta_1=0.5) if ours else config.override(old, ["b1=0.5"])
    with pytest.raises(ValueError, match=r"ScheduleFreeState.z .*with 0.9 for b1 there, and .*with 0.5 for b1 here"):
        carry(old, other)
    of_optax = config.Optax("schedule_free_adamw", learning_rate=0.1)  # which goes on by a sum of weights
    with pytest.raises(ValueError, match="ScheduleFreeState.z .*optax.schedule_free_adamw with 0.9 for b1 here"):
        carry(old, of_optax)
    same = config.override(old, ["learning_rate=0.5"])
    assert values(optax.tree.get(carry(old, same), "z")) == [2, 2]


# ---------------------------------------------------------------------------------------------------------
# Groups


def halves(kernel: config.UpdateRule, bias: config.UpdateRule, label: str = "kernel") -> Any:
    """Return what has the methods of a recipe with an optimizer for the kernel and one for the bias."""

    @dataclasses.dataclass(frozen=True)
    class Halves(config.Optimizer):
        type = "halves"
        kernel: config.UpdateRule
        bias: config.UpdateRule

        def _stages(self) -> list[config.Stage]:
            groups = {label: self.kernel.make(), "bias": self.bias.make()}
            labels = {"kernel": label, "bias": "bias"}
            return [config.Stage("groups", "", optax.partition(groups, labels))]

    return Halves(0.1, kernel, bias)


def test_momentum_stays_with_its_parameter_in_other_groups() -> None:
    one = config.SGD(HELD, momentum=0.9)
    apart = halves(one, config.SGD(HELD, momentum=0.5))
    state = carry(one, apart)
    assert values([trace for _, trace in optax.tree.get_all_with_path(state, "trace")]) == [2, 2]
    assert [int(count) for _, count in optax.tree.get_all_with_path(state, "count")] == [5, 5]
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(buffers)) == len(buffers)  # or the state could not be donated
    assert values(optax.tree.get(carry(apart, one), "trace")) == [2, 2]
    relabeled = carry(apart, halves(one, one, label="matrix"))
    assert values([trace for _, trace in optax.tree.get_all_with_path(relabeled, "trace")]) == [2, 2]


def test_groups_with_moments_of_several_ages_do_not_become_one() -> None:
    apart = halves(config.Adam(0.1), config.Adam(0.1))
    state = jax.tree.map(lambda leaf: jnp.full_like(leaf, 2), apart.make().init(PARAMS))
    assert int(optax.tree.get(config.carry_over(state, apart, config.Adam(0.1), PARAMS), "count")) == 2
    groups = state[0].inner_states
    groups["bias"] = optax.tree.set(groups["bias"], count=9)
    with pytest.raises(ValueError, match="must have one ScaleByAdamState.count for what becomes one group .* got 9, 2"):
        config.carry_over(state, apart, config.Adam(0.1), PARAMS)


def test_a_parameter_without_moments_does_not_share_the_count_of_others() -> None:
    apart = halves(config.Adam(HELD), config.SGD(HELD))
    with pytest.raises(ValueError, match="state has no ScaleByAdamState of 'bias', which shares the count of the bias"):
        carry(apart, config.Adam(HELD))
    assert values(optax.tree.get(carry(apart, config.Adam(HELD), discard=["mu", "nu"]), "mu")) == [0, 0]


def test_moments_of_two_meanings_stay_in_their_groups() -> None:
    adam, adamax = config.Adam(HELD), config.Adamax(HELD)
    carry(halves(adam, adamax), halves(adam, adamax))
    with pytest.raises(ValueError, match="has no place"):
        carry(halves(adam, adamax), halves(adamax, adam, label="other"))


def test_a_group_that_waits_and_one_that_is_frozen() -> None:
    sgd = config.SGD(HELD, momentum=0.9)
    waits = config.Partition([config.Group(["kernel"], config.SGD(0.1, momentum=0.9), start_step=9)], rest=sgd)
    state = carry(sgd, waits)
    assert values([trace for _, trace in optax.tree.get_all_with_path(state, "trace")]) == [2, 2]
    assert {int(count) for _, count in optax.tree.get_all_with_path(state, "count")} == {5}
    frozen = config.Partition([config.Group(["kernel"], config.Frozen())], rest=sgd)
    with pytest.raises(ValueError, match=r"TraceState.trace of 'kernel'. If it may go"):
        carry(waits, frozen)
    assert values(optax.tree.get(carry(frozen, sgd), "trace")) == [2, 0]  # the bias was not frozen


def test_momentum_of_an_optimizer_of_optax_is_that_of_the_same_one_alone() -> None:
    held, constant = (config.Optax("sgd", learning_rate=rate, momentum=0.9) for rate in (HELD, 0.1))
    assert values(optax.tree.get(carry(constant, held, step=5), "trace")) == [2, 2]
    with pytest.raises(ValueError, match=r"that of optax.sgd there, and of updates, after the learning rate here"):
        carry(held, config.SGD(HELD, momentum=0.9))
    assert values(optax.tree.get(carry(config.Optax("adam", learning_rate=HELD), config.Adam(HELD)), "mu")) == [2, 2]


# ---------------------------------------------------------------------------------------------------------
# Arguments


def test_wrong_arguments() -> None:
    sgd = config.SGD(HELD, momentum=0.9)
    state = sgd.make().init(PARAMS)
    with pytest.raises(
        ValueError, match=r"state must be one of the old recipe for these parameters, got nothing at .*"
    ):
        config.carry_over(state[1:], sgd, sgd, PARAMS)
    with pytest.raises(ValueError, match=r"got shape \(3,\) at \[1\].trace\['bias'\], where that has \(5,\)"):
        config.carry_over(state, sgd, sgd, {**PARAMS, "bias": jnp.ones(5)})
    with pytest.raises(TypeError, match="new must be a recipe"):
        config.carry_over(state, sgd, sgd.make(), PARAMS)
    with pytest.raises(ValueError, match="discard must name .*'trace', got 'trase' .did you mean 'trace'"):
        config.carry_over(state, sgd, sgd, PARAMS, discard=["trase"])
    with pytest.raises(ValueError, match=r"discard must be a list of fields, got 'trace'"):
        config.carry_over(state, sgd, sgd, PARAMS, discard="trace")
    for step in (-1, 1.5, True, "5 epochs"):
        with pytest.raises(ValueError, match="^step must be"):
            config.carry_over(state, sgd, sgd, PARAMS, step=step)


class Layer(NamedTuple):
    kernel: Any
    count: Any  # a parameter may have the name of a field


def test_parameters_in_named_tuples_are_no_states() -> None:
    params = {"dense": Layer(jnp.ones(2), jnp.ones(1)), "none": None}
    old, new = config.Adam(HELD), config.AdamW(HELD, weight_decay_rate=0.1, exclude_from_weight_decay=["count"])
    state = jax.tree.map(jnp.ones_like, old.make().init(params))
    mu = {**params, "dense": Layer(jnp.full(2, 3.0), jnp.full(1, 4.0))}
    state = (state[0]._replace(mu=mu), state[1])
    carried = config.carry_over(state, old, new, params)
    assert values(optax.tree.get(carried, "mu")) == [3, 4]
    assert (carried[1].count, carried[-1].count) == (1, 1)
    with pytest.raises(ValueError, match=r"ScaleByAdamState.mu of 'dense/kernel', 'dense/count'; ScaleByAdamState.nu"):
        config.carry_over(state, old, config.SGD(HELD), params)


def test_compiled_it_is_the_same() -> None:
    old, new = recipe(config.Adam(0.1)), recipe(config.AdamW(COOLED, weight_decay_rate=0.1))
    state = jax.tree.map(lambda leaf: jnp.full_like(leaf, 2), old.make().init(PARAMS))
    carried = jax.jit(lambda state, params: config.carry_over(state, old, new, params))(state, PARAMS)
    assert leaf_bytes(carried) == leaf_bytes(config.carry_over(state, old, new, PARAMS))
