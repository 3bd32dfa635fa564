"""Images as batches of this host: Grain reads, shuffles, augments and shards them.

A source is anything with a length whose items are pairs of a PIL image and its label.
"""

import math
import signal
from pathlib import Path
from typing import Any, Protocol

import grain
import numpy as np
from PIL import Image

Batch = dict[str, np.ndarray]  # "image", uint8 of shape (n, size, size, 3), and "label", int32 of shape (n,)
Box = tuple[float, float, float, float]  # left, top, right and bottom, in pixels

SUFFIXES = {".jpeg", ".jpg", ".png"}
PADDING = -1  # the label of what fills the last batch of an evaluation


class Source(Protocol):
    """Images with labels, by their index."""

    classes: list[str]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Image.Image, int]: ...


class Folder:
    """The images of FOLDER/CLASS/IMAGE; a label is the place of its class in the alphabet."""

    def __init__(self, folder: Path):
        self.classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        self.files = [
            (str(path), label)
            for label, name in enumerate(self.classes)
            for path in sorted((folder / name).iterdir())
            if path.suffix.lower() in SUFFIXES
        ]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.files[index]
        try:
            with Image.open(path) as image:
                return image.convert("RGB"), label  # some of ImageNet's are grey, and a few CMYK
        except OSError as error:
            raise OSError(f"{path} cannot be read: {error}") from error


class Synthetic:
    """Images made from their index: each class has a colour, and each image 4 x 4 patches near it."""

    def __init__(self, images: int, size: int, classes: int = 1000):
        self.images, self.size = images, size
        self.classes = [f"class {label}" for label in range(classes)]

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        label = index % len(self.classes)
        color = np.random.default_rng(label).integers(256, size=3)
        patches = np.random.default_rng(index).normal(color, 32, (4, 4, 3))
        image = Image.fromarray(np.clip(patches, 0, 255).astype(np.uint8))
        return image.resize((self.size, self.size)), label


def random_box(width: int, height: int, random: np.random.Generator) -> Box:
    """Draw a box of 5 to 100 % of the image, with sides of 3 : 4 to 4 : 3."""
    for _ in range(100):
        area = width * height * random.uniform(0.05, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, top = random.uniform(0, width - w), random.uniform(0, height - h)
            return left, top, left + w, top + h
    return central_box(width, height)  # of a very long image


def central_box(width: int, height: int) -> Box:
    """Return the square of 7/8 of the shorter side: 224 pixels, if that is resized to 256."""
    side = min(width, height) * 7 / 8
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def crop(image: Image.Image, box: Box, size: int) -> np.ndarray:
    """Resize what is in a box, in one pass."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box))


def training_batches(
    source: Source, batch_size: int, size: int, *, seed: int = 0, workers: int = 0
) -> grain.DatasetIterator[Batch]:
    """Return this host's part of endless batches: each epoch has every image once, in an order of its own.

    `batch_size` is of all hosts together. What an image becomes depends on the seed and its place in the training
    alone, so any number of hosts and workers trains on the same batches.
    """

    def augment(example: tuple[Image.Image, int], random: np.random.Generator) -> dict[str, Any]:
        image, label = example
        pixels = crop(image, random_box(*image.size, random), size)
        return {"image": pixels[:, ::-1] if random.random() < 0.5 else pixels, "label": np.int32(label)}

    images = grain.MapDataset.source(source).seed(seed).shuffle().repeat().random_map(augment)
    return _batches_of_this_host(images, batch_size, workers)


def validation_batches(source: Source, batch_size: int, size: int, *, workers: int = 0) -> grain.DatasetIterator[Batch]:
    """Return this host's part of batches with every image once; the last is filled up with the label `PADDING`."""
    blank = {"image": np.zeros((size, size, 3), np.uint8), "label": np.int32(PADDING)}

    def load(index: int) -> dict[str, Any]:
        if index >= len(source):
            return blank
        image, label = source[index]
        return {"image": crop(image, central_box(*image.size), size), "label": np.int32(label)}

    padded_length = -(-len(source) // batch_size) * batch_size
    return _batches_of_this_host(grain.MapDataset.range(padded_length).map(load), batch_size, workers)


def _batches_of_this_host(images: grain.MapDataset[Any], batch_size: int, workers: int) -> grain.DatasetIterator[Batch]:
    """Take every n-th image on one of n hosts, which all have a part of the same size of each batch."""
    shard = grain.sharding.ShardByJaxProcess()
    mine = images[shard.shard_index :: shard.shard_count].batch(batch_size // shard.shard_count)
    options = grain.MultiprocessingOptions(num_workers=workers)
    return iter(mine.to_iter_dataset().mp_prefetch(options, _ignore_sigterm))


def _ignore_sigterm(worker: int, workers: int) -> None:
    """Let a worker go on until Grain ends it: Slurm sends SIGTERM to all processes, and the last steps need images."""
    del worker, workers
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
