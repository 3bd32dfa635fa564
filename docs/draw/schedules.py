"""The curves of docs/schedules.md, from the files that it shows, by what draws for optax-ext plot."""

import functools
import re
from pathlib import Path

import yaml
from matplotlib.figure import Figure

from optax_ext import config
from optax_ext.cli._curves import curve
from optax_ext.cli._picture import draw_curves

PAGE = Path(__file__).parents[1] / "schedules.md"
FILES = dict(
    re.findall(r"^```yaml\n# (\w+)\.yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
)
STEPS = 1000
SIZE = (7.6, 2.2)  # inches


def _draw(dark: bool, *, name: str) -> Figure:
    schedule = config.from_dict(yaml.safe_load(FILES[name]))
    return draw_curves([curve(name, schedule, STEPS)], dark=dark, size=SIZE)


PICTURES = {f"schedule_{name}": functools.partial(_draw, name=name) for name in FILES}
