"""Groups as data: each by its own optimizer, as `optax.partition` would, and everything around them."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext import config, interop, transforms

PARAMS = {
    "backbone": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.5, 1.0])},
    "prototypes": {"kernel": jnp.array([2.0, -1.0])},
    "head": {"kernel": jnp.array([1.0, 1.0]), "bias": jnp.array([0.25])},
}
SCHEDULE = optax_ext.PolynomialDecay(0.5, 8, 0.0)
LARS = config.LARS(0.5, weight_decay_rate=0.0625)
SGD = config.SGD(SCHEDULE, momentum=0.5)
GROUPS = [
    config.Group(["^backbone/.*kernel"], LARS, name="kernels"),
    config.Group(["^prototypes/"], SGD, name="prototypes"),
]


def grads_of(params, step=0):
    return jax.tree.map(lambda p: jnp.sin((step + 2) * p) + 0.5, params)


def train(tx, params=PARAMS, steps=3):
    state = tx.init(params)
    for number in range(steps):
        updates, state = tx.update(grads_of(params, number), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


# ---------------------------------------------------------------------------------------------------------
# What it makes


def test_each_group_takes_the_steps_of_its_optimizer_alone():
    partition = config.Partition(GROUPS, rest=config.Frozen())
    params, state = train(partition.make())
    kernels, _ = train(LARS.make(), {"backbone": {"kernel": PARAMS["backbone"]["kernel"]}})
    prototypes, _ = train(SGD.make(), {"prototypes": PARAMS["prototypes"]})
    chex.assert_trees_all_close(params["backbone"]["kernel"], kernels["backbone"]["kernel"], rtol=1e-6)
    chex.assert_trees_all_close(params["prototypes"], prototypes["prototypes"], rtol=1e-6)
    chex.assert_trees_all_equal(params["head"], PARAMS["head"])
    chex.assert_trees_all_equal(params["backbone"]["bias"], PARAMS["backbone"]["bias"])
    assert set(state[0].inner_states) == {"kernels", "prototypes", "rest"}
    assert not jax.tree.leaves(state[0].inner_states["rest"])


def test_it_is_optax_partition():
    partition = config.Partition(GROUPS, rest=config.Adam(0.125))
    labels = optax_ext.path_labels({"kernels": ["^backbone/.*kernel"], "prototypes": ["^prototypes/"]}, "rest")
    by_name = {"kernels": LARS.make(), "prototypes": SGD.make(), "rest": config.Adam(0.125).make()}
    expected, expected_state = train(optax.partition(by_name, labels))
    params, (state,) = train(partition.make())
    chex.assert_trees_all_equal((params, state), (expected, expected_state))
    assert partition.labels()(PARAMS) == labels(PARAMS)
    chex.assert_trees_all_equal(optax.tree.map_params(partition.make(), lambda leaf: leaf, (state,)), (state,))


def test_clipping_comes_first_over_all_groups_that_move():
    groups = [config.Group(["kernel"], config.SGD(1.0)), config.Group(["head/bias"], config.Frozen())]
    partition = config.Partition(groups, rest=config.SGD(1.0, clipvalue=0.125), global_clipnorm=5.0)
    grads = jax.tree.map(jnp.ones_like, PARAMS) | {"head": {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array([1e9])}}
    updates, _ = partition.make().update(grads, partition.make().init(PARAMS), PARAMS)
    factor = 5 / np.sqrt(25 + 6 + 2)  # without the gradient of what is frozen
    np.testing.assert_allclose(updates["head"]["kernel"], [-3 * factor, -4 * factor], rtol=1e-6)
    np.testing.assert_allclose(updates["backbone"]["bias"], -0.125, rtol=1e-6)
    np.testing.assert_array_equal(updates["head"]["bias"], 0)
    effects = {stage.name: stage.effect for stage in partition.stages()}
    assert effects["clip by global norm"] == "all together to a norm of at most 5, frozen groups left out"


def test_a_group_that_waits_moves_from_its_step_on_by_the_rate_of_training():
    """As SwAV: prototypes have no gradient in the first epoch, while the schedule goes on."""
    waiting = config.Group(["^prototypes/"], SGD, start_step=2, name="prototypes")
    recipe = config.OptimizationConfig(
        config.Partition([waiting], rest=config.SGD(0.5)), config.FixedLossScale(4.0), accumulate_steps=2
    )
    tx = recipe.make()

    def step(carry, scaled):
        params, state = carry
        updates, state = tx.update(jax.tree.map(lambda p: jnp.full_like(p, scaled), params), state, params)
        return (optax.apply_updates(params, updates), state), updates["prototypes"]["kernel"][0]

    first = PARAMS, tx.init(PARAMS)
    (_, state), moved = jax.lax.scan(step, first, jnp.array([4.0] * 3 + [jnp.inf] + [4.0] * 5))
    # Four updates of two gradients each, since one is skipped: two wait, then the rates of steps 2 and 3 count.
    rates = [SCHEDULE(2), SCHEDULE(3)]
    expected = np.zeros(9)
    expected[[6, 8]] = [-rates[0], -(0.5 * rates[0] + rates[1])]
    np.testing.assert_allclose(moved, expected, rtol=1e-6)
    at = [recipe.learning_rates()["prototypes"](step) for step in range(4)]
    np.testing.assert_allclose(at, [0, 0, *rates], rtol=1e-6)
    metrics = optax_ext.metrics(state, recipe)
    np.testing.assert_allclose(metrics["learning_rate/prototypes"], rates[1], rtol=1e-6)
    assert metrics["learning_rate/rest"] == 0.5
    assert "learning_rate" not in metrics


def test_integers_keys_and_gradients_of_none_are_left_alone():
    params = PARAMS | {"table": jnp.arange(3), "key": jax.random.key(0)}
    partition = config.Partition([config.Group(["rank <= 1"], config.SGD(1.0))], rest=config.Adam(0.5))
    tx = partition.make()
    grads = grads_of(PARAMS) | {"table": np.zeros(3, jax.dtypes.float0), "key": np.zeros((), jax.dtypes.float0)}
    grads["head"] = {"kernel": None, "bias": PARAMS["head"]["bias"]}
    grads["backbone"] = {"kernel": None, "bias": None}  # a hole has no rank, and keeps its group
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_array_equal(updates["table"], 0)
    np.testing.assert_array_equal(updates["head"]["bias"], -0.25)
    assert updates["backbone"] == {"kernel": None, "bias": None}


def test_axes_that_count_layers_are_those_of_every_group_without_its_own():
    params = {"blocks": {"kernel": jnp.arange(1.0, 9.0).reshape(2, 4), "bias": jnp.ones((2, 3))}, "head": jnp.ones(())}
    groups = [config.Group(["rank <= 1"], LARS, name="vectors")]
    partition = config.Partition(groups, rest=config.Frozen(), stacked_axes={"^blocks/": 0})
    stacked, _ = train(partition.make(), params, steps=2)
    apart = {"kernel": params["blocks"]["kernel"][1], "bias": params["blocks"]["bias"][1]}
    alone, _ = train(LARS.make(), apart, steps=2)
    np.testing.assert_allclose(stacked["blocks"]["kernel"][1], alone["kernel"], rtol=1e-6)
    np.testing.assert_allclose(stacked["blocks"]["bias"][1], alone["bias"], rtol=1e-6)
    assert (stacked["head"] != params["head"]).all()


def test_factors_of_all_multiply_those_of_the_groups():
    layer_decay = config.LayerDecay(0.5, "^blocks$", first=["^embed$"])
    head = config.Group(["^head"], config.Ftrl(0.5, learning_rate_multipliers={"bias": 0.5}), name="head")
    embed = config.Group(["^embed$"], config.SGD(1.0), name="embed")  # which alone does not know how many blocks
    partition = config.Partition(
        [head, embed],
        rest=config.SGD(1.0),
        layer_decay=layer_decay,
        stacked_axes={"^blocks$": 0},
        learning_rate_multipliers={"^head": 0.25},
    )
    params = {"embed": jnp.ones(2), "blocks": jnp.ones((2, 2)), "head": {"kernel": jnp.ones(1), "bias": jnp.ones(1)}}
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = partition.make().update(grads, partition.make().init(params), params)
    np.testing.assert_array_equal(updates["embed"], -0.125)
    np.testing.assert_array_equal(updates["blocks"], [[-0.25] * 2, [-0.5] * 2])
    for name, factor in (("kernel", 0.25), ("bias", 0.125)):  # not proportional to the rate
        ftrl = config.Ftrl(0.5 * factor).make()
        expected, _ = ftrl.update(grads["head"][name], ftrl.init(params["head"][name]), params["head"][name])
        np.testing.assert_allclose(updates["head"][name], expected, rtol=1e-6)


def test_groups_stand_inside_of_groups():
    inner = config.Partition([config.Group(["bias"], config.SGD(0.25), name="bias")], rest=SGD)
    partition = config.Partition([config.Group(["^head/"], inner, name="head")], rest=config.SGD(1.0))
    updates, _ = partition.make().update(PARAMS, partition.make().init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["head"]["bias"], -0.25 * PARAMS["head"]["bias"])
    np.testing.assert_allclose(updates["head"]["kernel"], -0.5 * PARAMS["head"]["kernel"])
    np.testing.assert_allclose(updates["backbone"]["bias"], -PARAMS["backbone"]["bias"])
    assert {name: float(rate(4)) for name, rate in partition.learning_rates().items()} == {
        "head/bias": 0.25,
        "head/rest": 0.25,
        "rest": 1.0,
    }


def test_modules_that_can_be_called_are_trees_of_parameters():
    module = eqx.nn.MLP(2, 2, 2, depth=1, key=jax.random.key(0))
    params = eqx.filter(module, eqx.is_inexact_array)
    partition = config.Partition(
        [config.Group(["^layers/0/"], config.Frozen())],
        rest=config.SGD(1.0, global_clipnorm=1e3),
        learning_rate_multipliers={"bias": 0.5},
        global_clipnorm=1e3,
    )
    tx = partition.make()
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    moved = [(layer.weight[0, 0], layer.bias[0]) for layer in updates.layers]
    np.testing.assert_allclose(moved, [(0, 0), (-1, -0.5)], rtol=1e-6)


def test_narrow_parameters_keep_their_dtype_and_masters():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    recipe = config.OptimizationConfig(config.Partition(GROUPS, config.SGD(0.5)), master_weights=True)
    tx = recipe.make()
    updates, state = tx.update(grads_of(params), tx.init(params), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(optax.apply_updates(params, updates))} == {jnp.dtype("bfloat16")}
    assert isinstance(state, optax_ext.MasterWeightsState)
    plain = config.Partition(GROUPS, config.SGD(0.5)).make()
    updates, _ = plain.update(grads_of(params), plain.init(params), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("bfloat16")}


# ---------------------------------------------------------------------------------------------------------
# What it says


def test_it_says_its_groups_rates_and_milestones():
    waiting = config.Group(["^prototypes/"], SGD, start_step=2)
    partition = config.Partition([GROUPS[0], waiting], rest=config.Frozen())
    assert partition.in_words() == "3 groups: kernels, ^prototypes/, rest"
    assert [stage.effect for stage in partition.stages()] == [
        "where a path has '^backbone/.*kernel': LARS with a constant 0.5; where a path has '^prototypes/': SGD with "
        "polynomial_decay, from step 2 on; every other path: frozen"
    ]
    assert list(partition.learning_rates()) == ["kernels", "^prototypes/"]
    assert [tuple(milestone) for milestone in partition.milestones()] == [
        (2, "^prototypes/: first step that moves"),
        (8, "^prototypes/: end of decay_steps"),
    ]
    with pytest.raises(ValueError, match="one for each of 'kernels', '\\^prototypes/': take learning_rates"):
        partition.learning_rate_at(0)
    assert not partition.has_constant_rate()
    assert config.Partition([GROUPS[0]], config.Frozen()).has_constant_rate()
    assert partition.rules()["kernels"] == LARS


def test_metrics_of_constant_rates_need_no_count():
    recipe = config.Partition([GROUPS[0]], rest=config.Frozen())
    _, state = train(recipe.make(), steps=1)
    found = optax_ext.metrics(state, recipe)
    assert {name: float(value) for name, value in found.items()} == {"learning_rate/kernels": 0.5}
    _, state = train(config.Frozen().make(), steps=1)
    assert optax_ext.metrics(state, config.Frozen()) == {}


def test_the_count_of_a_group_that_waits_is_not_taken_for_that_of_training():
    """Adam's count stands still, and Ftrl's is the only one that the schedule goes by."""
    groups = [
        config.Group(["^prototypes/"], config.Adam(0.5), start_step=2, name="adam"),
        config.Group(["head/bias"], config.Ftrl(SCHEDULE), name="ftrl"),
    ]
    recipe = config.Partition(groups, rest=config.Frozen())
    _, state = train(recipe.make(), steps=3)
    found = optax_ext.metrics(state, recipe)
    np.testing.assert_allclose(found["learning_rate/ftrl"], SCHEDULE(2))
    assert found["learning_rate/adam"] == 0.5


# ---------------------------------------------------------------------------------------------------------
# As data

DATA = {
    "type": "partition",
    "groups": [
        {"match": ["^backbone/", "rank <= 1"], "optimizer": {"type": "frozen"}},
        {
            "match": ["^prototypes/"],
            "optimizer": {"type": "sgd", "learning_rate": 0.5},
            "start_step": 313,
            "name": "prototypes",
        },
    ],
    "rest": {"type": "adam", "learning_rate": 0.125},
    "global_clipnorm": 1.0,
}


def test_data_goes_back_and_forth(tmp_path):
    partition = config.from_dict(DATA)
    assert config.to_dict(partition, exclude_defaults=True) == DATA
    assert config.from_dict(config.to_dict(partition)) == partition
    assert hash(config.from_dict(DATA)) == hash(partition)
    recipe = config.OptimizationConfig(partition, ema=config.ParamsEma(0.5))
    for name in ("recipe.yaml", "recipe.json"):
        config.save(recipe, tmp_path / name)
        assert config.load(tmp_path / name) == recipe
    assert eval(repr(partition), vars(config)) == partition


def test_a_group_may_wait_for_a_duration():
    head = {"match": ["^head/"], "optimizer": {"type": "sgd", "learning_rate": 0.5}, "start_step": "1 epoch"}
    data = {
        "optimizer": {"type": "partition", "groups": [head], "rest": {"type": "frozen"}},
        "run": {"examples": 96, "batch_size": 32, "epochs": 2},
    }
    recipe = config.from_dict(data)
    assert config.to_dict(recipe, exclude_defaults=True) == data
    plain = config.resolve(recipe)
    assert plain.optimizer.groups[0].start_step == 3
    _, state = train(recipe.make(), steps=4)
    assert [float(recipe.learning_rates()["^head/"](step)) for step in (2, 3)] == [0.0, 0.5]
    assert optax_ext.metrics(state, recipe)["learning_rate/^head/"] == 0.5
    with pytest.raises(config.ConfigError, match="groups.0.start_step: '1 epoch' depends on the run"):
        recipe.optimizer.make()
    changed = config.override(recipe, ["optimizer.groups.0.start_step=2 steps", "optimizer.rest.type=frozen"])
    assert config.resolve(changed).optimizer.groups[0].start_step == 2
    rates = {
        "type": "sgd",
        "learning_rate": {"value": 0.1, "per_batch": 16},
        "layer_decay": {"decay": 0.5, "blocks": "h"},
    }
    decayed = config.override(recipe, {"optimizer.groups.0.optimizer": rates, "optimizer.stacked_axes": {"kernel": 0}})
    with pytest.raises(ValueError, match="blocks must have a group that is the number"):
        decayed.make().init(PARAMS)  # nothing was lost when durations were resolved


def test_the_json_schema_has_groups():
    definitions = config.json_schema()["$defs"]
    assert definitions["partition"]["properties"]["groups"]["items"] == {"$ref": "#/$defs/Group"}
    assert definitions["Group"]["properties"]["optimizer"]["$ref"] == "#/$defs/UpdateRule"
    assert definitions["Group"]["required"] == ["match", "optimizer"]
    assert definitions["Group"]["properties"]["match"]["minItems"] == 1
    assert definitions["partition"]["properties"]["groups"]["minItems"] == 1
    assert {"$ref": "#/$defs/frozen"} in definitions["UpdateRule"]["anyOf"]
    decay = definitions["sgd"]["properties"]["layer_decay"]
    assert {"$ref": "#/$defs/LayerDecay"} in decay["anyOf"]
    assert "LayerDecay" in definitions


def test_all_problems_are_found_at_once():
    wrong = {
        "type": "partition",
        "groups": [
            {"match": ["("], "optimizer": {"type": "sgd", "learning_rate": 0.1, "momentum": 2}},
            {"match": [], "optimizer": {"type": "frozen", "clipnorm": 1.0}, "start_step": 3, "naem": "x"},
            {"match": ["y"], "optimizer": {"type": "frozen", "learning_rate": 0.0}},
            {"mach": ["x"], "optimizer": {"type": "frozn"}},
        ],
        "rest": {"learning_rate": 0.1},
        "clipvalue": -1,
    }
    with pytest.raises(config.ConfigError) as caught:
        config.from_dict({"optimizer": wrong})
    found = {problem.path.removeprefix("optimizer."): problem.message for problem in caught.value.problems}
    assert set(found) == {
        "groups.0.match.0",
        "groups.0.optimizer.momentum",
        "groups.1.match",
        "groups.1.optimizer.clipnorm",
        "groups.1.naem",
        "groups.2.optimizer.learning_rate",
        "groups.3.mach",
        "groups.3.match",
        "groups.3.optimizer.type",
        "rest.type",
        "clipvalue",
    }
    assert "did you mean 'name'" in found["groups.1.naem"]
    assert "did you mean 'match'" in found["groups.3.mach"]
    assert "did you mean 'frozen'" in found["groups.3.optimizer.type"]
    assert found["groups.2.optimizer.learning_rate"] == "must not be given: what is frozen has no updates"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: config.Partition([]), "groups: must have at least one group"),
        (lambda: config.Partition([GROUPS[0], GROUPS[0]]), "groups: must have names of their own, got 'kernels' twice"),
        (
            lambda: config.Partition([config.Group(["a"], LARS, name="rest")], rest=LARS),
            "rest: is called 'rest', as a group is",
        ),
        (lambda: config.Group(["a"], config.Frozen(), start_step=1), "start_step: must not be given with a frozen"),
        (lambda: config.Group(["a"], LARS, name=""), "name: must be a name, got ''"),
        (lambda: config.Group("a", LARS), r"match: must be a list, got 'a': write \[a\]"),
        (lambda: config.Frozen(allow_unmatched=True, layer_decay=None, stacked_axes=0), "Frozen: 2 problems"),
    ],
    ids=["none", "twice", "rest", "frozen", "name", "text", "fields"],
)
def test_wrong_groups(build, message):
    with pytest.raises(config.ConfigError, match=message):
        build()


def test_parameters_without_a_group_or_with_two_are_errors_of_init():
    alone = config.Partition(GROUPS)
    with pytest.raises(ValueError, match="no pattern matches 'backbone/bias', 'head/bias', 'head/kernel'"):
        alone.make().init(PARAMS)
    both = config.Partition([*GROUPS, config.Group(["kernel"], LARS)], rest=LARS)
    with pytest.raises(ValueError, match=r"'prototypes/kernel' must have one label, got 'prototypes' by the pattern"):
        both.make().init(PARAMS)
    misspelt = config.Partition([config.Group(["haed"], LARS)], rest=LARS)
    with pytest.raises(ValueError, match="'haed' matches none"):
        misspelt.make().init(PARAMS)


def test_keras_has_no_groups_and_no_factors():
    with pytest.raises(config.ConfigError, match="Keras has no class for Partition"):
        interop.to_keras(config.from_dict(DATA))
    with pytest.raises(config.ConfigError, match="Keras has no class for Frozen"):
        interop.to_keras(config.OptimizationConfig(config.Frozen()))
    factors = {"learning_rate_multipliers": {"head": 2.0}, "layer_decay": config.LayerDecay(0.5, "b")}
    for generation in ("older", "newer"):
        with pytest.raises(config.ConfigError) as caught:
            interop.to_keras(config.Adam(0.1, **factors), generation=generation)
        assert [problem.path for problem in caught.value.problems] == [*factors]
    foreign = {"class_name": "Adam", "config": {"learning_rate": 0.1, "learning_rate_multipliers": {"head": 2.0}}}
    with pytest.raises(config.ConfigError, match="learning_rate_multipliers: unknown"):
        interop.from_keras(foreign)


def test_what_waits_is_found_in_the_state():
    recipe = config.Partition([config.Group(["^head/"], config.SGD(0.5), start_step=1)], rest=config.Frozen())
    _, state = train(recipe.make(), steps=1)
    (waiting,) = [
        node
        for node in jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, transforms.FrozenUntilState))
        if isinstance(node, transforms.FrozenUntilState)
    ]
    assert waiting.steps.count == 1


def test_gradients_of_frozen_groups_need_not_be_finite():
    recipe = config.OptimizationConfig(
        config.Partition([config.Group(["^head/"], config.Frozen())], rest=config.SGD(0.5), global_clipnorm=100.0),
        config.DynamicLossScale(initial_scale=1.0),
    )
    tx = recipe.make()
    grads = jax.tree.map(jnp.ones_like, PARAMS) | {"head": {"kernel": jnp.full(2, jnp.inf), "bias": jnp.ones(1)}}
    updates, state = jax.jit(tx.update)(grads, tx.init(PARAMS), PARAMS)
    assert state.grads_finite
    np.testing.assert_array_equal(updates["backbone"]["bias"], -0.5)
    np.testing.assert_array_equal(updates["head"]["kernel"], 0)
