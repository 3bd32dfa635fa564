"""Log a training to TensorBoard, and draw the trust ratio of each layer.

The network is residual, in float16, and keeps its eight blocks in one array, as `jax.lax.scan` takes them:

    python examples/log_training.py
    tensorboard --logdir outputs/log_training
"""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MultipleLocator
from sklearn.datasets import load_digits
from tensorboardX import SummaryWriter

import optax_ext

STEPS, BATCH_SIZE = 300, 256
WIDTH, BLOCKS = 64, 8
Params = dict[str, dict[str, jax.Array]]
Metrics = dict[str, Any]  # of one step, or stacked of all

schedule = optax_ext.LinearWarmup(
    optax_ext.CosineDecay(initial_learning_rate=8.0, decay_steps=STEPS - 50, offset=50), warmup_steps=50
)
no_biases = optax_ext.path_mask(exclude=["bias"])
optimizer = optax_ext.lars(
    schedule,
    weight_decay=1e-4,
    weight_decay_mask=no_biases,
    trust_ratio_mask=no_biases,
    stacked_axes=optax_ext.path_axes({"^blocks/": 0}),
    record=True,  # keeps the ratio and the norm of each layer, for metrics
)
optimizer = optax_ext.dynamic_loss_scaling(optimizer, growth_steps=40)  # 2000 is usual; 40 shows what an overflow does


def init_params(key: jax.Array) -> Params:
    """Return the parameters, in float32."""
    stem, blocks, head = jax.random.split(key, 3)
    return {
        "stem": {"kernel": jax.random.normal(stem, (64, WIDTH)) / 8},
        "blocks": {"kernel": jax.random.normal(blocks, (BLOCKS, WIDTH, WIDTH)) / WIDTH**0.5},
        "head": {"kernel": jax.random.normal(head, (WIDTH, 10)) / WIDTH**0.5, "bias": jnp.zeros(10)},
    }


def loss_fn(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy, in float32; all before it is in float16."""
    params, images = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), (params, images))

    def block(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, None]:
        return x + jax.nn.relu(jax.nn.standardize(x) @ kernel), None

    x, _ = jax.lax.scan(block, images @ params["stem"]["kernel"], params["blocks"]["kernel"])
    logits = jax.nn.standardize(x) @ params["head"]["kernel"] + params["head"]["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels).mean()


@functools.partial(jax.jit, donate_argnames=("params", "opt_state"))
def train_step(
    params: Params, opt_state: optax.OptState, images: jax.Array, labels: jax.Array
) -> tuple[Params, optax.OptState, Metrics]:
    """Take one step, or skip it if a gradient is non-finite; return what to log with what changed."""
    loss, grads = optax_ext.value_and_grad(loss_fn, opt_state)(params, images, labels)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    new: Any = optax.apply_updates(params, updates)
    return new, opt_state, {"loss": loss} | optax_ext.metrics(opt_state, schedule, per_layer=True)


def train(output: Path) -> Metrics:
    """Train, and write the metrics of each step for TensorBoard; return them, of all steps stacked."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32) / 16  # the brightest pixel is 16
    params = init_params(jax.random.key(0))
    opt_state = optimizer.init(params)
    random = np.random.default_rng(0)
    history: list[Metrics] = []
    with SummaryWriter(str(output)) as writer:
        for step in range(STEPS):
            batch = random.integers(len(images), size=BATCH_SIZE)
            noise = random.normal(scale=0.4, size=(BATCH_SIZE, 64)).astype(np.float32)  # no batch comes twice
            params, opt_state, logged = train_step(params, opt_state, images[batch] + noise, labels[batch])
            history.append(jax.device_get(logged))  # waits for the step: in a long run, do this every 100 steps
            for name, value in history[-1].items():
                writer.add_scalar(name, value, step)
    return jax.tree.map(lambda *steps: np.stack(steps), *history)


LAYERS = ["stem/kernel", *(f"blocks/kernel/{index}" for index in range(BLOCKS)), "head/kernel"]  # from the input on
LIGHT = ("#24292f", "#ffffff", "#d8dee4", "#8250df", "#bc4c00")  # ink, paper, lines behind, the head, what was skipped
DARK = ("#c9d1d9", "#0d1117", "#30363d", "#d2a8ff", "#ff9e64")


def plot(history: Metrics, *, dark: bool = False) -> Figure:
    """Draw the trust ratio of each layer, the norm of the gradients and the learning rate over the steps."""
    ink, paper, lines, head, alarm = DARK if dark else LIGHT
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style: dict[Any, Any] = {"figure.facecolor": paper, "axes.facecolor": paper, "grid.color": lines}
    style |= {"lines.linewidth": 1} | dict.fromkeys(inked, ink)
    shades = np.linspace(0.25, 1, len(LAYERS) - 1) if dark else np.linspace(0, 0.85, len(LAYERS) - 1)
    colors = [*colormaps["viridis"](shades), head]
    steps = np.arange(len(history["loss"]))
    skipped = np.flatnonzero(np.diff(history["skipped_steps"], prepend=0))

    with rc_context(style):
        figure = Figure(figsize=(7.6, 5.8), layout="constrained")
        ratio, norm, rate = panels = figure.subplots(3, sharex=True, height_ratios=[5, 2, 2])
        for name, color in zip(LAYERS, colors, strict=True):
            ratio.plot(steps, history[f"trust_ratio/{name}"], color=color, label=name)
        norm.plot(steps, np.where(history["grads_finite"], history["grad_norm"], np.nan), color=ink)
        heights = np.full(len(skipped), 0.9)  # in parts of the panel
        label = "skipped: a gradient overflowed float16"
        norm.plot(skipped, heights, "v", color=alarm, label=label, transform=norm.get_xaxis_transform())
        rate.plot(steps, history["learning_rate"], color=ink)
        for panel in (ratio, norm):
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:g}")
        titles = ("trust ratio of each layer", "norm of all gradients", "learning rate")
        for panel, title in zip(panels, titles, strict=True):
            panel.set_title(title, loc="left", fontweight="bold")
            panel.spines[["top", "right"]].set_visible(False)
            panel.minorticks_off()
            panel.set_xlim(0, len(steps))
            panel.grid(axis="y")
            for step in skipped:
                panel.axvline(step, color=alarm, linewidth=0.8, linestyle=":", zorder=0)
        handles, names = ratio.get_legend_handles_labels()
        ratio.legend(
            handles[::-1],
            names[::-1],
            title="output to input",
            alignment="left",
            loc="center left",
            bbox_to_anchor=(1, 0.5),
            frameon=False,
        )
        norm.legend(loc="lower right", bbox_to_anchor=(1, 0.95), borderaxespad=0, frameon=False)
        rate.set_ylim(0, 8.5)
        rate.yaxis.set_major_locator(MultipleLocator(2))
        rate.set_xlabel("step")
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path("outputs/log_training"), metavar="DIR", help="(%(default)s)"
    )
    output = parser.parse_args(argv).output
    history = train(output)
    plot(history).savefig(output / "layers.png", dpi=120)
    plot(history, dark=True).savefig(output / "layers_dark.png", dpi=120)
    print(f"loss {history['loss'][-1]:.4f}, {history['skipped_steps'][-1]} steps skipped; {output} has the curves")


if __name__ == "__main__":
    main()
