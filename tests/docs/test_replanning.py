"""docs/replanning.md: its recipes, commands and code give what it shows."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

from optax_ext import config
from optax_ext.cli import main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "replanning.md"
TEXT = PAGE.read_text()
FOUND = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [(said, FOUND[number + 1][1]) for number, (language, said) in enumerate(FOUND) if language == "console"]


@pytest.fixture(autouse=True)
def _recipes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for language, text in FOUND:
        if language == "yaml":
            Path(text.splitlines()[0].removeprefix("# ")).write_text(text)


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=range(len(COMMANDS)))
def test_the_command_prints_what_is_shown(command, shown, capsys):
    program, *arguments = command.removeprefix("$ ").split()
    assert program == "optax-ext"
    assert main(arguments) == 0
    assert capsys.readouterr().out == shown
    assert Path(arguments[arguments.index("-o") + 1]).stat().st_size > 10_000


def test_three_commands_and_two_blocks_of_code():
    assert len(COMMANDS) == 3
    assert [language for language, _ in FOUND].count("python") == 2


def test_the_code_sets_the_counts():
    names = {}
    first, second = (text for language, text in FOUND if language == "python")
    exec(compile(first, PAGE.name, "exec"), names)
    by_place = {repr(path): int(count) for path, count in names["counts"]}
    assert sorted(by_place.values()) == [0, 1, 8000]  # of the average, which is new, of the moments, and of the rate
    exec(compile(second, PAGE.name, "exec"), names)
    counts = [int(count) for _, count in optax.tree.get_all_with_path(names["state"], "count")]
    assert sorted(counts) == [1, 2, 6001]
    assert names["updates"]["dense"]["kernel"].shape == (4, 2)


RATE = {"type": "cosine_decay", "initial_learning_rate": 0.1, "decay_steps": 100}
BASE = {"optimizer": {"type": "adamw", "learning_rate": RATE, "weight_decay_rate": 0.1}, "loss_scale.type": "dynamic"}
BASE |= {"accumulate_steps": 4, "ema.start_step": 5}
CHANGES = [  # what the table says: whether a restore is enough
    (["optimizer.learning_rate={type: constant, learning_rate: 0.1}"], True),
    (["optimizer.beta_1=0.5", "optimizer.epsilon=1e-3", "optimizer.weight_decay_rate=0.2"], True),
    (["loss_scale.growth_steps=5", "loss_scale.max_scale=65536", "loss_scale.hysteresis=3"], True),
    (["loss_scale={type: fixed, scale: 8}"], True),
    (["accumulate_steps=2"], True),
    (["ema.average_decay=0.5", "ema.start_step=9"], True),
    (["optimizer.learning_rate=0.1"], False),
    ([f"optimizer.weight_decay_rate={RATE}".replace("'", "")], False),
    (["optimizer.global_clipnorm=1"], False),
    (["optimizer.type=lamb"], False),
    (["loss_scale=null"], False),
    (["ema=null"], False),
    (["accumulate_steps=1"], False),
]


@pytest.mark.parametrize(("overrides", "fits"), CHANGES, ids=[changes[0].partition("=")[0] for changes, _ in CHANGES])
def test_which_changes_need_no_more_than_a_restore(overrides, fits):
    params = {"kernel": jnp.ones((2, 2))}
    old = config.override(config.OptimizationConfig(config.SGD(0.1)), BASE)
    new = config.override(old, overrides)
    of_old, of_new = (jax.eval_shape(recipe.make().init, params) for recipe in (old, new))
    assert (jax.tree.structure(of_old) == jax.tree.structure(of_new)) == fits
    if fits:
        state = old.make().init(params)
        carried = config.carry_over(state, old, new, params)
        assert all(was is now for was, now in zip(jax.tree.leaves(state), jax.tree.leaves(carried), strict=True))
