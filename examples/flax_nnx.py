"""Train in float16 with Flax NNX, `nnx.Optimizer` and batch normalization; one batch is bad, and is skipped.

NNX changes modules in place inside the loss, so the batch statistics of a skipped step must be put back:

    python examples/flax_nnx.py
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import optax_ext

STEPS, BATCH_SIZE, BAD_STEP = 100, 128, 50


class Network(nnx.Module):
    """Two dense layers that compute in float16, with parameters and batch statistics in float32."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(64, 128, use_bias=False, dtype=jnp.float16, rngs=rngs)
        self.norm = nnx.BatchNorm(128, momentum=0.9, dtype=jnp.float16, rngs=rngs)
        self.classify = nnx.Linear(128, 10, dtype=jnp.float16, rngs=rngs)

    def __call__(self, images: Any) -> jax.Array:
        """Return the logits of ten digits, in float32."""
        x = nnx.relu(self.norm(self.hidden(images)))
        return self.classify(x).astype(jnp.float32)


def make_optimizer(network: Network) -> nnx.Optimizer:
    """Make LARS inside dynamic loss scaling."""
    mask = optax_ext.path_mask(exclude=["bias", "norm"])
    schedule = optax_ext.LinearWarmup(optax_ext.CosineDecay(4.0, decay_steps=STEPS - 20, offset=20), warmup_steps=20)
    lars = optax_ext.lars(schedule, weight_decay=1e-4, weight_decay_mask=mask, trust_ratio_mask=mask)
    tx = optax_ext.dynamic_loss_scaling(lars, growth_steps=20)  # 2000 in a long run
    return nnx.Optimizer(network, tx, wrt=nnx.Param)


@nnx.jit(donate_argnames=("network", "optimizer"))
def train_step(network: Network, optimizer: nnx.Optimizer, images: Any, labels: Any) -> jax.Array:
    """Take one step, or skip it if a gradient is non-finite; return the loss."""

    def loss_fn(network: Network) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(network(images), labels).mean()

    # The loss changes the batch statistics in place, and `nnx.state` shares them with the network: copy them
    # first, and put them back if the step is skipped.
    batch_stats = jax.tree.map(jnp.copy, nnx.state(network, nnx.BatchStat))
    value_and_grad = optax_ext.value_and_grad(loss_fn, optimizer.opt_state, transform=nnx.value_and_grad)
    loss, grads = value_and_grad(network)
    optimizer.update(network, grads)  # unscales the gradients, checks them, and adapts the scale
    applied = optax_ext.metrics(optimizer.opt_state)["consecutive_skips"] == 0
    nnx.update(network, optax.tree.where(applied, nnx.state(network, nnx.BatchStat), batch_stats))
    return loss


def main() -> tuple[Network, nnx.Optimizer]:
    """Train, and print the accuracy on images that were held out."""
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    random = np.random.default_rng(0)
    order = random.permutation(len(pixels))
    images, labels = np.asarray(pixels[order] / 16, np.float32), labels[order]
    network = Network(nnx.Rngs(0))
    optimizer = make_optimizer(network)
    for step, batch in enumerate(random.integers(1500, size=(STEPS, BATCH_SIZE))):
        factor = np.float32(np.nan if step == BAD_STEP else 1)
        train_step(network, optimizer, images[batch] * factor, labels[batch])
    network.eval()
    logits = np.asarray(network(images[1500:]))
    accuracy = np.mean(logits.argmax(1) == labels[1500:])
    last = optax_ext.metrics(optimizer.opt_state)
    print(f"accuracy {accuracy:.3f}, skipped steps {last['skipped_steps']}, loss scale {last['loss_scale']:.0f}")
    network.train()
    return network, optimizer


if __name__ == "__main__":
    main()
