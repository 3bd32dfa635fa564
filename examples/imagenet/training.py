"""A training step that never applies a non-finite gradient, and an evaluation that counts each image once."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import optax_ext
from examples.imagenet.data import PADDING
from examples.imagenet.model import ResNet
from optax_ext import config

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of the channels of ImageNet, from 0 to 255
LABEL_SMOOTHING = 0.1


def load_recipe(path: Path, overrides: Sequence[str], dtype: str) -> config.OptimizationConfig:
    """Read a recipe; add what `metrics` records of each layer, and for float16 a loss scale if it has none."""
    recipe = config.load(path, config.OptimizationConfig, overrides=overrides)
    if isinstance(recipe.optimizer, config.LARS | config.LAMB):
        recipe = dataclasses.replace(recipe, optimizer=dataclasses.replace(recipe.optimizer, record=True))
    if dtype == "float16" and recipe.loss_scale is None:
        recipe = dataclasses.replace(recipe, loss_scale=config.DynamicLossScale())
    return recipe


class State(NamedTuple):
    """All that a step changes."""

    params: Any
    batch_stats: Any
    opt_state: Any


@dataclasses.dataclass(frozen=True)
class Trainer:
    """A network with its recipe: compiled once for all that are equal."""

    network: ResNet
    recipe: config.OptimizationConfig

    @functools.cached_property
    def tx(self) -> optax.GradientTransformation:
        """The optimizer of the recipe, which skips steps with non-finite gradients, with a loss scale or without."""
        tx = self.recipe.make()
        return optax_ext.skip_bad_steps(tx) if self.recipe.loss_scale is None else tx

    @functools.partial(jax.jit, static_argnames=("self", "image_size", "sharding"))
    def init(self, key: jax.Array, image_size: int, sharding: jax.sharding.Sharding) -> State:
        """Return the state before the first step, on all devices."""
        variables = self.network.init(key, jnp.zeros((1, image_size, image_size, 3)), train=False)
        state = State(variables["params"], variables["batch_stats"], self.tx.init(variables["params"]))
        return jax.lax.with_sharding_constraint(state, sharding)

    @functools.partial(jax.jit, static_argnames="self", donate_argnames="state")
    def step(self, state: State, batch: dict[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        """Take one step, or skip it if a gradient is non-finite; return what to log with what changed."""
        params, batch_stats, opt_state = state
        images, labels = normalize(batch["image"]), batch["label"]
        targets = optax.smooth_labels(jax.nn.one_hot(labels, self.network.classes), LABEL_SMOOTHING)

        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, "batch_stats": batch_stats}
            logits, changed = self.network.apply(variables, images, train=True, mutable=["batch_stats"])
            accuracy = jnp.mean(logits.argmax(-1) == labels)
            return optax.softmax_cross_entropy(logits, targets).mean(), (accuracy, changed["batch_stats"])

        (loss, (accuracy, new_batch_stats)), grads = optax_ext.value_and_grad(
            loss_fn, opt_state, has_aux=True, missing_ok=True
        )(params)
        updates, opt_state = self.tx.update(grads, opt_state, params)
        metrics = optax_ext.metrics(opt_state, self.recipe, per_layer=True)
        # A skipped step leaves parameters and optimizer as they were; the batch statistics are ours to keep.
        batch_stats = optax.tree.where(metrics["consecutive_skips"] == 0, new_batch_stats, batch_stats)
        state = State(optax.apply_updates(params, updates), batch_stats, opt_state)
        return state, {"loss": loss, "accuracy": accuracy} | metrics

    @functools.partial(jax.jit, static_argnames="self")
    def evaluate(self, state: State, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Return how many images of a batch are classified correctly, and how many there are."""
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits: Any = self.network.apply(variables, normalize(batch["image"]), train=False)
        return jnp.sum(logits.argmax(-1) == batch["label"]), jnp.sum(batch["label"] != PADDING)


def normalize(images: jax.Array) -> jax.Array:
    """Turn pixels into numbers with mean 0 and deviation 1: on the device, where bytes arrive."""
    return (images.astype(jnp.float32) - jnp.array(MEAN)) / jnp.array(STD)
