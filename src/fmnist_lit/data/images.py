"""Fashion-MNIST or its synthetic stand-in as tensors in memory, decoded once a process."""

import logging
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from fmnist_lit.errors import in_one_line

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
log = logging.getLogger(__name__)
why_missing: dict[str, str] = {}  # by data_dir: why ``auto`` took the stand-in


@dataclass(frozen=True)
class Images:
    """Images (N, 1, 28, 28) uint8 with their labels (N,) int64."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor | slice) -> "Images":
        if isinstance(rows, slice):
            return Images(self.pixels[rows], self.labels[rows])
        # index_select is 9 times as fast as pixels[rows]
        return Images(self.pixels.index_select(0, rows), self.labels.index_select(0, rows))

    def to(self, device: torch.device) -> "Images":
        return Images(self.pixels.to(device), self.labels.to(device))


@dataclass(frozen=True)
class DataSet:
    """A data set in memory.

    Attributes:
        name: ``fashion_mnist``, ``synthetic``, or what somebody's own is called.
        classes: what each label is called.
        train, test: its two splits.
    """

    name: str
    classes: tuple[str, ...]
    train: "Images | StandIn"
    test: "Images | StandIn"


class StandIn:
    """A split of the synthetic data set. Its images are drawn when they are first asked for, and kept."""

    def __init__(self, num_samples: int, seed: int, split: Literal["train", "test"]) -> None:
        self.seed = seed
        self.split = split
        # memory that nothing is written to is none of the process's
        pixels = torch.empty(num_samples, 1, 28, 28, dtype=torch.uint8)
        self.images = Images(pixels, torch.empty(num_samples, dtype=torch.int64))
        self.is_drawn = torch.zeros(num_samples, dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor | slice) -> Images:
        from fmnist_lit.data.synthetic import draw_samples

        numbers = torch.arange(len(self))[rows]
        new = numbers[~self.is_drawn[numbers]].sort().values
        if len(new):
            pixels, labels = map(torch.from_numpy, draw_samples(new.numpy(), self.seed, self.split))
            self.images.pixels.index_copy_(0, new, pixels.unsqueeze(1))
            self.images.labels.index_copy_(0, new, labels)
            self.is_drawn[new] = True
        return self.images[rows]

    @property
    def pixels(self) -> Tensor:
        return self[:].pixels

    @property
    def labels(self) -> Tensor:
        return self[:].labels


def load_images(source: str, data_dir: str, synthetic_seed: int) -> DataSet:
    """Fashion-MNIST or its synthetic stand-in.

    Every run in this process gets the same tensors, so nobody may write to them.

    Args:
        source: ``fashion_mnist``, ``synthetic``, or ``auto``: the real data unless it is missing.
        data_dir: torchvision's root folder.
        synthetic_seed: seed of the synthetic images.

    Raises:
        DataMissingError: if ``source`` is ``fashion_mnist`` and it can neither be found nor downloaded.
        DataDamagedError: if a file of it is damaged and cannot be replaced.
    """
    return decode_once(source, data_dir, synthetic_seed, os.path.abspath(data_dir))


@lru_cache(maxsize=4)
def decode_once(source: str, data_dir: str, synthetic_seed: int, absolute: str) -> DataSet:
    """As ``load_images``; ``absolute`` tells relative folders of several working folders apart."""
    if source != "synthetic":
        from fmnist_lit.data import fashion_mnist

        try:
            splits = fashion_mnist.load_fashion_mnist(Path(data_dir))
            train, test = (Images(pixels.unsqueeze(1), labels) for pixels, labels in (splits["train"], splits["test"]))
            return DataSet("fashion_mnist", CLASSES, train, test)
        except fashion_mnist.DataMissingError as error:
            if source == "fashion_mnist":
                raise
            log.debug("%s", error)
            why_missing[data_dir] = in_one_line(error.__cause__ or error)
    return DataSet("synthetic", CLASSES, *draw_stand_in(synthetic_seed))


@lru_cache(maxsize=4)  # a cache of its own, because sources and folders share these images
def draw_stand_in(seed: int) -> tuple[StandIn, StandIn]:
    """Training and test images of the synthetic data set, as large as the real one."""
    return StandIn(60_000, seed, "train"), StandIn(10_000, seed, "test")


@dataclass(frozen=True)
class Scaling:
    """From uint8 pixels to float32 (pixels / 255 − mean) / std; by default in [0, 1], bit for bit as ToTensor."""

    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def fitted_to(cls, pixels: Tensor) -> "Scaling":
        """The scaling that standardises ``pixels``, uint8 of any shape; by histogram, which is exact without a copy."""
        counts = torch.bincount(pixels.flatten(), minlength=256).double()
        values = torch.arange(256, dtype=torch.float64) / 255
        mean = float((counts * values).sum() / counts.sum())
        return cls(mean, float((counts * (values - mean) ** 2).sum() / counts.sum()) ** 0.5)

    def __call__(self, pixels: Tensor) -> Tensor:
        images = pixels.to(torch.float32).div_(255)
        return images if self == Scaling() else images.sub_(self.mean).div_(self.std)
