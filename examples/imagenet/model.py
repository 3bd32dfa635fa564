"""ResNet v1.5, whose blocks have their stride in the 3x3 convolution."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

he_normal = nn.initializers.he_normal()


class Block(nn.Module):
    """A bottleneck: 1x1, 3x3 and 1x1 convolutions, added to the input."""

    width: int
    stride: int
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return four times `width` channels, the image smaller by `stride`."""
        y = nn.relu(self.norm(name="norm1")(self.conv(self.width, (1, 1), name="conv1")(x)))
        y = self.conv(self.width, (3, 3), self.stride, padding=1, name="conv2")(y)
        y = nn.relu(self.norm(name="norm2")(y))
        y = self.conv(4 * self.width, (1, 1), name="conv3")(y)
        y = self.norm(scale_init=nn.initializers.zeros, name="norm3")(y)  # so that a block starts as the identity
        if x.shape != y.shape:
            x = self.conv(4 * self.width, (1, 1), self.stride, name="projection")(x)
            x = self.norm(name="projection_norm")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet-50, unless told otherwise; it computes in `dtype`, with parameters and statistics in float32."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    classes: int = 1000
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Return the logits in float32; under `jit`, the statistics are those of the whole batch, of all devices."""
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype, kernel_init=he_normal)
        norm = functools.partial(
            nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype
        )
        x = conv(self.width, (7, 7), 2, padding=3, name="conv")(images.astype(self.dtype))
        x = nn.relu(norm(name="norm")(x))
        one: Any = ((1, 1), (1, 1))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=one)
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                x = Block(self.width * 2**stage, stride, conv, norm, name=name)(x)
        x = x.mean((1, 2), dtype=jnp.float32).astype(self.dtype)
        head_init = nn.initializers.normal(0.01)
        return nn.Dense(self.classes, dtype=self.dtype, kernel_init=head_init, name="head")(x).astype(jnp.float32)
