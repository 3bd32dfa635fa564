"""How far SGD and LARS move each layer of a network in a step, for docs/lars.md."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

import optax_ext
from docs.draw.style import WIDTH, colors

WIDTHS = (64, 128, 128, 256, 256, 512, 512, 10)
SGD_RATE, LARS_RATE = 0.1, 4.0


@functools.cache
def _moved() -> dict[str, list[float]]:
    """Return the norm of the first step of each layer, in parts of the norm of the layer."""
    random = np.random.default_rng(0)
    params = {
        f"layer {index}": jnp.asarray(random.normal(size=shape) / shape[0] ** 0.5, jnp.float32)
        for index, shape in enumerate(zip(WIDTHS, WIDTHS[1:], strict=False), 1)
    }
    inputs = jnp.asarray(random.normal(size=(256, WIDTHS[0])), jnp.float32)
    labels = jnp.asarray(random.integers(WIDTHS[-1], size=256))

    def loss_fn(params: dict[str, jax.Array]) -> jax.Array:
        x = inputs
        for index, kernel in enumerate(params.values(), 1):
            x = x @ kernel if index == len(params) else jax.nn.relu(x @ kernel)
        return optax.softmax_cross_entropy_with_integer_labels(x, labels).mean()

    grads = jax.jit(jax.grad(loss_fn))(params)
    moved: dict[str, list[float]] = {}
    for name, tx in {"SGD": optax.sgd(SGD_RATE), "LARS": optax_ext.lars(LARS_RATE, weight_decay=1e-4)}.items():
        updates, _ = tx.update(grads, tx.init(params), params)
        moved[name] = [float(jnp.linalg.norm(updates[key]) / jnp.linalg.norm(params[key])) for key in params]
    return moved


def draw(dark: bool) -> Figure:
    """Draw both for each layer, the input at the top."""
    moved, curves = _moved(), colors(dark).colors
    layers = np.arange(1, len(WIDTHS))
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    panel = figure.subplots()
    panel.grid(axis="y")
    panel.plot(moved["SGD"], layers, "o", color=curves[1], label=f"SGD, rate {SGD_RATE:g}")
    panel.plot(moved["LARS"], layers, "o", color=curves[0], label=f"LARS, rate {LARS_RATE:g}")
    panel.set_xscale("log")
    panel.set_xlim(4e-4, 8e-3)
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xticks([0.0005, 0.001, 0.002, 0.004, 0.008], ["0.0005", "0.001", "0.002", "0.004", "0.008"])
    panel.set_yticks(layers, [f"layer {layer}" for layer in layers])
    panel.invert_yaxis()
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.set_title("first step of a layer, in parts of its norm")
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
