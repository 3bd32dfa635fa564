"""Train the network of train_digits.py in Flax NNX, whose modules change their own state inside the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import optax_ext


class Network(nnx.Module):
    """Two convolutions and a classifier that compute in float16, with parameters and statistics in float32."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 32, (3, 3), use_bias=False, dtype=jnp.float16, rngs=rngs)
        self.norm1 = nnx.BatchNorm(32, momentum=0.9, dtype=jnp.float16, rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), use_bias=False, dtype=jnp.float16, rngs=rngs)
        self.norm2 = nnx.BatchNorm(64, momentum=0.9, dtype=jnp.float16, rngs=rngs)
        self.classify = nnx.Linear(256, 10, dtype=jnp.float16, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the logits, in float32."""
        x = nnx.avg_pool(nnx.relu(self.norm1(self.conv1(images))), (2, 2), strides=(2, 2))
        x = nnx.avg_pool(nnx.relu(self.norm2(self.conv2(x))), (2, 2), strides=(2, 2))
        return self.classify(x.reshape(len(x), -1)).astype(jnp.float32)


def make_optimizer(network: Network) -> nnx.Optimizer:
    """Make LARS inside dynamic loss scaling."""
    mask = optax_ext.path_mask(exclude=["bias", "norm"])
    schedule = optax_ext.LinearWarmup(optax_ext.CosineDecay(4.0, decay_steps=80, offset=20), warmup_steps=20)
    lars = optax_ext.lars(schedule, weight_decay=1e-4, weight_decay_mask=mask, trust_ratio_mask=mask)
    return nnx.Optimizer(network, optax_ext.dynamic_loss_scaling(lars, growth_steps=20), wrt=nnx.Param)


@nnx.jit(donate_argnames=("network", "optimizer"))
def train_step(network: Network, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Take one step, or skip it if a gradient is not finite; return the loss."""

    def loss_fn(network: Network) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(network(images), labels).mean()

    # The loss changes the batch statistics in place, and `nnx.state` shares them with the network: copy them
    # first, and put them back if the step is skipped.
    batch_stats = jax.tree.map(jnp.copy, nnx.state(network, nnx.BatchStat))
    value_and_grad = optax_ext.value_and_grad(loss_fn, optimizer.opt_state, transform=nnx.value_and_grad)
    loss, grads = value_and_grad(network)
    optimizer.update(network, grads)
    applied = optax_ext.metrics(optimizer.opt_state)["consecutive_skips"] == 0
    nnx.update(network, optax.tree.where(applied, nnx.state(network, nnx.BatchStat), batch_stats))
    return loss


def main() -> None:
    """Train for a hundred steps."""
    pixels, labels = map(jnp.asarray, load_digits(return_X_y=True))
    images = pixels.reshape(-1, 8, 8, 1) / 16
    network = Network(nnx.Rngs(0))
    optimizer = make_optimizer(network)
    random = np.random.default_rng(0)
    for step in range(1, 101):
        batch = random.integers(len(images), size=128)
        loss = train_step(network, optimizer, images[batch], labels[batch])
        if step % 20 == 0:
            scaling = optimizer.opt_state
            scale, skipped = scaling.loss_scale[...], scaling.skipped_steps[...]
            print(f"step {step:3}  loss {loss:.4f}  loss scale {scale:.0f}  skipped {skipped}")


if __name__ == "__main__":
    main()
