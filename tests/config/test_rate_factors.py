"""Learning rates of parameters of their own: as if their optimizer had that rate, for every optimizer."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_ext import config
from tests.marks import slow_unless

FACTOR = 0.25
PARAMS = {
    "head": {"kernel": jnp.array([[1.5, -0.5], [0.25, 2.0]]), "bias": jnp.array([0.5, -1.0])},
    "body": {"kernel": jnp.array([[0.5, 1.0], [-2.0, 0.75]]), "bias": jnp.array([1.0, 0.25])},
}
DECAY = {"weight_decay_rate": 0.0625}
APART = {"weight_decay_rate": 0.0625, "weight_decay_times_learning_rate": False}
SETTINGS = [
    (config.SGD, {"momentum": 0.5, "nesterov": True, **DECAY}),
    (config.SGD, {"momentum": 0.5, "learning_rate_in_momentum": False, **APART}),
    (config.SGD, {"momentum": 0.5, "weight_decay_in_gradient": True, **DECAY}),
    (config.LARS, {"exclude_from_weight_decay": ["bias"], **DECAY}),
    (config.LARS, {"classic_momentum": False, **DECAY}),
    (config.LARS, {"separate_norms": True, **DECAY}),
    (config.LAMB, DECAY),
    (config.LAMB, {"decoupled_weight_decay": True, **DECAY}),
    (config.Adam, {"amsgrad": True}),
    (config.AdamW, {"gradient_clip_norm": 0.0, **DECAY}),
    (config.AdamW, {"gradient_clip_norm": 0.0, **APART}),
    (config.RMSprop, {"momentum": 0.5, "centered": True, **DECAY}),
    (config.Adagrad, APART),
    (config.Adadelta, DECAY),
    (config.Adamax, DECAY),
    (config.Nadam, DECAY),
    (config.Lion, APART),
    (config.Ftrl, {"l1_regularization_strength": 0.03125, "l2_regularization_strength": 0.0625, "beta": 0.5, **DECAY}),
    (config.Ftrl, {"learning_rate_power": -0.75, **APART}),
    (config.Adafactor, DECAY),
    (config.Adafactor, APART),
    (config.Muon, {"adam_lr_ratio": 0.5, **DECAY}),
    (config.Muon, {"adam_weight_decay": 0.03125, **APART}),
    (config.ScheduleFreeAdamW, {"warmup_steps": 2, **DECAY}),
    (config.ScheduleFreeAdamW, {"beta_1": 0.75, **APART}),
]
TAKE_LONG = [(config.Adafactor, APART), SETTINGS[-3]]  # and differ from the setting before in its decay
every_setting = pytest.mark.parametrize(
    ("cls", "options"),
    slow_unless(lambda cls, options: (cls, options) not in TAKE_LONG, SETTINGS),
    ids=[f"{cls.type}-{number}" for number, (cls, _) in enumerate(SETTINGS)],
)


def train(tx, params, steps=2):
    state = tx.init(params)
    for _ in range(steps):  # not compiled, which takes longer than a few steps
        updates, state = tx.update(jax.tree.map(lambda p: jnp.sin(3 * p) + 0.5, params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def test_every_optimizer_is_tested_here():
    classes = [cls for name in config.__all__ if isinstance(cls := getattr(config, name), type)]
    assert {cls for cls, _ in SETTINGS} == {cls for cls in classes if issubclass(cls, config.Optimizer)} - {
        config.Optimizer
    }


@every_setting
def test_a_factor_is_as_that_times_the_learning_rate(cls, options):
    """`pytest -m "slow or not slow" tests/config/test_rate_factors.py`: all passed, on Python 3.11 with JAX 0.10.2."""
    rate, factors = 0.125, {"^head/kernel": FACTOR, "^head/bias": 0.0, "^body/": 1.0}
    schema = cls(rate, learning_rate_multipliers=factors, **options)
    params, state = train(schema.make(), PARAMS)
    body, _ = train(cls(rate, **options).make(), {"body": PARAMS["body"]})
    kernel = {"head": {"kernel": PARAMS["head"]["kernel"]}}
    alone = {name: value for name, value in options.items() if name != "exclude_from_weight_decay"}
    head, _ = train(cls(rate * FACTOR, **alone).make(), kernel)
    chex.assert_trees_all_close(params["body"], body["body"], rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_close(params["head"]["kernel"], head["head"]["kernel"], rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_equal(params["head"]["bias"], PARAMS["head"]["bias"])  # to the last bit
    plain = cls(rate, **options).make().init(PARAMS)
    assert len(jax.tree.leaves(state)) == len(jax.tree.leaves(plain))  # factors are not in the state


def test_the_limit_of_adafactor_is_multiplied_too():
    """The rate that a step takes is 1 / sqrt(step + 1) here, and that is what a factor multiplies."""
    params = jnp.array([1.0, -2.0, 0.5])
    factored = config.Adafactor(100.0, learning_rate_multipliers={"": 0.5}).make()
    updates, _ = factored.update(params, factored.init(params), params)
    plain = config.Adafactor(100.0).make()
    expected, _ = plain.update(params, plain.init(params), params)
    np.testing.assert_allclose(updates, 0.5 * expected, rtol=1e-6)


# ---------------------------------------------------------------------------------------------------------
# Layer decay


def layered(blocks=3):
    leaf = jnp.ones(2)
    return {
        "cls_token": leaf,
        "patch_embed": {"kernel": leaf},
        "blocks": [{"kernel": leaf, "bias": leaf} for _ in range(blocks)],
        "norm": leaf,
        "head": {"kernel": leaf},
    }


DECAYING = config.LayerDecay(0.75, r"^blocks/(\d+)/", first=["^patch_embed/", "cls_token"])


def test_layers_have_the_rates_of_mae():
    """As util/lr_decay.py of MAE computes them: 0.75 ** (13 - layer) for 12 blocks."""
    tx = config.SGD(1.0, layer_decay=DECAYING).make()
    params = layered(12)
    updates, _ = tx.update(params, tx.init(params), params)
    scales = [0.75 ** (13 - layer) for layer in range(14)]
    np.testing.assert_allclose(updates["cls_token"], -scales[0], rtol=1e-6)
    np.testing.assert_allclose(updates["patch_embed"]["kernel"], -scales[0], rtol=1e-6)
    for number, block in enumerate(updates["blocks"]):
        np.testing.assert_allclose(block["kernel"], -scales[number + 1], rtol=1e-6)
        np.testing.assert_array_equal(block["bias"], block["kernel"])
    np.testing.assert_array_equal(updates["norm"], -1)
    np.testing.assert_array_equal(updates["head"]["kernel"], -1)


def test_a_stack_of_blocks_takes_the_steps_of_blocks_apart():
    apart, stacked = layered(), layered() | {"blocks": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones((3, 2))}}
    decay = config.LayerDecay(0.75, "^blocks/", first=["^patch_embed/", "cls_token"])
    options = {"weight_decay_rate": 0.0625, "learning_rate_multipliers": {"head": 4.0}}
    after, _ = train(config.LAMB(0.125, layer_decay=DECAYING, **options).make(), apart)
    scanned = config.LAMB(0.125, layer_decay=decay, stacked_axes={"^blocks/": 0}, **options)
    after_stacked, _ = train(scanned.make(), stacked)
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *after["blocks"])
    chex.assert_trees_all_close(after_stacked, after | {"blocks": together}, rtol=1e-6)


def test_factors_of_both_kinds_are_multiplied():
    schema = config.SGD(1.0, layer_decay=DECAYING, learning_rate_multipliers={"bias": 2.0})
    factors = schema.rate_factors()(layered())
    assert factors["blocks"][2] == {"kernel": 0.75, "bias": 1.5}
    assert schema.rate_factors(allow_unmatched=True)({"head": jnp.ones(1)}) == {"head": 1.0}
    with pytest.raises(ValueError, match="'bias' matches none"):
        schema.make().init({"head": jnp.ones(1)})
    assert config.SGD(1.0).rate_factors() is None


# ---------------------------------------------------------------------------------------------------------
# Precision, wrappers, fields


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_updates_keep_their_dtype_and_factors_are_not_rounded(dtype):
    params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
    tx = config.SGD(1.0, learning_rate_multipliers={"head": 0.7}).make()
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates["head"]["bias"].dtype == dtype
    exact = -np.asarray(params["head"]["kernel"], np.float32) * np.float32(0.7)
    np.testing.assert_array_equal(updates["head"]["kernel"], exact.astype(dtype))


def test_the_whole_recipe_has_the_factors_inside():
    sgd = config.SGD(1.0, momentum=0.5, learning_rate_multipliers={"head": FACTOR})
    recipe = config.OptimizationConfig(
        sgd, config.FixedLossScale(8.0), config.ParamsEma(0.5), master_weights=True, accumulate_steps=2
    )
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    tx = recipe.make()
    state = tx.init(params)
    for scaled in (8.0, float("inf"), 24.0):  # the second is skipped, and the mean of the others is 2
        grads = jax.tree.map(lambda p, scaled=scaled: jnp.full_like(p, scaled), params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    for name, factor in (("head", FACTOR), ("body", 1.0)):
        expected = PARAMS[name]["kernel"] - 2 * factor
        np.testing.assert_array_equal(params[name]["kernel"], expected.astype(jnp.bfloat16))


def test_integers_are_left_alone():
    params = {"head": {"kernel": jnp.ones(2), "table": jnp.arange(3)}}
    tx = config.SGD(1.0, learning_rate_multipliers={"head": 2.0}).make()
    grads = {"head": {"kernel": jnp.ones(2), "table": np.zeros(3, jax.dtypes.float0)}}
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_array_equal(updates["head"]["table"], 0)
    np.testing.assert_array_equal(updates["head"]["kernel"], -2)


def test_fields_are_read_written_and_checked():
    data = {
        "type": "sgd",
        "learning_rate": 0.1,
        "learning_rate_multipliers": {"^head/": 10.0, "bias": 2},
        "layer_decay": {"decay": 0.75, "blocks": r"^blocks/(\d+)/"},
    }
    schema = config.from_dict(data)
    assert schema.layer_decay == config.LayerDecay(0.75, r"^blocks/(\d+)/")
    assert config.from_dict(config.to_dict(schema)) == schema
    assert hash(schema) == hash(config.from_dict(data))
    assert config.to_dict(schema, exclude_defaults=True) == data
    wrong = data | {
        "learning_rate_multipliers": {"^head/": -1.0, "rank <= 1": 2.0},
        "layer_decay": {"decay": 1.5, "blocks": r"(a)/(\d)", "frist": []},
    }
    with pytest.raises(config.ConfigError) as caught:
        config.from_dict({"optimizer": wrong})
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert set(found) == {
        "optimizer.learning_rate_multipliers.^head/",
        "optimizer.learning_rate_multipliers.rank <= 1",
        "optimizer.layer_decay.decay",
        "optimizer.layer_decay.blocks",
        "optimizer.layer_decay.frist",
    }
    assert "which is of ranks" in found["optimizer.learning_rate_multipliers.rank <= 1"]
    assert "one group, the number, got 2" in found["optimizer.layer_decay.blocks"]
    assert "did you mean 'first'" in found["optimizer.layer_decay.frist"]
    with pytest.raises(config.ConfigError, match="must be a mapping with at least one pattern"):
        config.SGD(0.1, learning_rate_multipliers={})


def test_words_say_the_factors():
    schema = config.SGD(0.1, learning_rate_multipliers={"^head/": 10.0}, layer_decay=DECAYING)
    by_name = {stage.name: stage.effect for stage in schema.stages()}
    assert by_name["learning rate factors"] == (
        "times a factor of each parameter: 10 where a path has '^head/'; and 0.75 once for each layer after it, of the "
        r"blocks '^blocks/(\d+)/', down to those with '^patch_embed/' or 'cls_token'"
    )
    ones = config.SGD(0.1, learning_rate_multipliers={"head": 1.0}).stages()[-1]
    assert (ones.name, ones.does_nothing) == ("learning rate factors", True)
    frozen = config.SGD(0.1, learning_rate_multipliers={"head": 0.0}).stages()[-1]
    assert (frozen.name, frozen.effect) == ("freeze", "no update where the factor is 0")
