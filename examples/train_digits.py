"""Train a convolutional network on handwritten digits in float16: LARS, warm-up, cosine decay, dynamic loss scaling.

The optimizer is a recipe, digits.yaml. A step whose gradients overflow float16 is skipped, and so is a bad batch: the
batch of step 150 is NaN, and a second training, which skips nothing, shows what it does there. Other steps, or none:

    python examples/train_digits.py --inject-nan 50 100
    python examples/train_digits.py --inject-nan
"""
# ruff: noqa: E402

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

RECIPE = Path(__file__).with_name("digits.yaml")
EPOCHS = 20
BATCH_SIZE = 128
NAN_STEPS = (150,)

PARSER = argparse.ArgumentParser(description="Train a convolutional network on handwritten digits in float16.")
PARSER.add_argument("--recipe", type=Path, default=RECIPE, metavar="FILE", help="the optimizer (%(default)s)")
PARSER.add_argument("--epochs", type=int, default=EPOCHS, metavar="N", help="passes over the images (%(default)s)")
PARSER.add_argument(
    "--inject-nan",
    type=int,
    nargs="*",
    default=NAN_STEPS,
    metavar="STEP",
    help="put NaN in place of the batches of these steps, counted from 0 (150; none without a STEP)",
)
PARSER.add_argument("--output", type=Path, default=Path("outputs"), metavar="DIR", help="for digits.png (%(default)s)")

if __name__ == "__main__":
    PARSER.parse_args()  # here, so that --help and a wrong argument do not wait for the imports below

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import optax_ext
from optax_ext import config


def load_optimizer(path: Path, *, skip: bool = True) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Read a recipe: the optimizer inside its loss scaling, and the learning rate by itself, to report it.

    Without `skip`, the loss scale is fixed, and gradients are applied whatever they are.
    """
    recipe = config.load(path, config.OptimizationConfig)
    if recipe.loss_scale is None:
        raise config.ConfigError(str(path), [config.Problem("loss_scale", "is required by this script")])
    if not skip:
        recipe = dataclasses.replace(recipe, loss_scale=config.FixedLossScale(2.0**15, skip_nonfinite=False))
    return recipe.make(), recipe.learning_rate_at


class Data(NamedTuple):
    """The digits: images of shape (n, 8, 8, 1) in [0, 1], labels from 0 to 9."""

    images: np.ndarray
    test_images: np.ndarray
    labels: np.ndarray
    test_labels: np.ndarray

    @property
    def steps_per_epoch(self) -> int:
        """How many full batches there are; what is left of the shuffled images waits for the next epoch."""
        return len(self.images) // BATCH_SIZE


def load_data() -> Data:
    """Return the digits that come with scikit-learn, a fifth of each class for the test."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32).reshape(-1, 8, 8, 1) / 16  # the brightest pixel is 16
    return Data(*map(np.asarray, train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)))


class Network(nn.Module):
    """Two convolutions and a classifier that compute in float16, with parameters and statistics in float32."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Return the logits, in float32: then the loss is exact, and its scaled gradient meets float16 only here."""
        x = images
        for features in (32, 64):
            x = nn.Conv(features, (3, 3), use_bias=False, dtype=jnp.float16)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=jnp.float16)(x)
            x = nn.avg_pool(nn.relu(x), (2, 2), strides=(2, 2))
        return nn.Dense(10, dtype=jnp.float16)(x.reshape(len(x), -1)).astype(jnp.float32)


class State(NamedTuple):
    """All that a step changes."""

    params: Any
    batch_stats: Any
    opt_state: Any


class Metrics(NamedTuple):
    """What a step was done with and came to; of one step, or stacked of all."""

    loss: Any
    accuracy: Any
    learning_rate: Any
    loss_scale: Any
    skipped: Any


@functools.partial(jax.jit, static_argnames=("optimizer", "schedule"), donate_argnames="state")
def train_step(
    state: State,
    images: jax.Array,
    labels: jax.Array,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
) -> tuple[State, Metrics]:
    """Take one step, or skip it if a gradient is not finite."""
    params, batch_stats, opt_state = state

    def loss_fn(params: Any) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": batch_stats}
        logits, changed = Network().apply(variables, images, train=True, mutable=["batch_stats"])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, (jnp.mean(logits.argmax(-1) == labels), changed["batch_stats"])

    (loss, (accuracy, new_batch_stats)), grads = optax_ext.value_and_grad(loss_fn, opt_state, has_aux=True)(params)
    updates, new_opt_state = optimizer.update(grads, opt_state, params)
    new_params = optax.apply_updates(params, updates)

    # A skipped step leaves parameters and optimizer as they were. The batch statistics are ours to keep: those of
    # one bad batch would spoil every evaluation from then on.
    applied = optax_ext.metrics(new_opt_state)["consecutive_skips"] == 0
    new_batch_stats = optax.tree.where(applied, new_batch_stats, batch_stats)

    applied_steps = optax.tree.get(opt_state, "count")  # what the schedule goes by: a skipped step does not count
    loss_scale = optax.tree.get(opt_state, "loss_scale")
    metrics = Metrics(loss, accuracy, schedule(applied_steps), loss_scale, ~applied)
    return State(new_params, new_batch_stats, new_opt_state), metrics


@jax.jit
def evaluate(state: State, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the accuracy with the running statistics."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits: Any = Network().apply(variables, images, train=False)
    return jnp.mean(logits.argmax(-1) == labels)


class Result(NamedTuple):
    """A finished training."""

    state: State
    history: Metrics
    test_accuracies: Sequence[float]  # after each epoch
    nan_steps: Sequence[int]

    @property
    def nan_skips(self) -> np.ndarray:
        """The steps that were skipped for their batch."""
        return np.intersect1d(np.flatnonzero(self.history.skipped), self.nan_steps)

    @property
    def overflow_skips(self) -> np.ndarray:
        """The steps that were skipped although their batch was good: the loss scale was too large for float16."""
        return np.setdiff1d(np.flatnonzero(self.history.skipped), self.nan_steps)

    @property
    def broken_at(self) -> int | None:
        """The first step from which on the loss is NaN to the end; None if the last one is a number."""
        finite = np.flatnonzero(np.isfinite(self.history.loss))
        last = int(finite[-1]) if finite.size else -1
        return None if last == len(self.history.loss) - 1 else last + 1

    @property
    def growths(self) -> int:
        """How many times the loss scale grew."""
        return int(np.sum(np.diff(self.history.loss_scale) > 0))


def train(
    data: Data,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    epochs: int = EPOCHS,
    nan_steps: Sequence[int] = (),
    seed: int = 0,
    name: str = "training",
) -> Result:
    """Train from scratch, with NaN in place of the batches of `nan_steps`."""
    variables = Network().init(jax.random.key(seed), data.images[:1], train=False)
    state = State(variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))
    random = np.random.default_rng(seed)
    history: list[Metrics] = []
    test_accuracies: list[float] = []

    with tqdm(total=epochs * data.steps_per_epoch, unit="step", desc=name) as progress:
        for _ in range(epochs):
            shuffled = random.permutation(len(data.images))[: data.steps_per_epoch * BATCH_SIZE]
            for batch in shuffled.reshape(-1, BATCH_SIZE):
                images = data.images[batch]
                if len(history) in nan_steps:
                    images = np.full_like(images, np.nan)
                state, metrics = train_step(state, images, data.labels[batch], optimizer, schedule)
                history.append(jax.device_get(metrics))
                progress.set_postfix_str(describe(history[-1]), refresh=False)
                progress.update()
            test_accuracies.append(float(evaluate(state, data.test_images, data.test_labels)))

    return Result(state, jax.tree.map(lambda *steps: np.stack(steps), *history), test_accuracies, nan_steps)


def describe(metrics: Metrics) -> str:
    """Put the metrics of one step into words."""
    return (
        f"loss {metrics.loss:.4f}, accuracy {metrics.accuracy:.1%}, learning rate {metrics.learning_rate:.3f}, "
        f"loss scale 2**{np.log2(metrics.loss_scale):.0f}"
    )


def tabulate(result: Result, unguarded: Result | None) -> Table:
    """Tell what came of the training, and of the one that skipped nothing."""
    history = result.history
    are_finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.state))

    table = Table("handwritten digits in float16", "")
    table.add_row("test accuracy", f"{result.test_accuracies[-1]:.2%}")
    table.add_row("steps", f"{len(history.loss)}")
    table.add_row("skipped: float16 overflow", ", ".join(map(str, result.overflow_skips)) or "none")
    table.add_row("skipped: NaN in the batch", ", ".join(map(str, result.nan_skips)) or "none")
    table.add_row("loss scale", f"from 2**{np.log2(history.loss_scale[0]):.0f}, grown {result.growths} times")
    table.add_row("last loss scale", f"2**{np.log2(history.loss_scale[-1]):.0f}")
    table.add_row("parameters and statistics", "finite" if are_finite else "not finite")
    if unguarded:
        table.add_row("without skipping, test accuracy", f"{unguarded.test_accuracies[-1]:.2%}")
        end = "finite" if unguarded.broken_at is None else f"NaN from step {unguarded.broken_at} on"
        table.add_row("without skipping, loss", end)
    return table


BLUE, ORANGE, GREEN, LINES = "#0072b2", "#d55e00", "#009e73", "#d8dee4"


def plot(result: Result, unguarded: Result | None) -> Figure:
    """Draw loss, test error, learning rate and loss scale over the steps, one below the other."""
    history = result.history
    steps = np.arange(len(history.loss))
    epoch_ends = steps.reshape(len(result.test_accuracies), -1)[:, -1]
    marks = (
        (result.overflow_skips, "v", GREEN, "skipped: float16 overflow"),
        (result.nan_skips, "X", ORANGE, "skipped: NaN in the batch"),
    )

    figure = Figure(figsize=(7.6, 8), dpi=200, layout="constrained")
    loss, error, learning_rate, loss_scale = panels = figure.subplots(4, sharex=True, height_ratios=[3, 3, 2, 2])
    if unguarded:
        loss.semilogy(steps, unguarded.history.loss, color=ORANGE, linewidth=3, alpha=0.5, label="without skipping")
        error.plot(epoch_ends, 1 - np.array(unguarded.test_accuracies), ".-", color=ORANGE, linewidth=3, alpha=0.5)
    loss.semilogy(steps, history.loss, color=BLUE, label="with dynamic loss scaling")
    error.plot(epoch_ends, 1 - np.array(result.test_accuracies), ".-", color=BLUE)
    learning_rate.plot(steps, history.learning_rate, color=BLUE)
    loss_scale.step(steps, history.loss_scale, where="post", color=BLUE)
    for skipped, marker, color, label in marks:
        if skipped.size:
            loss_scale.plot(skipped, history.loss_scale[skipped], marker, color=color, markersize=8, label=label)
        for panel in panels:
            for step in skipped:
                panel.axvline(step, color=color, alpha=0.7, linewidth=0.8, linestyle=":", zorder=0)

    if unguarded and unguarded.broken_at is not None:
        middle = (unguarded.broken_at + steps[-1]) / 2
        style: dict[str, Any] = {"color": ORANGE, "ha": "center", "va": "center"}
        loss.text(middle, 0.85, "without skipping: NaN", transform=loss.get_xaxis_transform(), **style)
        worst = 1 - unguarded.test_accuracies[-1]
        error.annotate(f"{worst:.0%}", (middle, worst), (0, -10), textcoords="offset points", **style)
    final = 1 - result.test_accuracies[-1]
    error.annotate(
        f"{final:.2%}", (steps[-1], final), (0, 20), textcoords="offset points", ha="right", va="bottom", color=BLUE
    )
    error.set_yscale("symlog", linthresh=0.01, linscale=0.4)  # to 0, for one image of 360 is 0.28 %
    error.set_ylim(0, 1)
    error.set_yticks([0, 0.01, 0.1, 1])
    error.yaxis.set_major_formatter("{x:.0%}")
    learning_rate.set_ylim(bottom=0)
    loss_scale.set_yscale("log", base=2)
    loss_scale.set_xlabel("step")
    titles = ("training loss", "error on test images after each epoch", "learning rate", "loss scale")
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, loc="left", fontweight="bold", fontsize="medium")
        panel.spines[["top", "right"]].set_visible(False)
        panel.minorticks_off()
        panel.set_xlim(0, len(steps))
        panel.grid(axis="y", color=LINES)
        if panel.get_legend_handles_labels()[0]:  # above the panel, where no line is
            panel.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncols=2, frameon=False)
    return figure


def main(argv: Sequence[str] | None = None) -> tuple[Result, Result | None]:
    """Run the command line; return the training, and the one that skipped nothing."""
    arguments = PARSER.parse_args(argv)

    data = load_data()
    steps = arguments.epochs * data.steps_per_epoch
    if arguments.epochs < 1:
        PARSER.error(f"--epochs must be at least 1, got {arguments.epochs}")
    for step in arguments.inject_nan:
        if not 0 <= step < steps:
            PARSER.error(f"--inject-nan must be a step from 0 to {steps - 1}, got {step}")
    try:
        optimizer, schedule = load_optimizer(arguments.recipe)
    except config.ConfigError as error:
        PARSER.error(str(error))
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        PARSER.error(f"--output {arguments.output}: {error}")

    run = functools.partial(train, data, epochs=arguments.epochs, nan_steps=arguments.inject_nan)
    result = run(optimizer, schedule)
    unguarded = None
    if arguments.inject_nan:
        unguarded = run(*load_optimizer(arguments.recipe, skip=False), name="without skipping")

    picture = arguments.output / "digits.png"
    plot(result, unguarded).savefig(picture)
    console = Console()
    console.print(tabulate(result, unguarded))
    console.print(f"The curves are in {picture}.")
    return result, unguarded


if __name__ == "__main__":
    main()
