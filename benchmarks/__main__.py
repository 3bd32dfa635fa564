"""Compare optimizers' steps: `python -m benchmarks`, on a CPU or any accelerator that JAX finds."""

import argparse
import dataclasses
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
from benchmarks.contenders import CONTENDERS, FLOOR, OURS, SGD
from benchmarks.measure import Measurement, measure
from benchmarks.trees import TREES, count_parameters


def main() -> None:
    """Measure each tree in each dtype, and print a table for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--trees", nargs="+", choices=list(TREES), default=list(TREES))
    parser.add_argument(
        "--dtypes", nargs="+", choices=["float32", "bfloat16", "float16"], default=["float32", "bfloat16"]
    )
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS), metavar="ROW")
    parser.add_argument("--repeats", type=int, default=20, help="steps of each row, in turns with the others")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured to FILE")
    arguments = parser.parse_args()

    console = Console(width=None if os.isatty(1) else 160)
    machine = describe_machine()
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()))
    results: list[dict[str, Any]] = []
    for tree in arguments.trees:
        shapes = TREES[tree]()
        for dtype in arguments.dtypes:
            rows = measure(shapes, dtype, names=arguments.only, repeats=arguments.repeats)
            title = f"{tree}: {len(shapes)} leaves, {count_parameters(shapes) / 1e6:.1f} million parameters, {dtype}"
            console.print(make_table(title, rows, count_parameters(shapes) * np.dtype(jax.numpy.dtype(dtype)).itemsize))
            results += [
                {"tree": tree, "dtype": dtype, "row": name, **dataclasses.asdict(row)} for name, row in rows.items()
            ]
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
    """Make a table of a tree's rows; ratios are of medians, with those of minima in parentheses."""
    columns = [
        "step",
        "median ms",
        "min ms",
        f"/ {SGD}",
        f"/ {OURS}",
        "compile s",
        "temporaries",
        "GB accessed",
        "GB/s",
        "kernels",
    ]
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == "step" else "right")

    def ratio(row: Measurement, to: str) -> str:
        other = rows.get(to)
        return f"{row.median_ms / other.median_ms:.2f} ({row.min_ms / other.min_ms:.2f})" if other else ""

    for name, row in rows.items():
        table.add_row(
            name,
            f"{row.median_ms:.2f}",
            f"{row.min_ms:.2f}",
            ratio(row, SGD),
            ratio(row, OURS) if name not in (FLOOR, SGD) else "",
            f"{row.compile_s:.1f}",
            f"{row.temporary_bytes / params_bytes:.2f} copies",
            f"{row.accessed_bytes / 1e9:.2f}",
            f"{5 * params_bytes / row.min_ms / 1e6:.0f}",
            str(row.kernels),
        )
    return table


if __name__ == "__main__":
    main()
