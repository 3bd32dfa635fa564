"""The loss scale of a training in float16, and the gradients that it scales, for docs/loss_scaling.md."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

import optax_ext
from docs.draw.style import ALARM, WIDTH, colors

STEPS, BAD_STEP = 300, 240
LIMITS = {65504.0: "infinite\nabove", 2.0**-14: "digits lost\nbelow", 2.0**-24: "0 below"}  # of float16


def _loss_fn(params: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), (params, inputs))
    for kernel in params:
        x = x @ kernel if kernel.shape[1] == 1 else jax.nn.relu(x @ kernel)
    return jnp.mean((x.astype(jnp.float32) - targets) ** 2)


@functools.cache
def _history() -> dict[str, np.ndarray]:
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = ((16, 64), (64, 64), (64, 64), (64, 1))
    params = [
        jax.random.normal(key, shape) * (2 / shape[0]) ** 0.5 for key, shape in zip(keys[1:], shapes, strict=True)
    ]
    inputs = jax.random.normal(keys[0], (512, 16))
    targets = jnp.sin(inputs[:, :1]) + inputs[:, 1:2] * inputs[:, 2:3]
    schedule = optax_ext.LinearWarmup(optax_ext.CosineDecay(3e-3, STEPS), warmup_steps=20)
    tx = optax_ext.dynamic_loss_scaling(optax.adam(schedule), growth_steps=15)

    @jax.jit
    def train_step(params: Any, state: Any, inputs: jax.Array) -> Any:
        _, grads = optax_ext.value_and_grad(_loss_fn, state)(params, inputs, targets)
        sizes = jnp.abs(jnp.concatenate([grad.ravel() for grad in grads]))
        smallest = jnp.nanquantile(jnp.where(sizes > 0, sizes, jnp.nan), 0.01)
        row = {"scale": state.loss_scale, "largest": sizes.max(), "smallest": smallest}
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, row | {"skipped": ~state.grads_finite}

    state, rows = tx.init(params), []
    for step in range(STEPS):
        batch = inputs.at[0, 0].set(jnp.nan) if step == BAD_STEP else inputs
        params, state, row = train_step(params, state, batch)
        rows.append(jax.device_get(row))
    return jax.tree.map(lambda *values: np.stack(values), *rows)


def draw(dark: bool) -> Figure:
    """Draw the scale, and the range of the gradients with it and without it."""
    history, alarm, theme = _history(), ALARM[dark], colors(dark)
    steps, skipped = np.arange(STEPS), np.flatnonzero(history["skipped"])
    overflows = skipped[skipped != BAD_STEP]
    figure = Figure(figsize=(WIDTH, 5.4), layout="constrained")
    scale, grads = figure.subplots(2, sharex=True, height_ratios=[2, 3])

    scale.step(steps, history["scale"], where="post")
    scale.set_yscale("log", base=2)
    scale.yaxis.set_major_locator(FixedLocator([2.0**power for power in range(14, 27, 3)]))
    scale.yaxis.set_minor_locator(NullLocator())
    scale.set_ylim(2.0**13.5, 2.0**25.8)
    scale.set_title("loss scale")
    marker = {"color": alarm, "linestyle": "", "clip_on": False, "zorder": 3}
    scale.plot(overflows, history["scale"][overflows], marker="v", label="skipped: a gradient overflowed", **marker)
    scale.plot(BAD_STEP, history["scale"][BAD_STEP], marker="X", label="skipped: a NaN in the batch", **marker)
    scale.legend(loc="upper left", bbox_to_anchor=(0.02, 1))

    applied = np.flatnonzero(~history["skipped"])
    largest, smallest = (np.interp(steps, applied, history[name][applied]) for name in ("largest", "smallest"))
    for factor, color, alpha in ((1, theme.colors[0], 0.45), (1 / history["scale"], theme.ink, 0.2)):
        grads.fill_between(steps, factor * smallest, factor * largest, color=color, alpha=alpha, linewidth=0)
    inside = {"ha": "left", "va": "center"}
    grads.text(10, 2e2, "with the loss scale", **inside)
    grads.text(10, 4e-3, "without", **inside)
    for limit, what in LIMITS.items():
        grads.axhline(limit, color=alarm, linewidth=1)
        grads.text(STEPS + 3, limit, what, color=alarm, va="center", fontsize=9)
    grads.set_yscale("log")
    grads.yaxis.set_major_locator(LogLocator(numticks=8))
    grads.yaxis.set_minor_locator(NullLocator())
    grads.set_ylim(1e-8, 1e6)
    grads.set_title("size of 99 % of the gradients")
    grads.set_xlabel("step")
    grads.set_xlim(0, STEPS)
    return figure
