"""The trust ratios of docs/logging.md, by examples/log_training.py."""

import functools
import tempfile
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


@functools.cache
def _history() -> Any:
    from examples import log_training  # imports much

    with tempfile.TemporaryDirectory() as folder:
        return log_training.train(Path(folder))


def draw(dark: bool) -> Figure:
    """Train, and draw what the example draws."""
    from examples import log_training

    return log_training.plot(_history(), dark=dark)
