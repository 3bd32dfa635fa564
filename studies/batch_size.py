"""Batch size against test accuracy at a fixed number of epochs: five optimizers, each tuned by as many trials.

Every optimizer is tuned at every batch size by itself: quasi-random points, the same for all, are laid over its space,
and the point with the best accuracy on the validation set is trained again from other seeds and measured on the test
set.

    python -m studies.batch_size

A run that was cut short goes on where it stopped. `python -m docs.draw study_batch_size` draws the picture.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.stats import qmc

import optax_ext
from studies import network, results
from studies.data import Data, Examples, make_data


class Size(NamedTuple):
    """How much is trained."""

    train: int = 16_384
    held_out: int = 8_192  # each of the validation and the test set
    batch_sizes: tuple[int, ...] = (64, 256, 1024, 4096)
    epochs: int = 10
    trials: int = 24
    seeds: int = 8  # which must divide the trials


QUICK = Size(train=256, held_out=64, batch_sizes=(64,), epochs=2, trials=4, seeds=2)
TRUST_AND_DECAY = optax_ext.path_mask(exclude=["bias"])
CHANNELS, STRIDES = (16, 32, 32), (2, 2, 2)  # 6,346 parameters
WARMUPS = (0.02, 0.1, 0.3)  # the share of the steps
Rate = Callable[[Any], jax.Array]


class Optimizer(NamedTuple):
    """An optimizer made from rate, weight decay and one more number; the ranges of these, searched on a log scale."""

    make: Callable[[Rate, jax.Array, jax.Array], optax.GradientTransformation]
    learning_rate: tuple[float, float]
    weight_decay: tuple[float, float]
    other: tuple[float, float]
    other_name: str


def sgd(rate: Rate, decay: jax.Array, inertia: jax.Array) -> optax.GradientTransformation:
    """Return SGD with Nesterov's momentum."""
    return optax.chain(
        optax.add_decayed_weights(decay, TRUST_AND_DECAY), optax.sgd(rate, momentum=1 - inertia, nesterov=True)
    )


def lars(rate: Rate, decay: jax.Array, trust: jax.Array, separate_norms: bool) -> optax.GradientTransformation:
    """Return LARS."""
    return optax_ext.lars(
        rate,
        weight_decay=decay,
        trust_coefficient=trust,
        weight_decay_mask=TRUST_AND_DECAY,
        trust_ratio_mask=TRUST_AND_DECAY,
        separate_norms=separate_norms,
    )


def adamw(rate: Rate, decay: jax.Array, inertia: jax.Array) -> optax.GradientTransformation:
    """Return AdamW."""
    return optax.adamw(rate, b1=1 - inertia, weight_decay=decay, mask=TRUST_AND_DECAY)


def lamb(rate: Rate, decay: jax.Array, inertia: jax.Array) -> optax.GradientTransformation:
    """Return LAMB."""
    return optax_ext.lamb(
        rate,
        b1=1 - inertia,
        weight_decay=decay,
        weight_decay_mask=TRUST_AND_DECAY,
        trust_ratio_mask=TRUST_AND_DECAY,
    )


LARS_SPACE = ((1e-2, 1e1), (1e-6, 1e-2), (1e-3, 1e-1), "trust_coefficient")
OPTIMIZERS = {
    "sgd": Optimizer(sgd, (1e-3, 1.0), (1e-6, 1e-2), (0.03, 0.3), "1 - momentum"),
    "lars": Optimizer(functools.partial(lars, separate_norms=False), *LARS_SPACE),
    "lars_separate_norms": Optimizer(functools.partial(lars, separate_norms=True), *LARS_SPACE),
    "adamw": Optimizer(adamw, (1e-4, 1e-1), (1e-4, 1.0), (0.03, 0.3), "1 - b1"),
    "lamb": Optimizer(lamb, (1e-3, 1.0), (1e-4, 1.0), (0.03, 0.3), "1 - b1"),
}
TITLES = {
    "sgd": "Nesterov SGD",
    "lars": "LARS, norm of the sum",
    "lars_separate_norms": "LARS, separate norms",
    "adamw": "AdamW",
    "lamb": "LAMB",
}


class Point(NamedTuple):
    """What is searched: one number each, or an array of trials."""

    learning_rate: Any
    weight_decay: Any
    other: Any
    warmup: Any  # the index in WARMUPS


def choose_points(optimizer: Optimizer, trials: int) -> Point:
    """Lay Sobol's points, the same for every optimizer, over the space of this one."""
    cube = qmc.Sobol(4, seed=0).random_base2(int(np.ceil(np.log2(trials))))[:trials].T
    ranges = (optimizer.learning_rate, optimizer.weight_decay, optimizer.other)
    numbers = [low * (high / low) ** part for (low, high), part in zip(ranges, cube, strict=False)]
    return Point(*(np.float32(number) for number in numbers), np.int32(cube[3] * len(WARMUPS)))


def make_rate(point: Point, steps: int) -> Rate:
    """Return warm-up and cosine decay: the shapes are optax_ext's, and which of them, and its height, may be traced."""
    shapes = []
    for share in WARMUPS:
        warmup = max(1, round(share * steps))
        decay = optax_ext.CosineDecay(1.0, decay_steps=max(1, steps - warmup), offset=warmup)
        shapes.append(optax_ext.LinearWarmup(decay, warmup_steps=warmup))
    return lambda step: point.learning_rate * jnp.stack([shape(step + 1) for shape in shapes])[point.warmup]


def train(
    point: Point, seed: jax.Array, train: Examples, measured: Examples, *, optimizer: Optimizer, batch: int, epochs: int
) -> tuple[jax.Array, jax.Array]:
    """Train from scratch; return accuracy and loss on other examples."""
    steps_per_epoch = len(train.labels) // batch
    init_key, shuffle_key = jax.random.split(jax.random.key(seed))
    tx = optimizer.make(make_rate(point, epochs * steps_per_epoch), point.weight_decay, point.other)
    params = network.init_params(init_key, CHANNELS, STRIDES)

    def loss_fn(params: Any, chosen: jax.Array) -> jax.Array:
        logits = network.apply(params, train.signals[chosen], STRIDES)
        return network.cross_entropy(logits, train.labels[chosen])

    def train_epoch(state: Any, epoch: jax.Array) -> tuple[Any, None]:
        shuffled = jax.random.permutation(jax.random.fold_in(shuffle_key, epoch), len(train.labels))
        return jax.lax.scan(train_step, state, shuffled[: steps_per_epoch * batch].reshape(-1, batch))

    def train_step(state: Any, chosen: jax.Array) -> tuple[Any, None]:
        params, opt_state = state
        grads = jax.grad(loss_fn)(params, chosen)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.lax.scan(train_epoch, (params, tx.init(params)), jnp.arange(epochs))
    logits = network.apply(params, measured.signals, STRIDES)
    return jnp.mean(logits.argmax(-1) == measured.labels), network.cross_entropy(logits, measured.labels)


def make_train_many(optimizer: Optimizer, batch: int, epochs: int) -> Callable[..., Any]:
    """Return `train` of several points and seeds, compiled: as many at once as fill a processor's cache."""

    @jax.jit
    def train_many(points: Point, seeds: jax.Array, *examples: Examples) -> Any:
        def train_one(run: Any) -> Any:
            return train(*run, *examples, optimizer=optimizer, batch=batch, epochs=epochs)

        return jax.lax.map(train_one, (points, seeds), batch_size=max(1, min(len(seeds), 256 // batch)))

    return train_many


def study_cell(optimizer: Optimizer, batch: int, size: Size, data: Data) -> dict[str, Any]:
    """Tune one optimizer at one batch size, and train its best point from other seeds."""
    start = time.process_time()
    train_many = make_train_many(optimizer, batch, size.epochs)
    points, seeds = choose_points(optimizer, size.trials), size.seeds
    validation: list[float] = []
    for first in range(0, size.trials, seeds):  # as many at a time as there are seeds: one compiled program
        part = jax.tree.map(lambda numbers: numbers[first : first + seeds], points)  # noqa: B023
        accuracies, _ = train_many(part, jnp.zeros(seeds, int), data.train, data.validation)
        validation += accuracies.tolist()
    best = int(np.argmax(validation))
    repeated = jax.tree.map(lambda numbers: np.repeat(numbers[best], seeds), points)
    test, losses = train_many(repeated, 1 + jnp.arange(seeds), data.train, data.test)
    return {
        "points": {name: numbers.tolist() for name, numbers in points._asdict().items()},
        "validation": validation,
        "best": best,
        "test": test.tolist(),
        "test_loss": losses.tolist(),
        "cpu_seconds": round(time.process_time() - start, 1),
    }


def make_table(found: dict[str, Any]) -> str:
    """Return the test accuracies as a table in Markdown."""
    names = list(dict.fromkeys(cell.split()[0] for cell in found["cells"]))
    batches = sorted({int(cell.split()[1]) for cell in found["cells"]})
    lines = ["| batch size | " + " | ".join(TITLES[name] for name in names) + " |", "|--:" * (len(names) + 1) + "|"]
    for batch in batches:
        accuracies = (results.in_words(found["cells"][f"{name} {batch}"]["test"]) for name in names)
        lines.append(f"| {batch:,} | " + " | ".join(accuracies) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    arguments = results.read_arguments("batch_size", __doc__.splitlines()[0], argv)
    size = QUICK if arguments.quick else Size()
    setting = {"size": size._asdict(), "warmups": WARMUPS}
    found = results.load(arguments.output) or {"machine": results.describe_machine(), **setting, "cells": {}}
    data = make_data(size.train, size.held_out, size.held_out)
    for batch in size.batch_sizes:
        for name, optimizer in list(OPTIMIZERS.items())[: 1 if arguments.quick else None]:
            cell = f"{name} {batch}"
            if cell not in found["cells"]:
                found["cells"][cell] = study_cell(optimizer, batch, size, data)
                results.save(found, arguments.output)
            print(f"{cell}: {results.in_words(found['cells'][cell]['test'])} %", flush=True)


if __name__ == "__main__":
    main()
