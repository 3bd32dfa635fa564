"""Compare optimizers' steps: `python -m benchmarks`, on a CPU or any accelerator that JAX finds."""

import argparse
import itertools
import json
import os
import platform
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
    parser.add_argument("--repeats", type=int, default=20, help="steps of each row, in turns with the others")
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
        rows = measure(shapes, dtype, names=tables[table], repeats=arguments.repeats)
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
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def make_table(title: str, rows: dict[str, Measurement], params_bytes: int) -> Table:
    """Make a table of rows that were measured together; ratios are of medians, with those of minima in parentheses."""
    columns = ["median ms", "min ms", "ratio", "compile s", "temporaries", "GB accessed", "GB/s", "kernels"]
    table = Table("step", title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in rows.items():
        of = CONTENDERS[name].of
        table.add_row(
            name,
            f"{row.median_ms:.2f}",
            f"{row.min_ms:.2f}",
            f"{compare(row, rows[of])} of {of}" if of in rows else "",
            f"{row.compile_s:.1f}",
            f"{row.temporary_bytes / params_bytes:.2f} copies",
            f"{row.accessed_bytes / 1e9:.2f}",
            f"{row.necessary_bytes / row.min_ms / 1e6:.0f}",
            str(row.kernels),
        )
    return table


def compare(row: Measurement, other: Measurement) -> str:
    """Return the ratio of the medians, with that of the minima in parentheses."""
    return f"{row.median_ms / other.median_ms:.2f} ({row.min_ms / other.min_ms:.2f})"


if __name__ == "__main__":
    main()
