"""The command describe: what a file builds, and its learning rate over the steps."""

import sys
from collections.abc import Iterator, Mapping, Sequence

from optax_ext import config
from optax_ext._core.schema import Schema, init_fields
from optax_ext.cli._errors import CommandError, need
from optax_ext.cli._groups import (
    Member,
    factor_problems,
    factor_rows,
    group_problems,
    group_rows,
    has_factors,
    members,
)
from optax_ext.cli._in_run import in_run, length_of_run
from optax_ext.cli._params import (
    Match,
    Shapes,
    masked_sizes,
    numbers_by_path,
    pattern_lists,
    read_shapes,
    size,
    unmatched,
)
from optax_ext.cli._rate import Config, GroupRate, by_group
from optax_ext.cli._stacks import Stacks, find_stacks
from optax_ext.cli._steps import telling_steps
from optax_ext.cli._tables import Rows, rendered
from optax_ext.cli._warnings import warnings_of
from optax_ext.config import ConfigError, OptimizationConfig, Partition, Problem, Stage, UpdateRule
from optax_ext.schedules import RatePerBatch, Schedule, rate_in_words

_MAX_PATHS = 4  # of the parameters that a pattern matches; more are only counted


def title(loaded: Config) -> str:
    """Return what a config is, in a line."""
    if isinstance(loaded, OptimizationConfig):
        around = f", inside {loaded.loss_scale.type} loss scaling" if loaded.loss_scale else ""
        return f"a recipe: {title(loaded.optimizer).removeprefix('an optimizer: ')}{around}"
    if isinstance(loaded, UpdateRule):
        return f"an optimizer: {loaded.in_words()}"
    if isinstance(loaded, Schedule):
        return f"a schedule: {rate_in_words(loaded)}"
    return f"a loss scale: {type(loaded).__name__}"


def describe(
    file: str,
    params: str | None,
    run_steps: int | None,
    overrides: Sequence[str],
    run: Mapping[str, float] | None,
) -> int:
    """Print what a file builds as tables; raise ConfigError if a pattern matches none of the parameters."""
    with warnings_of(file):
        in_words, loaded = in_run(file, config.load(file, overrides=overrides), run)
    shapes = None if params is None else read_shapes(params)
    optimizer = loaded.optimizer if isinstance(loaded, OptimizationConfig) else loaded
    if shapes is not None and not isinstance(optimizer, UpdateRule):
        raise CommandError(f"{file}: --params is for optimizers, this is {title(loaded)}", status=2)

    problems: list[Problem] = []
    console = need("describe", "rich.console").Console(markup=False, highlight=False, emoji=False)

    def show(table: Rows) -> None:
        shown = rendered(table, console.width)
        console.print(table.heading if shown else f"{table.heading}: none", style="bold", soft_wrap=True)
        console.print(shown or "", soft_wrap=isinstance(shown, str))  # a line of one long word is not broken

    with console.capture() as capture:  # all or nothing, and a closed pipe is for `main` to handle
        console.print(f"{file}: {title(loaded)}", style="bold", soft_wrap=True)
        if not isinstance(loaded, Schedule):
            console.print()
            show(_stages("What happens to gradients, in order", loaded.stages()))
            for name, rule in _rules(optimizer):
                show(_stages(f"In the group {name}", rule.stages()))
        fields = _fields(in_words, loaded)
        show(Rows("Fields that are not at their defaults", ("field", "value", "default"), fields))
        if shapes is not None and isinstance(optimizer, UpdateRule):
            for table in _parameters(optimizer, shapes, problems):
                show(table)
        for group, part in by_group(loaded).items():
            heading = f"Learning rate{f' of {group}' if group else ''}"
            show(_rates(heading, part, run_steps or length_of_run(loaded, run)))
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())

    if problems:
        sys.stdout.flush()  # before what goes to standard error
        place = "" if optimizer is loaded else "optimizer."
        raise ConfigError(file, [Problem(f"{place}{path}", message) for path, message in problems])
    return 0


def _stages(heading: str, stages: list[Stage]) -> Rows:
    shown = [stage for stage in stages if not stage.does_nothing]
    rows = [(str(number), stage.name, stage.effect) for number, stage in enumerate(shown, 1)]
    return Rows(heading, ("", "step", "what it does"), rows)


def _rules(optimizer: object, name: str = "") -> Iterator[tuple[str, UpdateRule]]:
    """Yield what moves each group of a partition, and the groups inside of groups, by name."""
    if isinstance(optimizer, Partition):
        for label, rule in optimizer.rules().items():
            group = f"{name}/{label}" if name else label
            yield group, rule
            yield from _rules(rule, group)


def _parameters(
    optimizer: UpdateRule, shapes: Shapes, problems: list[Problem], member: Member | None = None, group: str = ""
) -> Iterator[Rows]:
    """Yield the tables of an optimizer and of its groups, and collect what is wrong; `shapes` are of the whole."""
    own, place = (shapes, "") if member is None else (member.shapes, member.place)
    whole, of_group = (None, "") if member is None else (shapes, f" in the group {group}")
    stacks = find_stacks(optimizer, own, whole)
    found: list[Problem] = [*stacks.problems]
    if optimizer.stacked_axes is not None and member is None:
        yield _layers(stacks)
    if isinstance(optimizer, Partition):
        inner = members(optimizer, own)
        if inner is not None:
            rows = group_rows(inner, optimizer)
            yield Rows(f"Groups{of_group}", ("group", "patterns", "parameters"), rows)
    elif stacks.fit and (member is None or optimizer.pattern_fields()):  # else the ranks of layers are not known
        yield _patterns(optimizer, own, stacks, of_group)
    found += [*unmatched(optimizer, own, stacks.axes, whole), *factor_problems(optimizer, shapes)]
    if isinstance(optimizer, Partition):
        found += group_problems(optimizer, own)
    problems += [Problem(f"{place}{path}", message) for path, message in found]
    if member is None and has_factors(optimizer) and (rows := factor_rows(optimizer, shapes)):
        columns = ("factor", "group", "parameters")
        if not isinstance(optimizer, Partition):
            columns, rows = ("factor", "parameters"), [(factor, paths) for factor, _, paths in rows]
        yield Rows("Factors of the learning rate", columns, rows, right=("factor",))
    for one in (members(optimizer, own) or ()) if isinstance(optimizer, Partition) else ():
        below: list[Problem] = []
        yield from _parameters(one.rule, shapes, below, one, f"{group}/{one.name}" if group else one.name)
        problems += [Problem(f"{place}{path}", message) for path, message in below]


def _fields(in_words: Schema, resolved: Schema, indent: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield the fields that are not at their defaults, in the words of the file and as what these are in the run."""
    for field in init_fields(type(in_words)):
        value, in_run, name = getattr(in_words, field.name), getattr(resolved, field.name), f"{indent}{field.name}"
        required = field.default is field.default_factory  # both are then `MISSING`
        default = "required" if required else _shown(field.default)
        if isinstance(value, Schema) and isinstance(in_run, Schema):
            yield from _part(name, value, in_run, "", indent)
        elif isinstance(value, tuple) and any(isinstance(item, Schema) for item in value):
            yield name, "", default
            for index, item in enumerate(value):
                yield from _part(f"{indent}  {index}", item, in_run[index], "", f"{indent}  ")
        elif value != in_run or value != field.default:
            yield from _part(name, value, in_run, default, indent)


def _part(name: str, value: object, in_run: object, default: str, indent: str) -> Iterator[tuple[str, str, str]]:
    """Yield a field or an entry of a list, and what is inside it."""
    if isinstance(value, Schema) and isinstance(in_run, Schema):
        yield name, getattr(value, "type", type(value).__name__), default
        yield from _fields(value, in_run, f"{indent}  ")
    else:
        yield name, _shown(value) if value == in_run else f"{_shown(value)} = {_shown(in_run)}", default


def _shown(value: object) -> str:
    if isinstance(value, RatePerBatch):
        return value.in_words()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_shown(item)}' for key, item in value.items())}}}"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _layers(stacks: Stacks) -> Rows:
    """Show how many layers each parameter holds that a pattern of axes matches."""
    rows = [(pattern, "NOTHING", "", "", "") for pattern in stacks.unmatched]
    for stack in stacks.found:
        shape, axes = _shown(stack.shape), "DO NOT FIT" if stack.axes is None else ", ".join(map(str, stack.axes))
        layers = "" if stack.axes is None else f"{stack.layers:,}"
        rows.append((stack.pattern, stack.path, shape, axes or "none", layers))
    columns = ("pattern", "parameter", "shape", "axes", "layers")
    return Rows("Layers per parameter", columns, rows, right=("layers",))


def _patterns(optimizer: UpdateRule, shapes: Shapes, stacks: Stacks, of_group: str) -> Rows:
    total, idle = size(shapes), {stage.name for stage in optimizer.stages() if stage.does_nothing}
    matches_of = {field: matches for field, matches, _ in pattern_lists(optimizer, shapes, stacks.axes)}
    rows: list[tuple[str, str, str]] = []
    for stage, left in masked_sizes(optimizer, shapes).items():
        name = ""
        for field in [field for field in optimizer.pattern_fields() if field.stage == stage]:
            name, verb = field.field, "includes" if field.includes else "excludes"
            if field.taken_from is not None:
                rows.append((name, "", f"as {field.taken_from}"))
            for match in matches_of[name] or ():
                matched = _matched(match, verb, shapes) if match.paths else f"NOTHING{of_group}"
                rows.append((name, match.pattern, matched))
        what = name.removeprefix("exclude_from_").replace("_", " ") if name.startswith("exclude_from_") else stage
        counts = f"{left.parameters} of {total.parameters} parameters, {left.numbers:,} of {total.numbers:,} numbers"
        rows.append((name, "", f"{what} for {counts}{', at a rate of 0' if stage in idle else ''}"))
    return Rows(f"What the patterns match{of_group}", ("field", "pattern", "parameters"), rows)


def _matched(match: Match, verb: str, shapes: Shapes) -> str:
    numbers = numbers_by_path(shapes)
    found = ", ".join(match.paths[:_MAX_PATHS]) + (", ..." if len(match.paths) > _MAX_PATHS else "")
    counted = f"{sum(numbers[path] for path in match.paths):,} of {sum(numbers.values()):,} numbers"
    return f"{verb} {len(match.paths)}: {found} ({counted})"


def _rates(heading: str, rated: Config | GroupRate, run_steps: int | None) -> Rows:
    rows = [(f"{step:,}", f"{rate:.6g}", reason) for step, reason, rate in telling_steps(rated, run_steps)]
    return Rows(heading, ("step", "learning rate", ""), rows, right=("step", "learning rate"))
