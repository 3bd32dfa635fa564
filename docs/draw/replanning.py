"""The run of docs/replanning.md that is cooled down, by its own recipes and command."""

import contextlib
import re
import shlex
import tempfile
from pathlib import Path

from docs.draw.style import optax_ext

PAGE = Path(__file__).parents[1] / "replanning.md"


def draw(dark: bool) -> object:
    """Draw what the first command of the page draws."""
    text = PAGE.read_text(encoding="utf-8")
    (command,) = re.findall(r"^\$ optax-ext (replan .*) -o replanning.png$", text, re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name, recipe in re.findall(r"^```yaml\n# (\S+\.yaml)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            Path(name).write_text(recipe, encoding="utf-8")
        return optax_ext(*shlex.split(command), dark=dark)
