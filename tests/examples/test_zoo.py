"""Each recipe of `examples/configs` does what its source does: rates and updates equal a recording of the source.

A recording, `data/zoo/<stem>.json`, holds rates at telling steps, and five updates of small parameters by given
gradients, as the code that the recipe is from computed them, or a derivation from it in float64 where it does not run.
The scripts `generate_zoo_*.py` write recordings and say how.
"""

import functools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import yaml

import optax_ext
from optax_ext import config, interop, schedules
from optax_ext.cli import main

CONFIGS = sorted((Path(optax_ext.__file__).parents[1] / "examples" / "configs").glob("*.yaml"))
RECORDINGS = {path.stem: json.loads(path.read_text()) for path in sorted(Path(__file__).parent.glob("data/zoo/*.json"))}

# Both sides compute a rate in a few operations: ours in float32, whose rounding at the peak is all that is left of a
# rate that has decayed to nearly nothing.
RATE_TOLERANCE, ROUNDING = 2e-6, 2.0**-22
# Ours are updates in float32, theirs differences of float64 parameters. The largest error is that of Adam, where
# 1 - 0.999**2 in float32, as Optax and we compute it, is off by up to 3e-5 of its value, and its root by half of that.
UPDATE_TOLERANCE = 2e-5


def form(value):
    """Return a part of a recipe without its numbers, and without words that have numbers in them."""
    if isinstance(value, dict):
        return tuple((name, form(item)) for name, item in value.items())
    if isinstance(value, list):
        return tuple(map(form, value))
    is_kept = isinstance(value, bool) or (isinstance(value, str) and not re.search(r"\d", value))
    return value if is_kept else type(value).__name__


FORMS = {form(yaml.safe_load(path.read_text())): path for path in reversed(CONFIGS)}  # to the first recipe of each

each_recipe = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
one_of_each_form = pytest.mark.parametrize("path", sorted(FORMS.values()), ids=lambda path: path.stem)
each_recording = pytest.mark.parametrize("stem", RECORDINGS)


@functools.cache
def recipe_of(stem):
    (path,) = (path for path in CONFIGS if path.stem == stem)
    return config.load(path)


@functools.cache
def resolved(stem):
    """Return a recipe with its durations as steps."""
    return config.resolve(recipe_of(stem))


def unflatten(arrays):
    nested = {}
    for path, array in arrays.items():
        *folders, last = path.split("/")
        node = nested
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = jnp.asarray(array, jnp.float32)
    return nested


def at_path(nested, path):
    for name in path.split("/"):
        nested = nested[name]
    return np.asarray(nested, np.float64)


def started(state, step):
    """Return a fresh state with all its counts of steps at `step`."""

    def start(path, leaf):
        return jnp.full_like(leaf, step) if getattr(path[-1], "name", None) == "count" else leaf

    return jax.tree_util.tree_map_with_path(start, state)


def value_function(recipe, name):
    """Return what a recording calls `name`, of one group of parameters or of all, as a function of the step."""
    kind, _, group = name.partition("/")
    if kind == "learning_rate":
        return recipe.optimizer.learning_rates()[group] if group else recipe.optimizer.learning_rate_at
    value = recipe.optimizer.weight_decay_rate if kind == "weight_decay" else recipe.ema.average_decay
    return functools.partial(schedules.evaluate, value)


def test_every_recipe_has_a_recording():
    assert [path.stem for path in CONFIGS] == list(RECORDINGS)


@each_recording
def test_rates_are_those_of_the_source(stem):
    for name, pairs in RECORDINGS[stem]["rates"].items():
        steps, expected = np.array(pairs).T
        limits = RATE_TOLERANCE * np.abs(expected) + ROUNDING * np.abs(expected).max()
        value_at = value_function(resolved(stem), name)  # one step at a time, which compiles what updates take too
        ours = np.array([float(value_at(jnp.int32(step))) for step in steps])
        assert (np.abs(ours - expected) <= limits).all(), np.stack([steps, ours, expected], axis=1)


@each_recording
def test_updates_are_those_of_the_source(stem):
    recording = RECORDINGS[stem]
    params = unflatten(recording["params"])
    recipe = resolved(stem)
    optimizer = recipe.optimizer.make() if recipe.loss_scale is None else recipe.make()
    state = started(optimizer.init(params), recording["start_step"])
    scale = optax.tree.get(state, "loss_scale", 1.0)
    for step, (grads, expected) in enumerate(zip(recording["grads"], recording["updates"], strict=True)):
        updates, state = optimizer.update(optax.tree.scale(scale, unflatten(grads)), state, params)
        params = optax.apply_updates(params, updates)
        for path, update in expected.items():
            apart = np.abs(at_path(updates, path) - update).max()
            assert apart <= UPDATE_TOLERANCE * np.abs(update).max(), (step, path, at_path(updates, path), update)


def test_the_float16_recipe_is_what_its_file_of_model_garden_says():
    file = {
        "runtime": {"mixed_precision_dtype": "float16", "loss_scale": "dynamic"},
        "trainer": {
            "train_steps": 56160,
            "optimizer_config": {
                "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}},
                "learning_rate": {
                    "type": "stepwise",
                    "stepwise": {"boundaries": [18750, 37500, 50000], "values": [0.8, 0.08, 0.008, 0.0008]},
                },
                "warmup": {"type": "linear", "linear": {"warmup_steps": 3125}},
            },
        },
    }
    read = interop.from_model_garden(file)
    ours = recipe_of("imagenet_resnet50_float16")
    assert (read.optimizer, read.loss_scale) == (ours.optimizer, ours.loss_scale)


@each_recipe
def test_a_recipe_names_its_source_first(path):
    comment = re.match(r"(#.*\n)+", path.read_text())
    assert comment
    text = re.sub(r"\n# ?", " ", comment[0])
    assert text.startswith("# Source: ")
    assert re.search(r"github\.com/\S+|arXiv:\d{4}\.\d{5}", text)
    recorded = RECORDINGS.get(path.stem, {}).get("source", "")
    pinned = re.findall(r"([\w.-]+/[\w.-]+)@([0-9a-f]{7})", recorded)
    assert not pinned or any(f"github.com/{repository} at {commit}" in text for repository, commit in pinned)


@one_of_each_form
def test_a_recipe_survives_a_round_trip(path, tmp_path):
    config.save(recipe_of(path.stem), tmp_path / "copy.json")
    assert config.load(tmp_path / "copy.json") == recipe_of(path.stem)


@one_of_each_form
def test_a_recipe_is_described(path, capsys):
    assert main(["describe", str(path)]) == 0
    assert "Learning rate" in capsys.readouterr().out
