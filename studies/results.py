"""What studies share: their command line, where numbers were measured, their file, and intervals."""

import argparse
import datetime
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np
import optax
from scipy import stats

RESULTS = Path(__file__).with_name("results")


def read_arguments(study: str, description: str, argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments of the command line of a study: whether it is `quick`, and its `output` file."""
    parser = argparse.ArgumentParser(prog=f"python -m studies.{study}", description=description)
    parser.add_argument("--quick", action="store_true", help="a tiny size, to see that it runs")
    parser.add_argument("--output", type=Path, default=RESULTS / f"{study}.json", metavar="FILE", help="(%(default)s)")
    return parser.parse_args(argv)


def describe_machine() -> dict[str, str]:
    """Return what the numbers depend on besides the code."""
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "backend": jax.default_backend(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "optax": optax.__version__,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }


def load(file: Path) -> dict[str, Any]:
    """Return what was saved, or an empty dict if nothing was."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def save(results: dict[str, Any], file: Path) -> None:
    """Write results; a run that is cut short meanwhile leaves the old file whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(file)


def mean_and_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return the mean, and half the width of its 95 % interval by Student's t."""
    mean, error = np.mean(values), stats.sem(values)
    return float(mean), float(stats.t.ppf(0.975, len(values) - 1) * error)


def in_words(accuracies: Sequence[float] | np.ndarray, *, signed: bool = False) -> str:
    """Return mean and interval in percent; of accuracies, also how many runs failed, as they guess at best."""
    mean, half_width = mean_and_interval(accuracies)
    failed = 0 if signed else sum(accuracy < 0.2 for accuracy in accuracies)
    percent = round(100 * mean, 1) + 0.0  # not -0.0
    return f"{percent:{'+' if signed else ''}.1f} ± {100 * half_width:.1f}" + f" ({failed} failed)" * bool(failed)
