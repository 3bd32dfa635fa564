"""The command replan: what changes when a run goes on by another recipe from some step on."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optax_ext import config
from optax_ext._core.schema import Schema
from optax_ext.cli._curves import Curve
from optax_ext.cli._errors import CommandError
from optax_ext.cli._fits import fit_in_words
from optax_ext.cli._in_run import in_run, length_of_run
from optax_ext.cli._meetings import evaluate, jump_in_words, meetings_in_words
from optax_ext.cli._params import read_shapes
from optax_ext.cli._picture import save_picture
from optax_ext.cli._rate import LAST_STEP, Config
from optax_ext.cli._steps import beside, horizon, milestones
from optax_ext.cli._text_plot import text_plot
from optax_ext.cli._warnings import warnings_of
from optax_ext.config import ConfigError, LossScale, OptimizationConfig, UpdateRule
from optax_ext.schedules import Schedule

_POINTS = 5000  # of a curve, beside where it turns
Rate = Callable[[Any], Any]


class _Plan(NamedTuple):
    """A recipe and its rates.

    Attributes:
      name: The name of its file, short.
      written: The recipe in the words of its file.
      resolved: The same with plain numbers.
      rates: Its learning rates, by the names of groups; "" for all parameters.
      length: How many steps its run has; None if that is not known.
    """

    name: str
    written: Schema
    resolved: Config
    rates: Mapping[str, Rate]
    length: int | None


def replan(
    files: tuple[str, str],
    at: int,
    output: str | None,
    steps: int | None,
    params: str | None,
    *,
    overrides: Sequence[str],
    run: Mapping[str, float] | None,
    dark: bool,
) -> int:
    """Draw the rates of two recipes, and say where they jump and meet, what differs, and whether a state fits.

    Args:
      files: The old recipe and the new one.
      at: The first step of the new one.
      output: The picture to save; None for a plot in the terminal.
      steps: How many steps to compare; None for those of the longer run.
      params: A file of the shapes of parameters; None for those of a small kernel.
      overrides: What is changed in the new recipe.
      run: What both are resolved for; None for the run that each has.
      dark: Whether the picture is for a dark page.
    """
    if dark and output is None:
        raise CommandError("replan --dark is for a picture: give -o as well", status=2)
    old, new = _load(files, overrides, run)
    shapes = None if params is None else read_shapes(params)
    length = steps or max(plan.length or horizon(plan.resolved) for plan in (old, new))
    length = min(length if length > at + 1 else at + max(at // 10, 2), LAST_STEP)
    curves = [*_curves(old, 0, at, length), *_curves(new, at, at, length)]
    if output is not None:
        save_picture(curves, output, command="replan", mark=at, dark=dark)
        lines = [f"{output}: the rates of {files[0]} and {files[1]}"]
    else:
        lines = text_plot(curves, min(shutil.get_terminal_size().columns, 100), mark=at).splitlines()
    peak = max(curve.peak for curve in curves)
    lines += ["", "Learning rate", *_indented(_rates_in_words(old, new, at, length - 1, peak))]
    lines += ["", "Fields that differ", *_indented(_fields(old, new))]
    if isinstance(old.resolved, OptimizationConfig | UpdateRule):
        assert isinstance(new.resolved, OptimizationConfig | UpdateRule)
        fit = fit_in_words(old.resolved, new.resolved, (old.name, new.name), at, shapes)
        lines += ["", "State", *_indented(fit)]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def _load(files: tuple[str, str], overrides: Sequence[str], run: Mapping[str, float] | None) -> list[_Plan]:
    """Load both files; raise an error with the problems of both."""
    stems = [Path(file).stem for file in files]
    names = stems if stems[0] != stems[1] else ["old", "new"]
    plans: list[_Plan] = []
    problems: list[str] = []
    for file, name, changes in zip(files, names, ([], overrides), strict=True):
        try:
            with warnings_of(file):
                written, resolved = in_run(file, config.load(file, overrides=changes), run)
        except ConfigError as error:
            problems.append(str(error))
            continue
        rates = {"": resolved} if isinstance(resolved, Schedule) else {}
        if isinstance(resolved, OptimizationConfig | UpdateRule):
            rates = dict(resolved.learning_rates())
        if not rates:
            what = "a loss scale alone" if isinstance(resolved, LossScale) else "its optimizer"
            problems.append(f"{file}: {what} has no learning rate")
        plans.append(_Plan(name, written, resolved, rates, length_of_run(resolved, run)))
    if problems:
        raise CommandError("\n".join(problems))
    if len({isinstance(plan.resolved, Schedule) for plan in plans}) > 1:
        raise CommandError(f"{files[0]} and {files[1]}: one is a schedule alone, the other a recipe", status=2)
    return plans


def _curves(plan: _Plan, first: int, at: int, length: int) -> Iterator[Curve]:
    named = [at, *(step for step, _ in milestones(plan.resolved))]
    telling = [step for step in (1, *named, *beside(named)) if first <= step < length]
    evenly = np.linspace(first, length - 1, min(length - first, _POINTS)).round().astype(np.int64)
    steps = np.union1d(evenly, np.asarray(telling, np.int64))
    for group, rate in plan.rates.items():
        yield Curve(f"{plan.name}, {group}" if group else plan.name, steps, evaluate(rate, steps))


# ---------------------------------------------------------------------------------------------------------
# Rates


def _rates_in_words(old: _Plan, new: _Plan, at: int, last: int, peak: float) -> Iterator[str]:
    for plan in (old, new):
        yield f"{plan.name}: {_length_in_words(plan, at, is_old=plan is old)}"
    for group in dict.fromkeys([*new.rates, *old.rates]):
        # A group that is new, or that is no more, goes on from, or by, the one rate of all parameters.
        rates = [plan.rates.get(group, plan.rates.get("")) for plan in (old, new)]
        if group == "" and None in (old.rates.get(""), new.rates.get("")):
            continue
        before = f"{group}: " if group else ""
        of_old, of_new = rates
        if of_old is None or of_new is None:
            yield f"{before}a group of {new.name if of_old is None else old.name} alone"
            continue
        around = evaluate(of_old, np.asarray([at - 1, at])).tolist()
        (first,) = evaluate(of_new, np.asarray([at])).tolist()
        yield f"{before}{old.name} is {around[0]:.6g} at step {at - 1:,} and {around[1]:.6g} at step {at:,}"
        yield f"{before}{new.name} is {first:.6g} at step {at:,}"
        yield f"{before}{jump_in_words(around[1], first, at, peak)}"
        meetings, *zeros = meetings_in_words(of_old, of_new, at, last, peak)
        yield from (f"{before}{meeting}" for meeting in meetings)
        for plan, zero in zip((old, new), zeros, strict=True):
            if zero is not None:
                nothing = ": no parameter moves by it" if zero == at and plan is new else ""
                yield f"{before}{plan.name} is 0 from step {zero:,} on{nothing}"


def _length_in_words(plan: _Plan, at: int, *, is_old: bool) -> str:
    if plan.length is None:
        found = milestones(plan.resolved)
        end = f"; its last milestone is step {found[-1].step:,}, {found[-1].reason}" if found[-1].reason else ""
        return f"no run that tells its length{end}"
    over = ""
    if plan.length <= at:
        over = ", all of them before the change" if is_old else f": none are left from step {at:,} on"
    return f"a run of {plan.length:,} steps{over}"


# ---------------------------------------------------------------------------------------------------------
# Fields


def _fields(old: _Plan, new: _Plan) -> Iterator[str]:
    """Yield the fields that differ, with both values."""
    olds, news = (dict(_flat(_as_recipe(plan.written))) for plan in (old, new))
    paths = [path for path in dict.fromkeys([*olds, *news]) if olds.get(path) != news.get(path)]
    # Where one has a number and the other a part, the type of the part stands for it.
    paths = [path for path in paths if path.removesuffix(".type") == path or not {path[:-5]} & {*olds, *news}]
    if not paths:
        yield "none"
    for path in paths:
        yield f"{path}: {_shown(olds, path)} -> {_shown(news, path)}"


def _as_recipe(written: Schema) -> Schema:
    return OptimizationConfig(written) if isinstance(written, UpdateRule) else written


def _flat(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(data, Schema):
        data = config.to_dict(data, exclude_defaults=True)
    is_nested = isinstance(data, dict) or (isinstance(data, list) and any(isinstance(item, dict) for item in data))
    if not is_nested or not data:
        yield path, data
        return
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        yield from _flat(value, f"{path}.{key}" if path else str(key))


def _shown(flat: Mapping[str, Any], path: str) -> str:
    value = flat.get(path, flat.get(f"{path}.type", "not given"))
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _indented(lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
