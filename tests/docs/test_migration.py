"""The migration guide has a row for everything of TensorFlow's, and each line of its code runs."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import yaml

import optax_ext
from optax_ext import config

GUIDE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text()
SETUP = re.search(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)[1]
TABLES = [line for line in GUIDE.splitlines() if line.startswith("| ") and not line.startswith("| in ")]
ROWS = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in TABLES]

# The public methods and attributes of the classes in tf_keras 2.21 and Model Garden 2.20, but for tf.Module's.
NAMES = [
    "add_slot",
    "add_weight",
    "apply_gradients",
    "clipnorm",
    "clipvalue",
    "from_config",
    "get_config",
    "get_gradients",
    "get_slot",
    "get_slot_names",
    "get_updates",
    "get_weights",
    "global_clipnorm",
    "gradient_aggregator",
    "gradient_transformers",
    "iterations",
    "minimize",
    "nesterov",
    "set_weights",
    "variables",
    "weights",
    "learning_rate",
    "lr",
    "decay",
    "classic_momentum",
    "eeta",
    "exclude_from_layer_adaptation",
    "exclude_from_weight_decay",
    "momentum",
    "weight_decay_rate",
    "dynamic",
    "dynamic_counter",
    "dynamic_growth_steps",
    "get_scaled_loss",
    "get_unscaled_gradients",
    "initial_scale",
    "inner_optimizer",
    "loss_scale",
    "assign_average_vars",
    "has_shadow_copy",
    "shadow_copy",
    "swap_weights",
    "update_average",
    "average_decay",
    "start_step",
    "dynamic_decay",
    "trainable_weights_only",
]


@pytest.fixture(scope="module")
def namespace():
    names = {}
    exec(compile(SETUP, "migration.md", "exec"), names)
    return names


def test_every_row_has_three_cells():
    assert all(len(row) == 3 for row in ROWS)


@pytest.mark.parametrize("name", NAMES)
def test_everything_has_a_row(name):
    assert any(f"`{name}`" in row[0] for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_code_runs(row, namespace):
    code = row[2].strip("` ")
    exec(compile(code, "migration.md", "exec"), dict(namespace))


def test_the_yaml_recipe_loads_and_is_made():
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    adamw = config.from_dict(yaml.safe_load(text), config.OptimizationConfig).optimizer
    assert adamw.weight_decay_rate == optax_ext.StepCosineDecay([0, 1000], [0.04, 0.4])
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    adamw.make().init(params)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("join_schedules", None),
        ("warmup_cosine_decay_schedule", optax.warmup_cosine_decay_schedule(0.0, 0.5, 100, 1000)),
        ("piecewise_constant_schedule", optax.piecewise_constant_schedule(0.5, {100: 0.1})),
    ],
)
def test_the_schedules_of_optax_have_the_same_rates(name, theirs):
    (code,) = [row[2].strip("` ") for row in ROWS if row[0].startswith(f"`{name}")]
    ours = eval(code, {"optax_ext": optax_ext})
    theirs = theirs or optax.join_schedules(ours.schedules, ours.boundaries)
    steps = jnp.array([0, 50, 99, 100, 101, 550, 999, 1000, 1001])
    np.testing.assert_allclose(ours(steps), jnp.stack([theirs(step) for step in steps]), rtol=1e-6, atol=1e-8)
