"""check, convert and schema, and what all commands share."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

import optax_ext
from optax_ext import config
from optax_ext.cli import main

ROOT = Path(optax_ext.__file__).parents[1]
EXAMPLES = [ROOT / "examples" / "digits.yaml", *sorted((ROOT / "examples" / "configs").glob("*.yaml"))]

RECIPE = config.OptimizationConfig(
    optimizer=config.LARS(
        learning_rate=optax_ext.LinearWarmup(optax_ext.CosineDecay(6.4, 10_000, offset=500), 500),
        weight_decay_rate=1e-4,
        exclude_from_weight_decay=["bias", "BatchNorm"],
    ),
    loss_scale=config.DynamicLossScale(growth_steps=100),
)
MISTAKEN = {"type": "cosine_decay", "initial_learning_rate": -1, "decay_steps": 0}

USERS_MODULE = """
import dataclasses
import jax.numpy as jnp
import optax_ext

@dataclasses.dataclass(frozen=True)
class TestedFromTheCommandLine(optax_ext.Schedule):
    hold_steps: int

    def __call__(self, step):
        return jnp.where(jnp.asarray(step) < self.hold_steps, 1.0, 0.5).astype("float32")
"""


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # to which --import adds
    config.save(RECIPE, "recipe.yaml")


def run(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-m", "optax_ext", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# ---------------------------------------------------------------------------------------------------------
# check


def test_check_is_silent_about_nothing(capsys):
    config.save(optax_ext.Constant(0.1), "rate.json")
    assert main(["check", "recipe.yaml", "rate.json"]) == 0
    assert capsys.readouterr().out == "recipe.yaml: ok\nrate.json: ok\n"


def test_check_reports_every_problem_of_every_file(capsys):
    Path("values.json").write_text(json.dumps(MISTAKEN))
    Path("syntax.yaml").write_text("optimizer: [")
    assert main(["check", "values.json", "recipe.yaml", "syntax.yaml", "none.yaml", "recipe.txt"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("values.json: 2 problems\n  initial_learning_rate: ")
    for expected in ("\n  decay_steps: ", "\nrecipe.yaml: ok\n", "syntax.yaml: 1", "none.yaml: 1", "recipe.txt: 1"):
        assert expected in out


def test_an_alias_bomb_is_a_problem_like_any_other(capsys):
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9)]
    Path("bomb.yaml").write_text("\n".join(["l0: &l0 [x]", *levels]))
    assert main(["check", "bomb.yaml"]) == 1
    assert "aliases" in capsys.readouterr().out


def test_check_as_a_process_with_a_schedule_of_the_users():
    Path("mine.py").write_text(USERS_MODULE)
    Path("mine.json").write_text('{"type": "tested_from_the_command_line", "hold_steps": 10}')
    Path("bad.json").write_text(json.dumps(MISTAKEN))
    with run("check", "--import", "mine", "mine.json", "bad.json") as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (1, "")
    assert out.startswith("mine.json: ok\nbad.json: 2 problems\n")


# ---------------------------------------------------------------------------------------------------------
# convert


def test_convert_writes_the_other_format(capsys):
    assert main(["convert", "recipe.yaml"]) == 0
    out = capsys.readouterr().out
    assert config.from_dict(json.loads(out)) == RECIPE
    Path("recipe.json").write_text(out)
    assert main(["convert", "recipe.json"]) == 0
    assert config.from_dict(yaml.safe_load(capsys.readouterr().out)) == RECIPE


def test_convert_without_defaults(capsys):
    assert main(["convert", "recipe.yaml", "--to", "yaml"]) == 0
    data = yaml.safe_load(capsys.readouterr().out)
    assert data["loss_scale"] == {"type": "dynamic", "growth_steps": 100}
    assert config.from_dict(data) == RECIPE


@pytest.mark.parametrize("name", ["out.json", "out.yaml", "out.yml"])
def test_convert_into_a_file(name, capsys):
    assert main(["convert", "recipe.yaml", "-o", name]) == 0
    assert capsys.readouterr() == ("", "")
    assert config.load(name) == RECIPE


@pytest.mark.parametrize("output", ["out.txt", "nowhere/out.json"])
def test_convert_into_a_file_that_cannot_be(output, capsys):
    assert main(["convert", "recipe.yaml", "-o", output]) == 1
    assert capsys.readouterr().err.startswith(f"{output}: 1 problem\n")


def test_convert_in_two_formats_at_once_is_wrong_usage(capsys):
    assert main(["convert", "recipe.yaml", "-o", "out.json", "--to", "yaml"]) == 2
    assert "--to yaml and -o out.json" in capsys.readouterr().err
    assert not Path("out.json").exists()


@pytest.mark.parametrize("command", ["describe", "plot", "convert"])
def test_problems_go_to_standard_error(command, capsys):
    Path("bad.json").write_text(json.dumps(MISTAKEN))
    assert main([command, "bad.json"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("bad.json: 2 problems\n  initial_learning_rate: ")


# ---------------------------------------------------------------------------------------------------------
# Warnings


ZERO = "warning: SGD: learning_rate (a constant 0) is 0 at every step, so that no parameter ever moves"
ENDED = "warning: LinearWarmup: the warm-up of 100 steps climbs to a schedule that is 0 from step 10 on"


@pytest.fixture
def _warned_files():
    Path("r0.yaml").write_text("{type: sgd, learning_rate: 0.0}")
    Path("r0b.yaml").write_text("{type: sgd, learning_rate: 0.0}")
    after = "{type: polynomial_decay, initial_learning_rate: 0.1, end_learning_rate: 0.0, decay_steps: 10}"
    Path("ended.yaml").write_text(f"{{type: linear_warmup, warmup_steps: 100, after: {after}}}")


@pytest.mark.usefixtures("_warned_files")
def test_check_warns_of_each_file_by_its_name():
    with run("check", "r0.yaml", "r0b.yaml", "ended.yaml") as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (0, "r0.yaml: ok\nr0b.yaml: ok\nended.yaml: ok\n")
    first, second, third = err.splitlines()
    assert [first, second] == [f"r0.yaml: {ZERO}", f"r0b.yaml: {ZERO}"]
    assert third.startswith(f"ended.yaml: {ENDED}")


@pytest.mark.usefixtures("_warned_files")
@pytest.mark.parametrize("command", ["describe", "plot", "convert"])
def test_every_command_warns_of_a_file_by_its_name(command, capsys):
    assert main([command, "r0.yaml"]) == 0
    assert capsys.readouterr().err == f"r0.yaml: {ZERO}\n"


def test_a_warning_is_told_beside_problems_and_of_a_translated_file(capsys):
    Path("both.json").write_text(
        '{"optimizer": {"type": "sgd", "learning_rate": 0.0}, "loss_scale": {"type": "fixed", "scale": 0}}'
    )
    assert main(["check", "both.json"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("both.json: 1 problem\n  loss_scale.scale: ")
    assert err == f"both.json: {ZERO}\n"
    Path("keras.json").write_text('{"class_name": "SGD", "config": {"learning_rate": 0.0}}')
    assert main(["convert", "keras.json"]) == 0
    assert capsys.readouterr().err == f"keras.json: {ZERO}\n"


# ---------------------------------------------------------------------------------------------------------
# schema


def test_the_schema_is_one_and_accepts_the_examples(capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for example in EXAMPLES:
        validator.validate(yaml.safe_load(example.read_text()))
    assert not validator.is_valid(MISTAKEN)


# ---------------------------------------------------------------------------------------------------------
# The program


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["check"],
        ["plot", "--steps", "0", "recipe.yaml"],
        ["plot", "--steps", "many", "recipe.yaml"],
        ["plot", "--steps", "2147483648", "recipe.yaml"],
        ["plot", "--steps", "1.5", "recipe.yaml"],
        ["plot", "--steps", "nan", "recipe.yaml"],
        ["convert", "recipe.yaml", "--to", "xml"],
        ["check", "--import", "no_such_module", "recipe.yaml"],
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: optax-ext")


@pytest.mark.parametrize("arguments", [["--import", "mine", "check"], ["check", "--import", "mine"]], ids=" ".join)
def test_a_module_may_be_named_before_the_command_and_after(arguments, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    Path("mine.py").write_text(USERS_MODULE.replace("TestedFromTheCommandLine", "TestedBeforeAndAfter"))
    Path("mine.json").write_text('{"type": "tested_before_and_after", "hold_steps": 10}')
    assert main([*arguments, "mine.json"]) == 0
    assert capsys.readouterr().out == "mine.json: ok\n"


def test_a_file_in_place_of_a_module_is_told(capsys):
    with pytest.raises(SystemExit):
        main(["check", "--import", "no_such_file.py", "recipe.yaml"])
    assert "cannot import 'no_such_file.py' (its name is 'no_such_file'): Mod" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "describe", "plot", "convert"])
def test_every_command_says_what_a_file_is_not(command, capsys):
    Path("empty.yaml").write_text("# to be written\n")
    assert main([command, "empty.yaml"]) == 1
    assert "empty.yaml: 1 problem\n  is empty, but for comments\n" in "".join(capsys.readouterr())
    for nothing in ("---", "null", "{}"):
        Path("empty.yaml").write_text(nothing)
        assert main([command, "empty.yaml"]) == 1
        assert "".join(capsys.readouterr()) == "empty.yaml: 1 problem\n  is empty\n"
    Path("custom.json").write_text('{"type": "zigzag"}')
    assert main([command, "custom.json"]) == 1
    assert "import the module that defines it first, with --import MODULE for optax-ext" in "".join(capsys.readouterr())
    if command != "convert":  # which reads it
        Path("keras.json").write_text('{"class_name": "SGD", "config": {"learning_rate": 0.1}}')
        assert main([command, "keras.json"]) == 1
        assert "translate it with `optax-ext convert FILE`" in "".join(capsys.readouterr())


def test_steps_are_a_number_of_any_spelling(capsys):
    assert main(["describe", "recipe.yaml", "--steps", "2e3"]) == 0
    assert "1,999" in capsys.readouterr().out


def test_a_module_that_cannot_be_imported_says_why(capsys):
    Path("broken.py").write_text("1 / 0")
    with pytest.raises(SystemExit):
        main(["check", "--import", "broken", "recipe.yaml"])
    assert "cannot import 'broken': ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["describe", "--help"], ["--version"]], ids=" ".join)
def test_help_and_version(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert re.match(r"usage: optax-ext|optax_ext \d", capsys.readouterr().out)


def test_help_says_what_describe_shows(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "show its learning rate at key steps" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        main(["describe", "--help"])
    assert "show which parameters each pattern matches" in " ".join(capsys.readouterr().out.split())


HEAVY = ("jax", "optax", "numpy", "matplotlib", "rich", "flax", "sklearn")
LIST_MODULES = """
import sys
from optax_ext import cli
try:
    status = cli.main(sys.argv[1:])
except SystemExit as ended:
    status = ended.code
print(status, *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["describe", "--help"],
        ["check", "recipe.yaml", "rate.json"],
        ["convert", "recipe.yaml"],
        ["convert", "rate.json", "-o", "rate.yaml"],
        ["convert", "garden.yaml"],
        ["convert", "keras.json"],
    ],
    ids=" ".join,
)
def test_what_computes_nothing_imports_nothing_that_computes(arguments):
    config.save(optax_ext.Constant(0.1), "rate.json")
    Path("keras.json").write_text('{"class_name": "SGD", "config": {"learning_rate": 0.1}}')
    Path("garden.yaml").write_text(
        "{optimizer: {type: lars, lars: {exclude_from_weight_decay: [bias]}},"
        " learning_rate: {type: constant, constant: {learning_rate: 0.1}}}"
    )
    command = [sys.executable, "-c", LIST_MODULES, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    status, *modules = finished.stderr.splitlines()[-1].split()
    assert status == "0", finished.stderr
    unwanted = {*HEAVY, "pydantic", "yaml"} if arguments[-1].startswith("--") and len(arguments) < 3 else {*HEAVY}
    assert not unwanted & set(modules)  # `schema` imports Optax, since it lists the arguments of what is installed


def test_the_program_leaves_accelerators_alone():
    Path("which.py").write_text("import jax\nprint(jax.config.jax_platforms)")
    environment = {key: value for key, value in os.environ.items() if key != "JAX_PLATFORMS"} | {
        "PYTHONPATH": str(ROOT)
    }
    command = [sys.executable, "-m", "optax_ext", "check", "--import", "which", "recipe.yaml"]
    for told, expected in [({}, "cpu"), ({"JAX_PLATFORMS": ""}, "cpu"), ({"JAX_PLATFORMS": "cuda,cpu"}, "cuda,cpu")]:
        finished = subprocess.run(command, env=environment | told, capture_output=True, text=True)
        assert finished.stdout == f"{expected}\nrecipe.yaml: ok\n", finished.stderr


def test_a_reader_that_went_away_is_no_traceback():
    with run("schema") as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
