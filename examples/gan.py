"""Train a GAN in float16 with two loss scales: a network whose gradients overflow is skipped, and the other moves on.

The data are eight Gaussians in a ring, and the generator is to find all of them:

    python examples/gan.py
"""

import functools
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


def make_player(key: jax.Array, sizes: tuple[int, ...]) -> Player:
    """Make a network of dense layers, with parameters in float32."""
    params: Params = []
    for k, inputs, outputs in zip(jax.random.split(key, len(sizes) - 1), sizes, sizes[1:], strict=False):
        kernel = jax.random.normal(k, (inputs, outputs)) * (2 / inputs) ** 0.5
        params.append({"kernel": kernel, "bias": jnp.zeros(outputs)})
    return Player(params, optimizer.init(params))


def apply(params: Params, x: jax.Array) -> jax.Array:
    """Return the output of dense layers, in float32; all before it is in float16."""
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), (params, x))
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return (x @ params[-1]["kernel"] + params[-1]["bias"]).astype(jnp.float32)


def generator_loss(generator: Params, discriminator: Params, noise: jax.Array) -> jax.Array:
    """Return a loss that falls as the discriminator takes what the generator makes for data."""
    return jax.nn.softplus(-apply(discriminator, apply(generator, noise))).mean()


def discriminator_loss(discriminator: Params, generator: Params, noise: jax.Array, data: jax.Array) -> jax.Array:
    """Return a loss that falls as the discriminator tells data from what the generator makes."""
    made, real = apply(discriminator, apply(generator, noise)), apply(discriminator, data)
    return (jax.nn.softplus(made) + jax.nn.softplus(-real)).mean()


def move(player: Player, loss_fn: Any, *inputs: Any) -> Player:
    """Take one step of one network, or skip it, by the scale and the gradients of this network alone."""
    _, grads = optax_ext.value_and_grad(loss_fn, player.opt_state)(player.params, *inputs)
    updates, opt_state = optimizer.update(grads, player.opt_state, player.params)
    params: Any = optax.apply_updates(player.params, updates)
    return Player(params, opt_state)


@functools.partial(jax.jit, donate_argnames=("generator", "discriminator"))
def train_step(generator: Player, discriminator: Player, key: jax.Array, step: int) -> tuple[Player, Player]:
    """Move both networks, each against the other as it was before."""
    centers, spread, noise = jax.random.split(jax.random.fold_in(key, step), 3)
    data = jnp.asarray(CENTERS)[jax.random.randint(centers, (BATCH_SIZE,), 0, len(CENTERS))]
    data += SPREAD * jax.random.normal(spread, data.shape)
    inputs = jax.random.normal(noise, (BATCH_SIZE, NOISE))
    moved = move(generator, generator_loss, discriminator.params, inputs)
    return moved, move(discriminator, discriminator_loss, generator.params, inputs, data)


def count_modes(points: Any) -> np.ndarray:
    """Return for each Gaussian how many points lie within three standard deviations of its center."""
    distances = np.linalg.norm(np.asarray(points)[:, None] - CENTERS, axis=2)
    return (distances < 3 * SPREAD).sum(axis=0)


def main() -> tuple[Player, Player]:
    """Train, and print how many points the generator puts where, and how each loss scale fared."""
    first, second, key, noise = jax.random.split(jax.random.key(0), 4)
    generator = jax.jit(make_player, static_argnums=1)(first, (NOISE, WIDTH, WIDTH, 2))
    discriminator = jax.jit(make_player, static_argnums=1)(second, (2, WIDTH, WIDTH, 1))
    for step in range(STEPS):
        generator, discriminator = train_step(generator, discriminator, key, step)
    counts = count_modes(apply(generator.params, jax.random.normal(noise, (1000, NOISE))))
    print(f"{counts.sum()} of 1000 points lie near the eight centers: {', '.join(map(str, counts))}")
    for name, player in {"generator": generator, "discriminator": discriminator}.items():
        last = optax_ext.metrics(player.opt_state)
        print(f"{name}: loss scale {last['loss_scale']:.0f}, {last['skipped_steps']} steps skipped")
    return generator, discriminator


if __name__ == "__main__":
    main()
