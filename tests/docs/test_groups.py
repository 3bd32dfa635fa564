"""docs/groups.md: its recipes, shapes and code give what it shows."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from optax_ext import config
from optax_ext.cli import main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "groups.md"
FOUND = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
BLOCKS = dict(FOUND)
TWO_RATES, FROZEN, LAYER_DECAY, PROTOTYPES = [
    config.from_dict(yaml.safe_load(text)) for kind, text in FOUND if kind == "yaml"
]
PARAMS = {
    "backbone": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "prototypes": {"kernel": jnp.ones((3, 2))},
}


def test_describe_prints_what_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    config.save(LAYER_DECAY, "recipe.yaml")
    Path("shapes.json").write_text(BLOCKS["json"])
    program, *arguments = BLOCKS["console"].removeprefix("$ ").split()
    assert program == "optax-ext"
    assert main(arguments) == 0
    assert BLOCKS["text"].replace("...\n", "").strip() in capsys.readouterr().out


def test_two_rates_are_those_of_barlow_twins():
    """As its adjust_learning_rate computes them, with 626 full batches an epoch in place of 625."""
    rates = TWO_RATES.learning_rates()
    run = TWO_RATES.run
    warmup, total = run.in_steps("10 epochs"), run.total_steps()
    for step in (0, 1000, warmup, 300_000, total - 1):
        base = 2048 / 256
        q = 0.5 * (1 + np.cos(np.pi * (step - warmup) / (total - warmup)))
        base = base * step / warmup if step < warmup else base * q + base * 0.001 * (1 - q)
        np.testing.assert_allclose(rates["rest"](step), 0.2 * base, rtol=1e-5)
        np.testing.assert_allclose(rates["biases"](step), 0.0048 * base, rtol=1e-5)


def test_the_frozen_backbone_stays_and_is_not_clipped_by():
    tx = FROZEN.make()
    updates, _ = tx.update(jax.tree.map(lambda p: 1e6 * p, PARAMS), tx.init(PARAMS), PARAMS)
    assert not any(leaf.any() for leaf in jax.tree.leaves(updates["backbone"]))
    np.testing.assert_allclose(updates["prototypes"]["kernel"], -0.1 / np.sqrt(6), rtol=1e-5)


def test_prototypes_wait():
    rates = PROTOTYPES.learning_rates()
    assert [float(rates["prototypes"](step)) for step in (0, 312)] == [0, 0]
    assert rates["prototypes"](313) == rates["rest"](313)
    PROTOTYPES.make().init(PARAMS)


def test_the_code_runs():
    names = {}
    for code in [text for language, text in FOUND if language == "python"]:
        exec(compile(code, PAGE.name, "exec"), names)
    updates, recipe = names["updates"], names["recipe"]
    assert not updates["prototypes"]["kernel"].any()
    assert recipe.in_words() == "3 groups: ^backbone/, prototypes, rest"
    by_recipe, _ = names["tx"].update(names["params"], names["tx"].init(names["params"]), names["params"])
    jax.tree.map(np.testing.assert_array_equal, by_recipe, updates)
