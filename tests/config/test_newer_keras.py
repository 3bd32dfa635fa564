"""What is particular to the recipes of Adafactor, Muon and schedule-free AdamW: their rates, and who moves what."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ext
from optax_ext import config

SCHEDULE = optax_ext.PolynomialDecay(0.5, 10, 0.125)
PARAMS = {
    "Embed_0": {"Embedding": jnp.ones((3, 2))},
    "body": {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.ones(3)},
    "conv": {"kernel": jnp.ones((2, 2, 1, 2))},
    "head": {"kernel": jnp.ones((3, 2))},
}


def paths_of(mask):
    leaves, _ = jax.tree_util.tree_flatten_with_path(mask)
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path, chosen in leaves if chosen}


# ---------------------------------------------------------------------------------------------------------
# Rates


@pytest.mark.parametrize("decay", [0.0, 0.375])
@pytest.mark.parametrize("learning_rate", [0.25, SCHEDULE], ids=["number", "schedule"])
@pytest.mark.parametrize("cls", [config.Adafactor, config.ScheduleFreeAdamW])
def test_the_rate_at_a_step_is_the_one_that_the_step_takes_and_weight_decay_takes_the_plain_one(
    cls, learning_rate, decay
):
    options = {} if cls is config.Adafactor else {"warmup_steps": 4}
    schema = cls(learning_rate, decay=decay, weight_decay_rate=0.5, **options)
    plain = config.SGD(learning_rate, decay=decay).learning_rate_at(jnp.arange(30))
    of_keras = 1 / np.sqrt(np.arange(1, 31)) if cls is config.Adafactor else plain * np.minimum(np.arange(1, 31) / 4, 1)
    rates = schema.learning_rate_at(jnp.arange(30))
    np.testing.assert_allclose(rates, np.minimum(plain, of_keras), rtol=1e-6)
    assert (rates.dtype, rates.weak_type) == (jnp.float32, False)
    without_decay = dataclasses.replace(schema, weight_decay_rate=0.0)  # its own stages, apart
    stage = {stage.name: stage.transformation for stage in without_decay.stages()}["learning rate"]
    state, taken = stage.init(jnp.ones(())), []
    for _ in range(6):
        updates, state = stage.update(jnp.ones(()), state)
        taken.append(-updates)
    np.testing.assert_allclose(taken, rates[:6], rtol=1e-6)
    # Without a gradient nothing moves but what decays, by the plain rate: of the average, in schedule-free learning.
    params, tx = jnp.ones(2), schema.make()
    updates, _ = tx.update(jnp.zeros(2), tx.init(params), params)
    expected = -0.5 * plain[0] * np.ones(2) if cls is config.Adafactor else np.zeros(2)
    np.testing.assert_allclose(updates, expected, atol=1e-7)


def test_the_first_step_of_the_average_forgets_what_decayed_and_the_second_does_not():
    tx, params = config.ScheduleFreeAdamW(0.5, beta_1=0.5, weight_decay_rate=0.25, warmup_steps=8).make(), jnp.ones(2)
    state = tx.init(params)
    for expected in (1.0, 1 - 0.5 * 0.25 * 0.5):  # of x, half of z weighs 1 / 2 in the second step
        updates, state = tx.update(jnp.zeros(2), state, params)
        params = params + updates
        np.testing.assert_allclose(params, expected, rtol=1e-6)


def test_milestones():
    assert config.Adafactor(0.01).milestones() == ((10_000, "1 / sqrt(step + 1) from here on"),)
    assert config.Adafactor(1e-9).milestones()[0].step == 2**31 - 1
    assert config.Adafactor(SCHEDULE).milestones() == SCHEDULE.milestones()
    assert config.Adafactor(0.1).milestones()[0].step == 100
    assert config.Adafactor(0.1, decay=0.5).milestones() == config.SGD(0.1, decay=0.5).milestones()
    assert config.ScheduleFreeAdamW(0.1).milestones() == ()
    found = config.ScheduleFreeAdamW(SCHEDULE, warmup_steps=4).milestones()
    assert [step for step, reason in found if reason == "end of warmup_steps"] == [4]


@pytest.mark.filterwarnings("ignore:.*learning_rate .* is 0 at every step:UserWarning")
def test_a_rate_of_zero_has_no_limit():
    assert config.Adafactor(0.0).milestones() == ()


def test_relative_step_changes_nothing_as_in_keras():
    schemas = config.Adafactor(0.5), config.Adafactor(0.5, relative_step=False)
    assert schemas[0] != schemas[1]
    chex.assert_trees_all_equal(*(schema.learning_rate_at(jnp.arange(20)) for schema in schemas))


# ---------------------------------------------------------------------------------------------------------
# Who moves what with Muon


@pytest.mark.parametrize(
    ("fields", "matrices"),
    [
        ({}, {"body/kernel", "head/kernel"}),
        ({"exclude_layers": ["^head/"]}, {"body/kernel"}),
        ({"exclude_embeddings": False}, {"body/kernel", "head/kernel", "Embed_0/Embedding"}),
        ({"exclude_layers": ["kernel"]}, set()),
        ({"stacked_axes": {"body/kernel": 0}}, {"head/kernel"}),
        ({"stacked_axes": {"conv": [0, 2]}}, {"body/kernel", "head/kernel", "conv/kernel"}),
    ],
)
def test_muon_moves_matrices_and_adam_the_rest(fields, matrices):
    schema = config.Muon(0.5, adam_lr_ratio=0.25, weight_decay_rate=0.0, adam_weight_decay=0.0, **fields)
    assert paths_of(schema.masks()["orthogonalization"](PARAMS)) == matrices
    tx = schema.make()
    state = tx.init(PARAMS)
    assert {leaf.shape for leaf in jax.tree.leaves(PARAMS)} == {
        leaf.shape for leaf in jax.tree.leaves(state) if leaf.shape
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == sum(
        leaf.size * (1 if path in matrices else 2) for path, leaf in flatten(PARAMS).items()
    ) + 1 * (len(matrices) < 5)  # Adam's count
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, PARAMS), state, PARAMS)
    adams = {path for path, update in flatten(updates).items() if np.allclose(update, -0.5 * 0.25, rtol=1e-4)}
    assert adams == flatten(PARAMS).keys() - matrices


def flatten(tree):
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


@pytest.mark.parametrize(
    ("fields", "decays"),
    [
        ({}, dict.fromkeys(flatten(PARAMS), 0.004)),
        (
            {"weight_decay_rate": 0.5, "adam_weight_decay": 0.25, "exclude_from_weight_decay": ["body"]},
            {"head/kernel": 0.5, "Embed_0/Embedding": 0.25, "conv/kernel": 0.25},
        ),
        ({"adam_weight_decay": 0.0, "exclude_from_weight_decay": ["head"]}, {"body/kernel": 0.004}),
        ({"weight_decay_rate": 0.0, "exclude_layers": ["head"], "exclude_from_weight_decay": ["bias"]},
            {"head/kernel": 0.004, "Embed_0/Embedding": 0.004, "conv/kernel": 0.004}),
    ],
)  # fmt: skip
def test_matrices_and_the_rest_decay_by_rates_of_their_own_times_the_whole_learning_rate(fields, decays):
    for times in (True, False):
        schema = config.Muon(SCHEDULE, adam_lr_ratio=0.1, weight_decay_times_learning_rate=times, **fields)
        assert paths_of(schema.masks()["weight decay"](PARAMS)) == decays.keys()
        tx = schema.make()
        updates, _ = tx.update(jax.tree.map(jnp.zeros_like, PARAMS), tx.init(PARAMS), PARAMS)
        for path, update in flatten(updates).items():
            expected = -(0.5 if times else 1) * decays.get(path, 0.0) * flatten(PARAMS)[path]
            np.testing.assert_allclose(update, expected, rtol=1e-6, err_msg=path)


def test_muon_without_any_decay_has_no_stage_of_it_unless_a_list_says_otherwise():
    none = config.Muon(0.1, weight_decay_rate=0.0, adam_weight_decay=0.0)
    assert "weight decay" not in {stage.name for stage in none.stages()}
    assert "weight decay" not in none.masks()
    assert [field.field for field in none.pattern_fields()] == ["exclude_layers", "exclude_embeddings"]
    listed = config.Muon(0.1, weight_decay_rate=0.0, adam_weight_decay=0.0, exclude_from_weight_decay=["biases"])
    assert listed.stages()[-1].does_nothing
    with pytest.raises(ValueError, match="'biases' matches none"):
        listed.make().init(PARAMS)


def test_muon_needs_the_parameters():
    tx = config.Muon(0.1, weight_decay_rate=0.0, adam_weight_decay=0.0).make()
    with pytest.raises(ValueError, match="Muon needs the parameters"):
        tx.update(PARAMS, tx.init(PARAMS))


def test_a_matrix_without_a_gradient_keeps_its_momentum():
    """Of a gradient of None the rank is not known, by which matrices are told from the rest."""
    tx = config.Muon(0.1).make()
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    updates, after = tx.update(PARAMS | {"head": {"kernel": None}}, state, PARAMS)
    assert updates["head"]["kernel"] is None
    chex.assert_trees_all_equal_structs(after, state)
    trace = [jax.tree.leaves(s[0].inner_state.trace["head"]) for s in (state, after)]
    chex.assert_trees_all_equal(*trace)
    assert len(trace[0]) == 1


def test_keras_3s_lamb_steps_in_bfloat16_under_strict_promotion():
    tx, params = config.LAMB(0.25, weight_decay_rate=0.5, decoupled_weight_decay=True).make(), jnp.ones(2, "bfloat16")
    with jax.numpy_dtype_promotion("strict"):
        updates, _ = tx.update(params, tx.init(params), params)
    assert updates.dtype == params.dtype
    np.testing.assert_allclose(updates.astype("float32"), 0.875 * 0.75 - 1, rtol=1e-2)
