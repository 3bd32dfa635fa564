"""How a step is measured: compiled once, then run in turns with the others."""

import dataclasses
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contenders import CONTENDERS, FLOOR
from benchmarks.device_time import measure_device_ms
from benchmarks.trees import Shape, stack_layers


@dataclasses.dataclass
class Measurement:
    """One row of the table.

    Attributes:
      step_ms: The times of a step in milliseconds, one of each turn, in the order they were run.
      compile_s: Seconds from a lowered step to an executable.
      temporary_bytes: The most memory that XLA plans for, beyond arguments and results.
      accessed_bytes: What XLA counts as read and written.
      necessary_bytes: Arguments and results: what no such step can help reading and writing.
      device_ms: The times of a step on the device alone, one of each turn; empty where they were not asked for.
      kernels: Instructions of the compiled entry computation that do work: fusions, reductions, calls.
    """

    step_ms: list[float]
    compile_s: float
    temporary_bytes: int
    accessed_bytes: int
    necessary_bytes: int
    kernels: int
    device_ms: list[float] = dataclasses.field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """The median step time."""
        return statistics.median(self.step_ms)

    @property
    def min_ms(self) -> float:
        """The shortest step time."""
        return min(self.step_ms)


@dataclasses.dataclass
class _Running:
    """A compiled step, and where its training stands."""

    step: Callable[..., Any]
    params: Any
    state: Any
    grads: Any

    def run(self, steps: int) -> Any:
        """Start some steps, and return what the last one results in without waiting for it."""
        for _ in range(steps):
            self.params, self.state = self.step(self.params, self.state, self.grads)
        return self.params, self.state


def _compile(lowered: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    return lowered.compile(), time.perf_counter() - start


def measure(
    shapes: Mapping[str, Shape],
    dtype: str,
    *,
    repeats: int,
    names: Sequence[str],
    steps: int = 1,
    device_repeats: int = 0,
    compilers: int = 1,
) -> dict[str, Measurement]:
    """Measure the named contenders on a tree of the given shapes, in turns.

    Args:
      shapes: The shapes of the tree's leaves.
      dtype: The type of parameters and gradients.
      repeats: How many turns each contender has, and so how many times its row holds.
      names: The contenders.
      steps: How many steps a turn is, of which the last is waited for. A time is a turn's divided by this.
      device_repeats: How many turns each contender has in the profiler besides, for the time that a GPU takes.
      compilers: How many steps are compiled at a time; with more than 1, each takes longer.
    """
    keys = iter(jax.random.split(jax.random.key(0), 2 * len(shapes)))
    params = {name: 0.1 * jax.random.normal(next(keys), shape, dtype) for name, shape in shapes.items()}
    grads = {name: 0.01 * jax.random.normal(next(keys), shape, dtype) for name, shape in shapes.items()}
    grads_by_scale = {
        scale: jax.tree.map(lambda grad, scale=scale: scale * grad, grads)
        for scale in {CONTENDERS[name].grads_scale for name in names}
    }
    starts: dict[str, Any] = {}
    lowered: dict[str, Any] = {}
    for name in names:
        init, step = CONTENDERS[name].make()
        g = grads_by_scale[CONTENDERS[name].grads_scale]
        p, g = (init(params), init(g)) if name == FLOOR else (jax.tree.map(jnp.copy, params), g)
        axis = CONTENDERS[name].stacked_axis
        if axis is not None:
            p, g = (stack_layers(tree, lambda leaves, axis=axis: jnp.stack(leaves, axis)) for tree in (p, g))
        state = init(params if name == FLOOR else p)
        starts[name] = p, state, g
        lowered[name] = jax.jit(step, donate_argnums=(0, 1)).lower(p, state, g)
    rows: dict[str, Measurement] = {}
    running: dict[str, _Running] = {}
    with ThreadPoolExecutor(compilers) as pool:
        for name, (compiled, compile_s) in zip(names, pool.map(_compile, lowered.values()), strict=True):
            memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
            rows[name] = Measurement(
                step_ms=[],
                compile_s=compile_s,
                temporary_bytes=memory.temp_size_in_bytes,
                accessed_bytes=int(cost.get("bytes accessed", 0)) if cost else 0,
                necessary_bytes=memory.argument_size_in_bytes + memory.output_size_in_bytes,
                kernels=count_kernels(compiled.as_text()),
            )
            running[name] = _Running(compiled, *starts.pop(name))
    for row in running.values():
        jax.block_until_ready(row.run(1))  # warm up
    order = np.random.default_rng(0)
    for _ in range(repeats):
        for name in order.permutation(list(running)):
            start = time.perf_counter()
            jax.block_until_ready(running[name].run(steps))
            rows[name].step_ms.append(1e3 * (time.perf_counter() - start) / steps)
    for _ in range(device_repeats):
        for name in order.permutation(list(running)):
            rows[name].device_ms.append(measure_device_ms(partial(running[name].run, steps)) / steps)
    return rows


# What stands in a compiled program without work of its own.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier"}


def count_kernels(program: str) -> int:
    """Count the operations of a compiled program's entry computation that do work."""
    return sum(count for operation, count in count_operations(program).items() if operation not in _FREE)


def count_operations(program: str) -> Counter[str]:
    """Count the operations of a compiled program's entry computation by their names."""
    entry = program[program.index("\nENTRY ") :]
    return Counter(re.findall(r"^  (?:ROOT )?%?[\w.\-]+ = .*?[\])}] ([a-z][\w\-]*)\(", entry, flags=re.MULTILINE))
