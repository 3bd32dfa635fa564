"""Train a GAN in float16 with two loss scales: a network whose gradients overflow is skipped, and the other moves on.

The data are eight Gaussians in a ring, and the generator is to find all of them:

    python examples/gan.py
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import optax_ext

STEPS, BATCH_SIZE, NOISE, WIDTH = 1000, 256, 8, 32
ANGLES = np.arange(8) * np.pi / 4
CENTERS, SPREAD = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32), 0.1
optimizer = optax_ext.dynamic_loss_scaling(optax.adam(3e-3, b1=0.5), growth_steps=200)  # 2000 in a long run
Params = list[dict[str, jax.Array]]


class Player(NamedTuple):
    """One of the two networks, and the state of its optimizer, in which its own loss scale is."""

    params: Params
    opt_state: optax.OptState


def make_player(random: np.random.Generator, sizes: tuple[int, ...]) -> Player:
    """Make a network of dense layers, with parameters in float32."""
    params: Params = []
    for inputs, outputs in itertools.pairwise(sizes):
        kernel = random.standard_normal((inputs, outputs), np.float32) * (2 / inputs) ** 0.5
        params.append({"kernel": jnp.asarray(kernel), "bias": jnp.zeros(outputs)})
    return Player(params, optimizer.init(params))


@jax.jit
def apply(params: Params, x: Any) -> jax.Array:
    """Return the output of dense layers, in float32; all before it is in float16."""
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), (params, x))
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return (x @ params[-1]["kernel"] + params[-1]["bias"]).astype(jnp.float32)


def generator_loss(generator: Params, discriminator: Params, noise: jax.Array) -> jax.Array:
    """Return a loss that falls as the discriminator takes the points of the generator for data."""
    return jax.nn.softplus(-apply(discriminator, apply(generator, noise))).mean()


def discriminator_loss(discriminator: Params, generator: Params, noise: jax.Array, data: jax.Array) -> jax.Array:
    """Return a loss that falls as the discriminator tells data from the points of the generator."""
    made, real = apply(discriminator, apply(generator, noise)), apply(discriminator, data)
    return (jax.nn.softplus(made) + jax.nn.softplus(-real)).mean()


def move(player: Player, loss_fn: Any, *inputs: Any) -> Player:
    """Take one step of one network, or skip it, by the scale and the gradients of this network alone."""
    _, grads = optax_ext.value_and_grad(loss_fn, player.opt_state)(player.params, *inputs)
    updates, opt_state = optimizer.update(grads, player.opt_state, player.params)
    params: Any = optax.apply_updates(player.params, updates)
    return Player(params, opt_state)


@functools.partial(jax.jit, donate_argnames=("generator", "discriminator"))
def train_step(generator: Player, discriminator: Player, noise: Any, data: Any) -> tuple[Player, Player]:
    """Move both networks, each against the other as it was before."""
    moved = move(generator, generator_loss, discriminator.params, noise)
    return moved, move(discriminator, discriminator_loss, generator.params, noise, data)


def sample(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return noise for the generator, and as many points of the data."""
    centers = CENTERS[random.integers(len(CENTERS), size=BATCH_SIZE)]
    points = centers + np.float32(SPREAD) * random.standard_normal((BATCH_SIZE, 2), np.float32)
    return random.standard_normal((BATCH_SIZE, NOISE), np.float32), points


def count_modes(points: Any) -> np.ndarray:
    """Return for each Gaussian how many points lie within three standard deviations of its center."""
    distances = np.linalg.norm(np.asarray(points)[:, None] - CENTERS, axis=2)
    return (distances < 3 * SPREAD).sum(axis=0)


def main() -> tuple[Player, Player]:
    """Train, and print how many points the generator puts where, and how each loss scale fared."""
    random = np.random.default_rng(0)
    generator = make_player(random, (NOISE, WIDTH, WIDTH, 2))
    discriminator = make_player(random, (2, WIDTH, WIDTH, 1))
    for _ in range(STEPS):
        generator, discriminator = train_step(generator, discriminator, *sample(random))
    counts = count_modes(apply(generator.params, random.standard_normal((1000, NOISE), np.float32)))
    print(f"{counts.sum()} of 1000 points lie near the eight centers: {', '.join(map(str, counts))}")
    for name, player in {"generator": generator, "discriminator": discriminator}.items():
        last = optax_ext.metrics(player.opt_state)
        print(f"{name}: loss scale {last['loss_scale']:.0f}, skipped steps {last['skipped_steps']}")
    return generator, discriminator


if __name__ == "__main__":
    main()
