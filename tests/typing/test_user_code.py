"""The code of a user passes type checkers at their strictest, and the package says the type of everything public."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USER_CODE = Path(__file__).with_name("user_code.py")
ENVIRONMENT = {**os.environ, "MYPYPATH": str(ROOT)}

# Optax is not typed, and JAX in parts: what strictness says of them is not about this package.
PYRIGHT = {"typeCheckingMode": "strict", "reportMissingTypeStubs": False, "extraPaths": [str(ROOT)]}
MYPY = "[mypy]\nstrict = true\nfollow_imports = silent\n[mypy-optax.*]\nignore_missing_imports = true\n"


def pyright(folder, code):
    (folder / "pyrightconfig.json").write_text(json.dumps(PYRIGHT))
    return [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(code)]


def mypy(folder, code):
    (folder / "mypy.ini").write_text(MYPY)
    cache = ROOT / ".cache" / "mypy"
    return [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", str(cache), str(code)]


def check(command, folder, text):
    code = folder / USER_CODE.name
    code.write_text(text)
    return subprocess.run(command(folder, code), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


@pytest.mark.parametrize("command", [pyright, mypy])
def test_a_type_checker_accepts_it_and_sees_two_mistakes_below_it(command, tmp_path):
    text = USER_CODE.read_text() + "\nassert_type(config.LARS(0.1).eeta, str)\noptax_ext.Constant()\n"
    run = check(command, tmp_path, text)
    errors = {int(line) for line in re.findall(r"user_code\.py:(\d+):.*\berror\b", run.stdout)}
    last = len(text.splitlines())
    assert errors == {last - 1, last}, run.stdout + run.stderr


@pytest.mark.slow  # `scripts/check` runs it
def test_the_public_interface_has_known_types():
    run = subprocess.run(
        [str(ROOT / "scripts" / "verifytypes")],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
