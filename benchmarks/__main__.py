"""Compare optimizers' steps: `python -m benchmarks`, on a CPU or any accelerator that JAX finds."""

import argparse
import itertools
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

import optax_ext
from benchmarks.contenders import CONTENDERS, FAMILIES, choose
from benchmarks.measure import Measurement, measure
from benchmarks.trees import TREES, count_parameters


def main() -> None:
    """Measure each tree in each dtype, and print a table for each family of rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--trees", nargs="+", choices=list(TREES), default=list(TREES))
    parser.add_argument(
        "--dtypes", nargs="+", choices=["float32", "bfloat16", "float16"], default=["float32", "bfloat16"]
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*FAMILIES, *CONTENDERS],
        default=FAMILIES,
        metavar="NAME",
        help=f"families, each a table ({', '.join(FAMILIES)}), or rows, which are one table together",
    )
    parser.add_argument("--repeats", type=int, default=20, help="turns of each row, among those of the others")
    parser.add_argument(
        "--steps",
        type=int,
        default=1,
        help="steps of a turn, started without waiting for the one before; on a GPU one step is mostly its start",
    )
    parser.add_argument(
        "--device-repeats", type=int, default=0, help="turns of each row besides, to time a GPU's work in the profiler"
    )
    parser.add_argument(
        "--compilers", type=int, default=1, help="rows compiled at a time; with more than 1, each takes longer"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured to FILE")
    arguments = parser.parse_args()

    # Compile times are of compiling, also where JAX_COMPILATION_CACHE_DIR is set.
    jax.config.update("jax_enable_compilation_cache", False)
    console = Console(width=None if os.isatty(1) else 180)
    machine = describe_machine()
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()))
    results: list[dict[str, Any]] = []
    tables = choose(arguments.only)
    for tree, dtype, table in itertools.product(arguments.trees, arguments.dtypes, tables):
        shapes = TREES[tree]()
        size = count_parameters(shapes)
        rows = measure(
            shapes,
            dtype,
            names=tables[table],
            repeats=arguments.repeats,
            steps=arguments.steps,
            device_repeats=arguments.device_repeats,
            compilers=arguments.compilers,
        )
        title = f"{table}: {tree}, {len(shapes)} leaves, {size / 1e6:.1f} million parameters, {dtype}"
        console.print(make_table(title, rows, size * np.dtype(jax.numpy.dtype(dtype)).itemsize))
        key = {"tree": tree, "dtype": dtype, "table": table}
        results += [key | {"row": name, "of": CONTENDERS[name].of} | vars(row) for name, row in rows.items()]
        if arguments.json:  # after each table, so that a run cut short loses none of them
            arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


def describe_machine() -> dict[str, str]:
    """Return what a result depends on."""
    device = jax.devices()[0]
    cpu = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if "model name" in line), platform.machine()
    )
    return {
        "device": f"{len(jax.devices())} x {device.device_kind}",
        "processor": f"{cpu}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "optax": optax.__version__,
        "optax_ext": optax_ext.__version__,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def make_table(title: str, rows: dict[str, Measurement], params_bytes: int) -> Table:
    """Make a table of rows that were measured together; ratios are of medians, with those of minima in parentheses."""
    timed_alone = any(row.device_ms for row in rows.values())
    columns = ["median ms", "min ms", "ratio", "compile s", "temporaries", "GB accessed", "GB/s", "kernels"]
    if timed_alone:
        columns[3:3] = ["device ms", "min ms", "ratio"]
    table = Table("step", title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in rows.items():
        of = rows.get(CONTENDERS[name].of or "")
        times = describe_times(row.step_ms, of and of.step_ms)
        if of:
            times[-1] += f" of {CONTENDERS[name].of}"
        alone = describe_times(row.device_ms, of and of.device_ms) if timed_alone else []
        fastest = min(row.device_ms or row.step_ms)
        table.add_row(
            name,
            *times,
            *alone,
            f"{row.compile_s:.1f}",
            f"{row.temporary_bytes / params_bytes:.2f} copies",
            f"{row.accessed_bytes / 1e9:.2f}",
            f"{row.necessary_bytes / fastest / 1e6:.0f}",
            str(row.kernels),
        )
    return table


def describe_times(times: list[float], others: list[float] | None) -> list[str]:
    """Return the median, the minimum, and the ratios of both to those of another row."""
    median, shortest = statistics.median(times), min(times)
    ratio = f"{median / statistics.median(others):.2f} ({shortest / min(others):.2f})" if others else ""
    return [f"{median:.3f}", f"{shortest:.3f}", ratio]


if __name__ == "__main__":
    main()
