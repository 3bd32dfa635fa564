"""docs/overrides.md: each library changes the same recipe, and what it says of their limits and of keys is so."""

import contextlib
import importlib.util
import io
import re
import sys
from pathlib import Path

import fiddle
import hydra
import ml_collections
import omegaconf
import pytest
import tyro
from absl import flags
from ml_collections import config_flags

from optax_ext import config
from optax_ext.cli import main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "overrides.md"
TEXT = PAGE.read_text()
(YAML,) = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
ROWS = [re.match(r"\| `([^`]+)` \|", line)[1] for line in TEXT.splitlines() if line.startswith("| `")]


@pytest.fixture(autouse=True)
def _recipe_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(YAML)


def test_every_library_gives_the_same_recipe(monkeypatch):
    Path("page.py").write_text("\n".join(BLOCKS))  # a module, of whose dataclass tyro reads the source
    spec = importlib.util.spec_from_file_location("overrides_page", "page.py")
    page = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "overrides_page", page)
    spec.loader.exec_module(page)
    changed = config.to_dict(page.recipe)
    before = config.to_dict(config.load("recipe.yaml"))
    assert (before["optimizer"].pop("momentum"), changed["optimizer"].pop("momentum")) == (0.9, 0.95)
    assert (before.pop("ema"), changed.pop("ema")["average_decay"]) == (None, 0.999)
    after = changed["optimizer"]["learning_rate"]["after"]
    assert after.pop("decay_steps") == 20000
    assert before["optimizer"]["learning_rate"]["after"].pop("decay_steps") == 10000
    assert changed == before
    assert "".join(BLOCKS).count("== recipe\n") >= 5


def test_every_override_of_the_table_is_one():
    assert len(ROWS) >= 9
    for row in ROWS:
        assert config.load("recipe.yaml", overrides=[row]) is not None
    assert config.load("recipe.yaml", overrides=ROWS[-1:]).optimizer.stacked_axes == {"^blocks/.*kernel": 0}


def test_the_command_line_runs(capsys):
    (command,) = re.findall(r"^\$ optax-ext (.*)$", TEXT, re.MULTILINE)
    assert main(command.split()) == 0
    assert re.search(r"momentum +0.95", capsys.readouterr().out)


def test_hydra_wants_a_plus():
    with hydra.initialize_config_dir(str(Path.cwd()), version_base="1.3"):
        for missing in ("ema.average_decay=0.999", "optimizer.nesterov=true"):
            with pytest.raises(hydra.errors.ConfigCompositionException, match=r"append to your config use \+"):
                hydra.compose("recipe", [missing])
        added = hydra.compose("recipe", ["+optimizer.nesterov=true"])
    assert config.from_dict(added).optimizer.nesterov


def test_omegaconf_resolves_and_reports():
    read = omegaconf.OmegaConf.load("recipe.yaml")
    read.optimizer.eeta = "${optimizer.momentum}"
    assert config.from_dict(read).optimizer.eeta == 0.9
    read.optimizer.eeta = "???"
    with pytest.raises(config.ConfigError, match="optimizer.eeta"):
        config.from_dict(read)


def test_flags_of_ml_collections(monkeypatch):
    collected = ml_collections.ConfigDict(config.to_dict(config.load("recipe.yaml")))
    collected.optimizer.momentun = 0.95
    with pytest.raises(config.ConfigError, match="did you mean 'momentum'"):
        config.from_dict(collected)
    del collected.optimizer.momentun

    def parsed(*arguments):
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])  # from where the flags take what is overridden
        values = flags.FlagValues()
        flag = config_flags.DEFINE_config_dict("recipe", collected.copy_and_resolve_references(), flag_values=values)
        values(sys.argv)
        return config.from_dict(flag.value)

    assert parsed("--recipe.optimizer.momentum=0.95").optimizer.momentum == 0.95
    for refused in ("--recipe.optimizer.exclude_from_weight_decay=['bias']", "--recipe.ema.average_decay=0.999"):
        with pytest.raises((flags.Error, ValueError), match="not supported for overriding|is None"):
            parsed(refused)


def test_fiddle_runs_the_checks():
    with pytest.raises(config.ConfigError, match="momentum: must be less than or equal to 1, got 2"):
        fiddle.build(fiddle.Config(config.LARS, 0.1, momentum=2))


def test_tyro_shows_descriptions_checks_and_has_the_limits_told():
    def cli(recipe, *arguments):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            try:
                return tyro.cli(type(recipe), default=recipe, config=[tyro.conf.AvoidSubcommands], args=arguments)
            except SystemExit:
                return out.getvalue()

    recipe = config.load("recipe.yaml")
    assert "Number of steps of the decay, at least 1." in cli(recipe, "--help")
    assert "momentum: must be less than or equal to 1, got 2" in cli(recipe, "--optimizer.momentum=2")
    number = config.SGD(0.1)
    assert cli(number, "0.5") == config.SGD(0.5)
    assert "--learning-rate" in cli(number, "--learning-rate=0.5")
    assert "nrecognized" in cli(recipe, "--ema.start-step=3")
