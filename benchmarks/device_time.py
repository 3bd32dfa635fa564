"""How long a GPU works on steps, by the profiler: its host may take longer to start a step than the GPU to run it."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp


def measure_device_ms(start: Callable[[], Any]) -> float:
    """Return the milliseconds from the first kernel's start to the last one's end, without what the host takes.

    The GPU is kept busy at first, with one product of large matrices, so that `start` has queued its work before the
    GPU comes to it. The pauses that are left between kernels are the GPU's own.

    Args:
      start: Starts the work and returns its results, without waiting for them.

    Raises:
      RuntimeError: There is no GPU.
    """
    if jax.default_backend() != "gpu":
        raise RuntimeError(f"the time of a device alone is measured on a GPU, not on a {jax.default_backend()}")
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = options.host_tracer_level = 0
    options.enable_hlo_proto = False  # of every program there is, which takes a second to write
    keep_busy, matrix = _make_product()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            jax.block_until_ready((keep_busy(matrix), start()))
        (file,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_serialized_xspace(file.read_bytes())
    kernels = [
        (event.start_ns, event.start_ns + event.duration_ns)
        for plane in profile.planes
        if plane.name.startswith("/device:GPU")
        for line in plane.lines
        if line.name.startswith("Stream")
        for event in line.events
    ]
    _, product_end = max(kernels, key=lambda kernel: kernel[1] - kernel[0])
    kernels = [kernel for kernel in kernels if kernel[0] >= product_end]
    return (max(end for _, end in kernels) - min(start for start, _ in kernels)) / 1e6


@functools.cache
def _make_product() -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
    """Return a function that one H100 spends some 100 ms on, in one kernel, and its argument."""
    matrix = jnp.ones((14_336, 14_336), jnp.float32)
    product = jax.jit(lambda matrix: jnp.dot(matrix, matrix, precision=jax.lax.Precision.HIGHEST))
    return product.lower(matrix).compile(), matrix
