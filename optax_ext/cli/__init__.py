"""The command line: describe, plot, compare, check and convert recipes, and write their JSON Schema."""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

import optax_ext
from optax_ext._core.errors import ConfigError
from optax_ext.cli._errors import CommandError

__all__ = ["main"]

_BROKEN_PIPE = 141  # what a shell reports for a program whose output is no longer read


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``optax-ext``.

    Args:
      argv: The arguments after the program's name; None for those of this process.

    Returns:
      The exit status: 0 if all is well, 1 for problems with a config, 2 for arguments that contradict each other.

    Raises:
      SystemExit: With status 2 for arguments that cannot be parsed, with status 0 after ``--help`` and ``--version``.

    Examples:
      >>> import tempfile
      >>> from optax_ext import cli, config
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     config.save(config.SGD(learning_rate=0.1), f"{folder}/recipe.json")
      ...     status = cli.main(["convert", f"{folder}/recipe.json"])
      type: sgd
      learning_rate: 0.1
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if argv is None:  # this process is ours
        _write_utf8()
        # A few values of a schedule must not take an accelerator from whoever trains on it.
        os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS") or "cpu"
    modules = [*arguments.first_modules, *arguments.modules]
    if modules:
        sys.path.insert(0, os.getcwd())  # where `python -m` looks too, and an installed command does not
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            hint = f" (its name is {module[:-3]!r})" if module.endswith(".py") else ""
            parser.error(f"argument --import: cannot import {module!r}{hint}: {type(error).__name__}: {error}")
    try:
        status = _run(arguments)
        sys.stdout.flush()  # here, where a closed pipe is still handled
        return status
    except (ConfigError, CommandError) as error:
        print(error, file=sys.stderr)
        return error.status if isinstance(error, CommandError) else 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return _BROKEN_PIPE


def _write_utf8() -> None:
    """Write UTF-8, as recipes are read, where Python would write a pipe or a file in the code page of Windows."""
    chosen = os.environ.get("PYTHONIOENCODING")
    if not chosen and isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")


def _run(arguments: argparse.Namespace) -> int:
    # Each command imports what it needs when it is called, so that `check` waits only for the library.
    match arguments.command:
        case "describe":
            from optax_ext.cli._describe import describe

            return describe(arguments.file, arguments.params, arguments.steps, arguments.overrides, arguments.run)
        case "plot":
            from optax_ext.cli._plot import plot

            return plot(
                arguments.files,
                arguments.output,
                arguments.steps,
                arguments.overrides,
                arguments.run,
                dark=arguments.dark,
            )
        case "replan":
            from optax_ext.cli._replan import replan

            return replan(
                (arguments.old, arguments.new),
                arguments.at,
                arguments.output,
                arguments.steps,
                arguments.params,
                overrides=arguments.overrides,
                run=arguments.run,
                dark=arguments.dark,
            )
        case "check":
            from optax_ext.cli._check import check

            return check(arguments.files, arguments.overrides)
        case "convert":
            from optax_ext.cli._convert import convert

            return convert(
                arguments.file,
                arguments.output,
                arguments.to,
                overrides=arguments.overrides,
                all_fields=arguments.all_fields,
                overwrite=arguments.overwrite,
                written_by=arguments.written_by,
                base=arguments.base,
                numbers={
                    "num_training_steps": arguments.num_training_steps,
                    "steps_per_epoch": arguments.steps_per_epoch,
                    "global_batch_size": arguments.global_batch_size,
                },
                shapes_file=arguments.params,
            )
        case _:
            from optax_ext.cli._schema import schema

            return schema()


class _PrintVersion(argparse.Action):
    """What argparse does for a version, but for one that is looked up only if it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"optax_ext {optax_ext.__version__}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="optax-ext",
        description="Look at recipes: optimizers, schedules and loss scales in JSON or YAML files.",
        epilog="Exit status: 0 fine, 1 problems with a config, 2 wrong usage.",
    )
    parser.add_argument("--version", action=_PrintVersion, nargs=0, help="show the version of optax_ext and exit")
    parser.add_argument("--import", dest="first_modules", action="append", default=[], help=argparse.SUPPRESS)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="import this module first, so that the schedules it defines are known; may be repeated",
    )
    recipes = argparse.ArgumentParser(add_help=False)  # of the commands that read recipes
    recipes.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change a field of every FILE first, as in optimizer.momentum=0.9 or "
        "'ema={average_decay: 0.999}'; may be repeated",
    )
    in_run = argparse.ArgumentParser(add_help=False)  # of the commands that show numbers of steps
    in_run.add_argument(
        "--run",
        type=_run_fields,
        metavar="FIELD=NUMBER,...",
        help="what durations and rates for a batch are taken of, instead of the run of FILE: examples, batch_size, "
        "epochs or steps, and steps_per_epoch, as in --run examples=1281167,batch_size=4096,epochs=90",
    )
    drawing = argparse.ArgumentParser(add_help=False)  # of the commands that draw
    drawing.add_argument("-o", "--output", metavar="PNG", help="where to save a picture; else plot in the terminal")
    drawing.add_argument("--dark", action="store_true", help="save the picture in colors for a dark page")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, purpose: str, *options: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.", parents=[shared, *options]
        )

    describe = command("describe", "say what a file builds, and show its learning rate at key steps", recipes, in_run)
    describe.add_argument("file", metavar="FILE")
    describe.add_argument(
        "--params",
        metavar="SHAPES.json",
        help="a nested mapping of parameter names to shapes, as json.dump(jax.tree.map(lambda p: list(p.shape), "
        "params), file) writes it: show which parameters each pattern matches, and how many layers they hold",
    )
    describe.add_argument("--steps", type=_step_count, metavar="N", help="how many steps a run has")

    plot = command(
        "plot",
        "plot the learning rate over the steps, of several files in one picture to compare them",
        recipes,
        in_run,
        drawing,
    )
    plot.add_argument("files", metavar="FILE", nargs="+")
    plot.add_argument("--steps", type=_step_count, metavar="N", help="how many steps to plot")

    replan = command(
        "replan",
        "compare the recipe of a run with another one for the rest of it, from a step on; --set changes NEW alone",
        recipes,
        in_run,
        drawing,
    )
    replan.add_argument("old", metavar="OLD")
    replan.add_argument("new", metavar="NEW")
    replan.add_argument(
        "--at", type=_step_count, metavar="STEP", required=True, help="the first step that NEW takes, counted from 0"
    )
    replan.add_argument("--steps", type=_step_count, metavar="N", help="how many steps to compare")
    replan.add_argument(
        "--params",
        metavar="SHAPES.json",
        help="the shapes of the parameters, as for describe, to compare the states for; else those of a small kernel",
    )

    check = command("check", "check files and report all problems, with exit status 1 if there are any", recipes)
    check.add_argument("files", metavar="FILE", nargs="+")

    convert = command(
        "convert",
        "write a recipe in the other format, or what other software wrote as a recipe; comments are lost",
        recipes,
    )
    convert.add_argument("file", metavar="FILE")
    convert.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where to save it; else standard output. A file that exists is not replaced without --overwrite",
    )
    convert.add_argument("--overwrite", action="store_true", help="replace the file of -o if it exists, FILE included")
    convert.add_argument("--to", choices=["json", "yaml"], help="the format; else that of -o, or the other one")
    convert.add_argument(
        "--all-fields", action="store_true", help="write also the fields that have their default value"
    )
    convert.add_argument(
        "--from",
        dest="written_by",
        choices=[
            "optax-ext",
            "keras",
            "transformers",
            "tensorflow-addons",
            "model-garden",
            "training-arguments",
            "timm",
        ],
        help="who wrote FILE; else what its keys tell. What is changed in translation is said in comments",
    )
    convert.add_argument(
        "--num-training-steps",
        type=_step_count,
        metavar="N",
        help="for TrainingArguments of transformers: how many steps the training has, where they say epochs",
    )
    convert.add_argument(
        "--steps-per-epoch", type=_step_count, metavar="N", help="for arguments of timm: how many updates an epoch has"
    )
    convert.add_argument(
        "--global-batch-size",
        type=_step_count,
        metavar="N",
        help="for arguments of timm without a rate: how many examples an update has, on all devices together",
    )
    convert.add_argument("--base", metavar="FILE", help="the experiment that a Model Garden file overrides")
    convert.add_argument(
        "--params",
        metavar="SHAPES.json",
        help="say which parameters each pattern of an imported file matches; shapes as for describe --params",
    )

    command("schema", "write the JSON Schema of configs, for editors, to standard output")
    return parser


def _run_fields(text: str) -> dict[str, float]:
    fields: dict[str, float] = {}
    for item in text.split(","):
        name, _, number = item.partition("=")
        try:
            fields[name.strip()] = float(number) if "." in number or "e" in number else int(number)
        except ValueError:
            example = "examples=1281167,batch_size=4096,epochs=90"
            raise argparse.ArgumentTypeError(f"must be fields and numbers, as in {example}, got {item!r}") from None
    return fields


def _step_count(text: str) -> int:
    try:
        steps = float(text)  # 1e4 steps are 10000
    except ValueError:
        steps = 0.0
    if not (1 <= steps <= 2**31 - 1 and steps.is_integer()):  # steps are int32
        raise argparse.ArgumentTypeError(f"must be an integer from 1 to 2147483647, got {text!r}")
    return int(steps)
