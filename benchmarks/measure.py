"""How a step is measured: compiled once, then run in turns with the others."""

import dataclasses
import re
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contenders import CONTENDERS, FLOOR
from benchmarks.trees import Shape, stack_layers


@dataclasses.dataclass
class Measurement:
    """One row of the table.

    Attributes:
      step_ms: The times of the steps in milliseconds, in the order they were run.
      compile_s: Seconds from a lowered step to an executable.
      temporary_bytes: The most memory that XLA plans for, beyond arguments and results.
      accessed_bytes: What XLA counts as read and written.
      necessary_bytes: Arguments and results: what no such step can help reading and writing.
      kernels: Instructions of the compiled entry computation that do work: fusions, reductions, calls.
    """

    step_ms: list[float]
    compile_s: float
    temporary_bytes: int
    accessed_bytes: int
    necessary_bytes: int
    kernels: int

    @property
    def median_ms(self) -> float:
        """The median step time."""
        return statistics.median(self.step_ms)

    @property
    def min_ms(self) -> float:
        """The shortest step time."""
        return min(self.step_ms)


def measure(shapes: Mapping[str, Shape], dtype: str, *, repeats: int, names: Sequence[str]) -> dict[str, Measurement]:
    """Measure the named contenders on a tree of the given shapes, step after step in turns."""
    keys = iter(jax.random.split(jax.random.key(0), 2 * len(shapes)))
    params = {name: 0.1 * jax.random.normal(next(keys), shape, dtype) for name, shape in shapes.items()}
    grads = {name: 0.01 * jax.random.normal(next(keys), shape, dtype) for name, shape in shapes.items()}
    grads_by_scale = {
        scale: jax.tree.map(lambda grad, scale=scale: scale * grad, grads)
        for scale in {CONTENDERS[name].grads_scale for name in names}
    }
    rows: dict[str, Measurement] = {}
    running: dict[str, list[Any]] = {}
    for name in names:
        init, step = CONTENDERS[name].make()
        g = grads_by_scale[CONTENDERS[name].grads_scale]
        p, g = (init(params), init(g)) if name == FLOOR else (jax.tree.map(jnp.copy, params), g)
        axis = CONTENDERS[name].stacked_axis
        if axis is not None:
            p, g = (stack_layers(tree, lambda leaves, axis=axis: jnp.stack(leaves, axis)) for tree in (p, g))
        state = init(params if name == FLOOR else p)
        lowered = jax.jit(step, donate_argnums=(0, 1)).lower(p, state, g)
        start = time.perf_counter()
        compiled = lowered.compile()
        compile_s = time.perf_counter() - start
        memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
        rows[name] = Measurement(
            step_ms=[],
            compile_s=compile_s,
            temporary_bytes=memory.temp_size_in_bytes,
            accessed_bytes=int(cost.get("bytes accessed", 0)) if cost else 0,
            necessary_bytes=memory.argument_size_in_bytes + memory.output_size_in_bytes,
            kernels=count_kernels(compiled.as_text()),
        )
        p, state = compiled(p, state, g)  # warm up
        running[name] = [compiled, jax.block_until_ready(p), state, g]
    order = np.random.default_rng(0)
    for _ in range(repeats):
        for name in order.permutation(list(running)):
            compiled, p, state, g = running[name]
            start = time.perf_counter()
            p, state = jax.block_until_ready(compiled(p, state, g))
            rows[name].step_ms.append(1e3 * (time.perf_counter() - start))
            running[name][1:3] = p, state
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
