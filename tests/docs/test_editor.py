"""The editor of recipes shows what the package says: its rates and its errors, where a stand-in takes JAX's place."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ext
from optax_ext import config

ROOT = Path(__file__).parents[2]
EDITOR = ROOT / "docs" / "assets" / "editor"
STEPS = 20  # across a run
ALL_STEPS = 40  # with those at milestones: always as many, so that JAX compiles each operation once
RECIPES = {path.stem: path.read_text() for path in sorted((ROOT / "examples" / "configs").glob("*.yaml"))}
NEEDS_OPTAX = {"algoperf_resnet50_nadamw_1024"}  # the recipe of the zoo with `type: optax`
SCHEDULES = {
    "constant": "{learning_rate: 0.1}",
    "cosine_decay": "{initial_learning_rate: 0.1, warmup_target: 0.5, warmup_steps: 10, decay_steps: 90, offset: 7}",
    "cosine_decay_restarts": "{initial_learning_rate: 0.3, first_decay_steps: 10, t_mul: 1.5, m_mul: 0.9, alpha: 0.1}",
    "direct_power_decay": "{initial_learning_rate: 0.5, power: -0.5}",
    "exponential_decay": "{initial_learning_rate: 0.5, decay_steps: 10, decay_rate: 0.9, staircase: true}",
    "inverse_time_decay": "{initial_learning_rate: 0.5, decay_steps: 10, decay_rate: 0.5}",
    "joined_schedules": "{schedules: [0.5, {type: cosine_decay, initial_learning_rate: 0.5, decay_steps: 50}],"
    " boundaries: [20]}",
    "linear_warmup": "{warmup_steps: 10, after: {type: exponential_decay, initial_learning_rate: 0.5, decay_steps: 7,"
    " decay_rate: 0.9}}",
    "piecewise_constant_decay": "{boundaries: [10, 50], values: [1, 0.5, 0.1], offset: -3}",
    "polynomial_decay": "{initial_learning_rate: 0.5, decay_steps: 30, power: 2.0, cycle: true}",
    "polynomial_warmup": "{after: 0.5, warmup_steps: 16, power: 2.0}",
    "power_and_linear_decay": "{initial_learning_rate: 0.5, total_decay_steps: 90, power: -0.3, offset: 5,"
    " linear_decay_fraction: 0.3}",
    "power_decay": "{initial_learning_rate: 0.5, power: -0.5, offset: 9, pre_offset_learning_rate: 0.3}",
    "step_cosine_decay": "{boundaries: [10, 30, 80], values: [1, 0.5, 0.1]}",
    "warmup_stable_decay": "{learning_rate: 0.5, warmup_steps: 10, stable_steps: 30, decay_steps: 40,"
    " decay_type: 1-sqrt}",
}
VARIANTS = {
    "even_restarts": "type: cosine_decay_restarts\ninitial_learning_rate: 0.3\nfirst_decay_steps: 20\nt_mul: 1",
    "cosine_fall": "type: warmup_stable_decay\nlearning_rate: 0.5\nwarmup_steps: 5\nstable_steps: 9\ndecay_steps: 40\n"
    "decay_type: cosine",
    "late_steps": "type: linear_warmup\nwarmup_steps: 100000001\nafter: 0.5",
    "adafactor": "type: adafactor\nlearning_rate: 0.05",
    "schedule_free": "type: schedule_free_adamw\nlearning_rate: 0.05\nwarmup_steps: 30",
    "keras_decay": "type: sgd\nlearning_rate: 0.05\ndecay: 0.01",
    "late_group": "type: partition\nrest: {type: sgd, learning_rate: 0.1}\ngroups:\n"
    "- {name: head, match: [^head], start_step: 10, optimizer: {type: lars, learning_rate: 0.5}}",
}
SHOWN = {*NEEDS_OPTAX, "imagenet_swav_larc_4096"}
INVALID = {
    "fields": "optimizer: {type: lars, learning_rate: -1, momentun: 0.9}\nloss_scale: {type: dynamic, growth_steps: 0}",
    "units": "type: cosine_decay\ninitial_learning_rate: 1\ndecay_steps: 1 era",
    "no_run": "type: cosine_decay\ninitial_learning_rate: 1\ndecay_steps: 5 epochs",
    "run": "run: {examples: 10, batch_size: 3, steps_per_epoch: 9}\noptimizer: {type: adamw, learning_rate: 1}",
    "yaml": "optimizer: {type: lars",
    "pattern": "type: lars\nlearning_rate: 1\nexclude_from_weight_decay: ['(']",
    "keys": "optimizer: {type: lars, type: sgd}",
    "empty": "\n",
}
TEXTS = {
    **{name: text for name, text in RECIPES.items() if name not in NEEDS_OPTAX},
    **{name: f"{{type: {name}, {fields.removeprefix('{')}" for name, fields in SCHEDULES.items()},
    **VARIANTS,
}
IN_A_BROWSER = """
import json, sys
sys.modules.update(dict.fromkeys(["jaxlib", "numpy", "optax"]))
import editor, stand_in
from optax_ext import config

def rates(text, steps):
    open("recipe.yaml", "w").write(text)
    loaded = config.load("recipe.yaml")
    rate = getattr(loaded, "learning_rates", lambda: {"": loaded})()
    return {group: [float(rate(stand_in.Array(step))) for step in steps] for group, rate in rate.items()}

asked = json.load(sys.stdin)
json.dump({
    "rates": {name: rates(*it) for name, it in asked["rates"].items()},
    "shown": {name: json.loads(editor.show(text)) for name, text in asked["shown"].items()},
    "modules": [*sys.modules],
}, sys.stdout)
"""


def steps_of(loaded):
    """Return steps across a run and at its milestones, a few past the end, and the last step of int32."""
    named = [step for step, _ in loaded.milestones()]
    end = max([1000, *named]) * 1.1
    near = [max(step + way, 0) for step in named[:4] for way in (-1, 0, 1)]
    steps = sorted({*np.linspace(0, end, STEPS).round().astype(int).tolist(), *near, 2**31 - 1})
    return steps + steps[-1:] * (ALL_STEPS - len(steps))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    file = tmp_path_factory.mktemp("real") / "recipe.yaml"

    def load(text):
        file.write_text(text)
        return config.load(file)

    return {name: load(text) for name, text in TEXTS.items()}


@pytest.fixture(scope="module")
def browser(loaded, tmp_path_factory):
    """What a Python without JAX, NumPy and Optax computes and shows."""
    asked = {
        "rates": {name: [TEXTS[name], steps_of(config.resolve(loaded[name]))] for name in TEXTS},
        "shown": {**INVALID, **{name: RECIPES[name] for name in SHOWN}},
    }
    path = os.pathsep.join([str(EDITOR), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", IN_A_BROWSER],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path_factory.mktemp("browser"),
        env={**os.environ, "PYTHONPATH": path},
    )
    return json.loads(done.stdout)


def test_every_schedule_is_compared():
    schedules = [getattr(optax_ext, name) for name in optax_ext.__all__]
    types = {it.type for it in schedules if isinstance(it, type) and issubclass(it, optax_ext.Schedule)}
    assert {*SCHEDULES} == types - {optax_ext.Schedule.type}


@pytest.mark.parametrize("name", TEXTS)
def test_rates_are_those_of_jax(name, loaded, browser):
    resolved = config.resolve(loaded[name])
    rates = {"": resolved} if isinstance(resolved, optax_ext.Schedule) else resolved.learning_rates()
    assert {*browser["rates"][name]} == {*rates}
    steps = np.asarray(steps_of(resolved), np.int32)
    for group, rate in rates.items():
        expected = np.asarray(jax.vmap(rate)(jnp.asarray(steps)))
        # At the end of a cosine float32 leaves some 1e-7 of the peak, in which a rounded cosine differs.
        got, peak = np.asarray(browser["rates"][name][group], np.float32), np.abs(expected).max()
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-7 * peak)
        assert got.tolist() == browser["rates"][name][group], "not rounded to float32"


@pytest.mark.parametrize("name", INVALID)
def test_problems_are_told_in_the_same_words(name, browser, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(INVALID[name])
    with pytest.raises(config.ConfigError) as error:
        config.resolve(config.load("recipe.yaml"))
    assert browser["shown"][name]["problems"] == str(error.value)


def test_a_recipe_that_needs_optax_says_so(browser):
    for name in NEEDS_OPTAX:
        assert "type: optax" in browser["shown"][name]["problems"]


def test_a_curve_goes_from_the_first_step_to_the_last(browser, loaded):
    name = "imagenet_swav_larc_4096"
    shown, last = browser["shown"][name], loaded[name].run.total_steps() - 1
    assert [curve["group"] for curve in shown["curves"]] == ["prototypes", "rest"]
    assert shown["words"] == "2 groups: prototypes, rest"
    for curve in shown["curves"]:
        assert (curve["points"][0][0], curve["points"][-1][0]) == (0, last)
    assert (shown["rows"][0]["reason"], shown["rows"][-1]["reason"]) == ("first step", "last step")


def test_nothing_of_jax_is_loaded(browser):
    assert [name for name in browser["modules"] if name.startswith(("jax.", "numpy.", "optax."))] == ["jax.numpy"]


def test_the_site_has_what_the_page_loads():
    hooks = pytest.importorskip("docs.editor_hooks", reason="MkDocs, of the extra `docs`, is not installed")
    with zipfile.ZipFile(io.BytesIO(hooks.package())) as packed:
        names = packed.namelist()
        assert {"editor.py", "stand_in.py", "optax_ext/__init__.py", "optax_ext/config/_codec.py"} <= {*names}
        assert packed.read("editor.py") == (EDITOR / "editor.py").read_bytes()
    assert not [name for name in names if not name.endswith(".py")]
