"""Parameter trees to update: the shapes of real networks, without the networks."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax

Shape = tuple[int, ...]
_Leaf = TypeVar("_Leaf")


def resnet50() -> dict[str, Shape]:
    """Return the 161 shapes of ResNet-50 for ImageNet, 25.6 million parameters (arXiv:1512.03385)."""
    shapes: dict[str, Shape] = {}

    def add_convolution(name: str, size: int, inputs: int, outputs: int) -> None:
        shapes[f"{name}/kernel"] = (size, size, inputs, outputs)
        shapes[f"{name}_norm/scale"] = shapes[f"{name}_norm/bias"] = (outputs,)

    add_convolution("stem", 7, 3, 64)
    inputs = 64
    for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        for block in range(blocks):
            name = f"stage{stage}/block{block}"
            add_convolution(f"{name}/conv1", 1, inputs, width)
            add_convolution(f"{name}/conv2", 3, width, width)
            add_convolution(f"{name}/conv3", 1, width, 4 * width)
            if block == 0:
                add_convolution(f"{name}/shortcut", 1, inputs, 4 * width)
            inputs = 4 * width
    shapes |= {"head/kernel": (inputs, 1000), "head/bias": (1000,)}
    return shapes


def vit_b16() -> dict[str, Shape]:
    """Return the 200 shapes of ViT-B/16 for ImageNet, 86.6 million parameters (arXiv:2010.11929)."""
    return _vit(width=768, heads=12)


def vit_s16() -> dict[str, Shape]:
    """Return the 200 shapes of ViT-S/16, 22.1 million parameters (arXiv:2012.12877)."""
    return _vit(width=384, heads=6)


def _vit(width: int, heads: int) -> dict[str, Shape]:
    hidden = 4 * width
    shapes: dict[str, Shape] = {
        "embedding/kernel": (16, 16, 3, width),
        "embedding/bias": (width,),
        "class_token": (1, 1, width),
        "position_embedding": (1, 197, width),
    }
    for layer in range(12):
        for norm in ("norm1", "norm2"):
            shapes[f"layer{layer}/{norm}/scale"] = shapes[f"layer{layer}/{norm}/bias"] = (width,)
        for part in ("query", "key", "value"):
            shapes[f"layer{layer}/attention/{part}/kernel"] = (width, heads, width // heads)
            shapes[f"layer{layer}/attention/{part}/bias"] = (heads, width // heads)
        shapes[f"layer{layer}/attention/out/kernel"] = (heads, width // heads, width)
        shapes[f"layer{layer}/attention/out/bias"] = (width,)
        shapes |= {f"layer{layer}/mlp1/kernel": (width, hidden), f"layer{layer}/mlp1/bias": (hidden,)}
        shapes |= {f"layer{layer}/mlp2/kernel": (hidden, width), f"layer{layer}/mlp2/bias": (width,)}
    shapes |= {"norm/scale": (width,), "norm/bias": (width,), "head/kernel": (width, 1000), "head/bias": (1000,)}
    return shapes


def thousand_leaves() -> dict[str, Shape]:
    """Return 500 kernels of 64 x 64 and their biases, 2.1 million parameters: what is paid per leaf."""
    shapes: dict[str, Shape] = {}
    for layer in range(500):
        shapes |= {f"layer{layer:03}/kernel": (64, 64), f"layer{layer:03}/bias": (64,)}
    return shapes


TREES = {"resnet50": resnet50, "vit_b16": vit_b16, "vit_s16": vit_s16, "thousand_leaves": thousand_leaves}


def stack_layers(tree: Mapping[str, _Leaf], stack: Callable[[list[_Leaf]], _Leaf]) -> dict[str, _Leaf]:
    """Return a tree as a scanned model keeps it: what layers have in common in one leaf each, which `stack` makes."""
    stacked: dict[str, _Leaf] = {}
    layers: dict[str, list[_Leaf]] = defaultdict(list)
    for path, leaf in tree.items():
        layer = re.fullmatch(r"layer\d+/(.*)", path)
        if layer:
            layers[f"layers/{layer[1]}"].append(leaf)
        else:
            stacked[path] = leaf
    return stacked | {path: stack(leaves) for path, leaves in layers.items()}


def stack_shapes(shapes: list[Shape], axis: int) -> Shape:
    """Return the shape of arrays of one shape that are stacked along an axis."""
    return (*shapes[0][:axis], len(shapes), *shapes[0][axis:])


def is_adapted(params: object) -> object:
    """Choose what decays and has a trust ratio: leaves of rank above 1, as recipes leave biases and norms out."""
    return jax.tree.map(lambda leaf: len(leaf.shape) > 1, params)


def count_parameters(shapes: Mapping[str, Shape]) -> int:
    """Return how many numbers a tree holds."""
    return sum(math.prod(shape) for shape in shapes.values())
