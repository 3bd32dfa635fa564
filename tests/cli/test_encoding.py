"""What the command writes into a pipe or a file can be read again, whatever encoding the system prefers."""

import os
import subprocess
import sys
from pathlib import Path

from optax_ext import config

ROOT = Path(__file__).parents[2]


def test_recipes_are_written_in_utf8(tmp_path):
    recipe = config.Partition([config.Group(["→"], config.SGD(0.1), name="Köpfe")], config.SGD(0.2))
    config.save(recipe, tmp_path / "recipe.json")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    with open(tmp_path / "written.yaml", "wb") as file:
        subprocess.run(
            [sys.executable, "-m", "optax_ext", "convert", "recipe.json"],
            cwd=tmp_path,
            env=os.environ | ascii_only,
            stdout=file,
            check=True,
        )
    assert config.load(tmp_path / "written.yaml") == recipe
    assert "Köpfe" in (tmp_path / "written.yaml").read_text(encoding="utf-8")
