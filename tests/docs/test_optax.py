"""docs/optax.md: its recipe is its code, its errors are those that are raised, and its lists are those of Optax."""

import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import optax
import yaml

from optax_ext import config
from optax_ext.cli import main
from optax_ext.config._optax_aliases import aliases

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "optax.md").read_text()
FOUND = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def blocks(language):
    return [text for name, text in FOUND if name == language]


def test_the_recipe_is_the_code():
    names = {}
    exec(compile(blocks("python")[0], "optax.md", "exec"), names)
    params = {"dense": {"kernel": jnp.ones((2, 2))}, "norm": {"scale": jnp.full((1, 2), 0.5)}, "bias": jnp.ones(2)}
    found = []
    for tx in (config.from_dict(yaml.safe_load(blocks("yaml")[0])).make(), names["tx"]):
        state = tx.init(params)
        for _ in range(2):  # the first rate is 0
            updates, state = tx.update(jax.tree.map(lambda p: jnp.cos(p) * 2**16, params), state, params)
        found.append(updates)
    chex.assert_trees_all_close(*found, rtol=1e-5)
    assert jnp.all(found[0]["bias"] != 0)


def test_describe_prints_what_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(blocks("yaml")[0])
    _, *arguments = blocks("console")[0].split()[1:]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith(blocks("text")[0])


def test_the_errors_are_those_that_are_shown(capsys):
    exec(compile(blocks("python")[1], "optax.md", "exec"), {})
    printed = capsys.readouterr().out.replace(optax.__version__, "0.2.8").splitlines()
    for line, shown in zip(printed, blocks("text")[1].splitlines(), strict=True):
        assert line.startswith(shown.removesuffix("..."))


def test_the_lists_are_those_of_optax():
    listed = set(re.findall(r"`(\w+)`", TEXT.partition("## The optimizers")[2]))
    if optax.__version__ in ("0.2.7", "0.2.8"):
        assert listed == {*aliases()}
    refusing = re.search(r"each parameter refuse it: (.*?)\. `config", TEXT, re.DOTALL)[1]
    assert set(re.findall(r"`(\w+)`", refusing)) == {n for n, alias in aliases().items() if alias.sees_whole_parameters}
