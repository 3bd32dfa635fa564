"""The command plot: learning rates over steps, as a picture or as text."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from optax_ext import config
from optax_ext.cli._curves import curve, extent
from optax_ext.cli._errors import CommandError
from optax_ext.cli._in_run import in_run, length_of_run
from optax_ext.cli._picture import save_picture
from optax_ext.cli._rate import Config, GroupRate, by_group
from optax_ext.cli._steps import horizon
from optax_ext.cli._text_plot import text_plot
from optax_ext.cli._warnings import warnings_of
from optax_ext.config import ConfigError, LossScale


def plot(
    files: Sequence[str],
    output: str | None,
    run_steps: int | None,
    overrides: Sequence[str],
    run: Mapping[str, float] | None,
    *,
    dark: bool,
) -> int:
    """Plot the learning rates of files in one picture, or as text on standard output."""
    if dark and output is None:
        raise CommandError("plot --dark is for a picture: give -o as well", status=2)
    loaded = _load(files, overrides, run)
    rated = _rated(loaded, run)
    curves = [curve(name, it, run_steps or steps) for name, (it, steps) in rated.items()]
    if output is None:
        width = min(shutil.get_terminal_size().columns, 100)
        sys.stdout.write(text_plot(curves, width))
    else:
        save_picture(curves, output, dark=dark)
        what = f"the learning rate of {files[0]}" if len(curves) == 1 else f"{len(curves)} learning rates"
        last, _ = extent(curves)
        sys.stdout.write(f"{output}: {what} from step 0 to {last:,}\n")
    return 0


def _load(files: Sequence[str], overrides: Sequence[str], run: Mapping[str, float] | None) -> dict[str, Config]:
    """Load files, once each; raise an error with the problems of all of them."""
    loaded: dict[str, Config] = {}
    problems: list[str] = []
    for file in files:
        try:
            with warnings_of(file):
                _, loaded[file] = in_run(file, config.load(file, overrides=overrides), run)
        except ConfigError as error:
            problems.append(str(error))
        else:
            if not by_group(loaded[file]):
                what = "a loss scale alone" if isinstance(loaded[file], LossScale) else "its optimizer"
                problems.append(f"{file}: {what} has no learning rate")
    if problems:
        raise CommandError("\n".join(problems))
    return loaded


def _rated(loaded: dict[str, Config], run: Mapping[str, float] | None) -> dict[str, tuple[Config | GroupRate, int]]:
    """Return what has a learning rate by the name of its curve, each file or each group of one, and how long it is."""
    rated: dict[str, tuple[Config | GroupRate, int]] = {}
    for name, one in zip(_names([*loaded]), loaded.values(), strict=True):
        for group, part in by_group(one).items():
            rated[f"{name}, {group}" if group else name] = part, length_of_run(one, run) or horizon(one)
    return rated


def _names(files: list[str]) -> list[str]:
    """Return the names of files, without folder and suffix if they stay distinct."""
    stems = [Path(file).stem for file in files]
    return stems if len(set(stems)) == len(stems) else files
