"""The command describe: what a file builds, and its learning rate over the steps."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from optax_ext import config
from optax_ext._core.schema import Schema, init_fields
from optax_ext.cli._chain import chain, title
from optax_ext.cli._errors import CommandError, need
from optax_ext.cli._params import Shapes, pattern_lists, read_shapes, size, unmatched
from optax_ext.cli._rate import rates, schedule_of
from optax_ext.cli._steps import telling_steps
from optax_ext.config import ConfigError, OptimizationConfig, Optimizer, Problem

if TYPE_CHECKING:
    from rich.table import Table

_MAX_PATHS = 4  # of the parameters that a pattern matches; more are only counted


def describe(file: str, params: str | None, run_steps: int | None) -> int:
    """Print what a file builds as tables; raise ConfigError if a pattern matches none of the parameters."""
    loaded = config.load(file)
    shapes = None if params is None else read_shapes(params)
    optimizer = loaded.optimizer if isinstance(loaded, OptimizationConfig) else loaded
    if shapes is not None and not isinstance(optimizer, Optimizer):
        raise CommandError(f"{file}: --params is for optimizers, this is {title(loaded)}", status=2)

    console = need("describe", "rich.console").Console(markup=False, highlight=False, emoji=False)
    with console.capture() as capture:  # all or nothing, and a closed pipe is for `main` to handle
        console.print(f"{file}: {title(loaded)}", style="bold", soft_wrap=True)
        if stages := chain(loaded):
            rows = [(str(number), *stage) for number, stage in enumerate(stages, 1)]
            console.print(_table("What happens to gradients, in order", ("", "step", "what it does"), rows))
        console.print(_table("Fields that are not at their defaults", ("field", "value", "default"), _fields(loaded)))
        if shapes is not None and isinstance(optimizer, Optimizer):
            console.print(_patterns(optimizer, shapes))
        if schedule_of(loaded) is not None:
            console.print(_rates(loaded, run_steps))
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())

    if shapes is not None and isinstance(optimizer, Optimizer) and (problems := unmatched(optimizer, shapes)):
        sys.stdout.flush()  # before what goes to standard error
        place = "" if optimizer is loaded else "optimizer."
        raise ConfigError(file, [Problem(f"{place}{path}", message) for path, message in problems])
    return 0


def _table(heading: str, columns: tuple[str, ...], rows: Any, right: tuple[str, ...] = ()) -> "Table":
    table = need("describe", "rich.table").Table(
        title=heading, title_justify="left", title_style="bold", box=need("describe", "rich.box").SIMPLE_HEAD
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _fields(loaded: Schema, indent: str = "") -> Iterator[tuple[str, str, str]]:
    for field in init_fields(type(loaded)):
        value, name = getattr(loaded, field.name), f"{indent}{field.name}"
        if isinstance(value, Schema):
            yield name, getattr(value, "type", type(value).__name__), ""
            yield from _fields(value, f"{indent}  ")
        elif value != field.default:
            required = field.default is field.default_factory  # both are then `MISSING`
            yield name, _shown(value), "required" if required else _shown(field.default)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _patterns(optimizer: Optimizer, shapes: Shapes) -> "Table":
    total = size(shapes)
    rows: list[tuple[str, str, str]] = []
    for field, matches, left in pattern_lists(optimizer, shapes):
        if matches is None:
            rows.append((field, "", "as exclude_from_weight_decay"))
        for pattern, paths in matches or ():
            found = ", ".join(paths[:_MAX_PATHS]) + (", ..." if len(paths) > _MAX_PATHS else "")
            rows.append((field, pattern, f"{len(paths)}: {found}" if paths else "NOTHING"))
        what = field.removeprefix("exclude_from_").replace("_", " ")
        idle = ", at a rate of 0" if what == "weight decay" and getattr(optimizer, "weight_decay_rate", 1) == 0 else ""
        counts = f"{left.parameters} of {total.parameters} parameters, {left.numbers:,} of {total.numbers:,} numbers"
        rows.append((field, "", f"{what} for {counts}{idle}"))
    return _table("What the patterns exclude", ("field", "pattern", "parameters"), rows)


def _rates(loaded: Schema, run_steps: int | None) -> "Table":
    telling = telling_steps(loaded, run_steps)
    values = rates(loaded, np.asarray([step for step, _ in telling]))
    rows = [(f"{step:,}", f"{rate:.6g}", reason) for (step, reason), rate in zip(telling, values, strict=True)]
    return _table("Learning rate", ("step", "learning rate", ""), rows, right=("step", "learning rate"))
