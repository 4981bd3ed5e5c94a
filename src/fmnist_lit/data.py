"""Fashion-MNIST as tensors in memory, served as whole batches in an order that depends on (seed, epoch) alone."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from fmnist_lit.augmentation import Augmentation

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
CHUNK_ROWS = 4096  # 13 MB of float pixels; over 32 MB malloc maps fresh pages each time, which triples the scaling
AUGMENTATION = 1  # the purpose that sets its generator apart from that of the order
SPLIT_SEED = 1  # which images validate; fixed, so that runs of different seeds are measured on the same ones

log = logging.getLogger(__name__)


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
        # 9 times as fast as pixels[rows]
        return Images(self.pixels.index_select(0, rows), self.labels.index_select(0, rows))

    def to(self, device: torch.device) -> "Images":
        return Images(self.pixels.to(device), self.labels.to(device))


@lru_cache(maxsize=4)
def load_images(source: str, data_dir: str, synthetic_seed: int) -> tuple[str, Images, Images]:
    """The name of the data set that ``source`` gives here, its training images and its test images.

    The same tensors are returned to every run in this process; nobody writes to them.

    Raises:
        fashion_mnist.DataMissingError, fashion_mnist.DataDamagedError: as ``fashion_mnist.load``; with ``auto``,
            only damage is an error.
    """
    if source != "synthetic":
        from fmnist_lit import fashion_mnist

        try:
            splits = fashion_mnist.load(Path(data_dir))
            return "fashion_mnist", *(Images(x.unsqueeze(1), y) for x, y in (splits["train"], splits["test"]))
        except fashion_mnist.DataMissingError as error:
            if source == "fashion_mnist":
                raise
            log.debug("%s", error)
    return "synthetic", *draw_stand_in(synthetic_seed)


@lru_cache(maxsize=4)  # apart from the above: it is the same for ``auto`` and ``synthetic``, whatever the folder
def draw_stand_in(seed: int) -> tuple[Images, Images]:
    """Training and test images of the synthetic data set."""
    from fmnist_lit import synthetic

    drawn = [synthetic.draw_split(n, seed, split) for n, split in ((60_000, "train"), (10_000, "test"))]
    train, test = (Images(torch.from_numpy(x).unsqueeze(1), torch.from_numpy(y)) for x, y in drawn)
    return train, test


def epoch_generator(seed: int, epoch: int, *purpose: int) -> torch.Generator:
    """A generator of its own for each epoch (from 0) and purpose, apart from torch's global one."""
    mixed = int(np.random.SeedSequence([seed, epoch, *purpose]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(mixed)


def epoch_order(num_samples: int, seed: int, epoch: int) -> Tensor:
    """The order of the samples in epoch ``epoch`` (from 0): a permutation (num_samples,) int64, the same anywhere."""
    return torch.randperm(num_samples, generator=epoch_generator(seed, epoch))


class TrainBatches:
    """One epoch of chunks: each is the rows of several batches on end, for ``training_step`` to split again.

    What augmentation does to an image depends on (seed, epoch, image) alone: not on its batch, its chunk, or where an
    interrupted epoch goes on. Each rank of ``world_size`` gets its share of every batch. An epoch that was interrupted
    yields empty chunks for what is done already, so that the Trainer counts as if it had not been.
    """

    def __init__(self, datamodule: "FashionMNISTDataModule") -> None:
        self.datamodule = datamodule
        images, world_size = datamodule.train_images, datamodule.world_size
        batch_rows = datamodule.batch_size * world_size
        num_samples = len(images)
        if num_samples % batch_rows < world_size:  # a last batch in which some rank would have nothing to average
            num_samples -= num_samples % batch_rows
        self.num_samples = num_samples
        self.batch_rows = batch_rows
        self.num_batches = math.ceil(num_samples / batch_rows)
        chunk = min(datamodule.steps_per_batch, max(1, CHUNK_ROWS // datamodule.batch_size))
        breaks = set(range(0, self.num_batches, chunk))
        if datamodule.break_every is not None:
            breaks.update(range(0, self.num_batches, datamodule.break_every))
        self.breaks = [*sorted(breaks), self.num_batches]

    def __len__(self) -> int:
        return len(self.breaks) - 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        data = self.datamodule
        images = data.train_images
        first_batch = data.take_batches_done()
        order = None  # file order, sliced without a copy
        if data.shuffle:
            order = epoch_order(len(images), data.seed, data.epoch).to(images.labels.device)
        elif data.world_size > 1:
            order = torch.arange(len(images), device=images.labels.device)
        augmentation, draws = data.augmentation, None
        if augmentation:
            generator = epoch_generator(data.seed, data.epoch, AUGMENTATION)
            draws = augmentation.draw(len(images), generator, images.labels.device)
        for start, stop in pairwise(self.breaks):
            start = min(max(start, first_batch), stop)
            rows = slice(start * self.batch_rows, min(stop * self.batch_rows, self.num_samples))
            if order is not None:
                rows = self.rank_rows(order[rows])
            batch = images[rows]
            pixels = batch.pixels if draws is None else augmentation.apply(batch.pixels, draws[rows])
            yield data.scale(pixels), batch.labels

    def rank_rows(self, rows: Tensor) -> Tensor:
        """The share of this rank of each batch in ``rows``; a short last batch is split as evenly as it can be."""
        world_size, rank = self.datamodule.world_size, self.datamodule.rank
        if world_size == 1:
            return rows
        return torch.cat([batch.tensor_split(world_size)[rank] for batch in rows.split(self.batch_rows)])


class EvaluationBatches:
    """All images once, in order, in large batches; each rank of ``world_size`` gets its share, nothing is padded."""

    def __init__(self, datamodule: "FashionMNISTDataModule", images: Images) -> None:
        self.datamodule = datamodule
        self.images = images
        self.num_batches = math.ceil(len(images) / (datamodule.eval_batch_size * datamodule.world_size))

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        data = self.datamodule
        rows = torch.arange(len(self.images)).tensor_split(data.world_size)[data.rank]
        for part in rows.tensor_split(self.num_batches):
            batch = self.images[int(part[0]) : int(part[-1]) + 1] if len(part) else self.images[:0]
            yield data.scale(batch.pixels), batch.labels


class FashionMNISTDataModule(LightningDataModule):
    """Fashion-MNIST or its synthetic stand-in, whole on the training device.

    Batches are (images (N, 1, 28, 28) float32, labels (N,) int64), images in [0, 1] as ToTensor gives them.

    Args:
        source: ``auto``, ``fashion_mnist`` or ``synthetic``.
        data_dir: torchvision's root folder.
        batch_size: samples in an optimiser step, per process.
        eval_batch_size: samples evaluated at a time.
        val_size: training images held out for validation, always the same ones; 0 for none.
        train_size, test_size: use only so many images; None for all.
        shuffle: a new order each epoch.
        normalize: standardise with mean and standard deviation of the training images used.
        augmentation: options of ``augmentation.Augmentation``; of training images only.
        seed: with the epoch, determines the order.
        steps_per_batch: batches in the chunk that the Trainer gets at a time; fewer where they would be over
            ``CHUNK_ROWS`` rows.
        break_every: a chunk also ends after each so many batches of an epoch; None for nowhere else.
        evaluate_each_epoch: the splits, of ``val`` and ``test``, to evaluate after each epoch; empty ones are left out.
        synthetic_seed: of the stand-in's drawing.
    """

    def __init__(
        self,
        source: Literal["auto", "fashion_mnist", "synthetic"] = "auto",
        data_dir: str | Path = "data",
        batch_size: int = 64,
        eval_batch_size: int = 2000,
        val_size: int = 5000,
        train_size: int | None = None,
        test_size: int | None = None,
        shuffle: bool = True,
        normalize: bool = False,
        augmentation: Mapping[str, Any] | None = None,
        seed: int = 0,
        steps_per_batch: int = 1,
        break_every: int | None = None,
        evaluate_each_epoch: Sequence[str] = ("val",),
        synthetic_seed: int = 0,
    ) -> None:
        super().__init__()
        self.source = source
        self.data_dir = str(data_dir)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.val_size = val_size
        self.train_size = train_size
        self.test_size = test_size
        self.shuffle = shuffle
        self.normalize = normalize
        self.augmentation = Augmentation(**(augmentation or {}))
        self.seed = seed
        self.steps_per_batch = steps_per_batch
        self.break_every = break_every
        self.evaluate_each_epoch = evaluate_each_epoch
        self.synthetic_seed = synthetic_seed
        self.dataset: str | None = None
        self.batches_done = 0

    def prepare_data(self) -> None:
        load_images(self.source, self.data_dir, self.synthetic_seed)

    def setup(self, stage: str | None = None) -> None:
        if self.dataset is None:
            self.dataset, train, test = load_images(self.source, self.data_dir, self.synthetic_seed)
            permutation = torch.randperm(len(train), generator=torch.Generator().manual_seed(SPLIT_SEED))
            # sorted: without shuffling, training goes in file order
            kept = permutation[self.val_size :][: self.train_size].sort().values
            self.train_images = train if len(kept) == len(train) else train[kept]
            self.val_images = train[permutation[: self.val_size].sort().values]
            self.test_images = test[: self.test_size]
            self.scale = Scaling.fitted_to(self.train_images.pixels) if self.normalize else Scaling()
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            self.train_images, self.val_images, self.test_images = (
                images.to(device) for images in (self.train_images, self.val_images, self.test_images)
            )

    @property
    def watched(self) -> list[str]:
        """The splits evaluated after each epoch."""
        return [split for split in self.evaluate_each_epoch if split == "test" or self.val_size]

    @property
    def batches_per_epoch(self) -> int:
        """Batches of ``batch_size`` in an epoch, per process."""
        return TrainBatches(self).num_batches

    @property
    def epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer is not None else 0

    @property
    def world_size(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1

    @property
    def rank(self) -> int:
        return self.trainer.global_rank if self.trainer is not None else 0

    def take_batches_done(self) -> int:
        """How many batches of this epoch an interrupted run had done; asked once."""
        done, self.batches_done = self.batches_done, 0
        return done

    def train_dataloader(self) -> TrainBatches:
        return TrainBatches(self)

    def val_dataloader(self) -> list[EvaluationBatches]:
        splits = {"val": self.val_images, "test": self.test_images}
        return [EvaluationBatches(self, splits[name]) for name in self.watched]

    def test_dataloader(self) -> EvaluationBatches:
        return EvaluationBatches(self, self.test_images)


@dataclass(frozen=True)
class Scaling:
    """uint8 pixels to float32: divided by 255, then standardised unless ``mean`` and ``std`` leave them as they are."""

    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def fitted_to(cls, pixels: Tensor) -> "Scaling":
        """What standardises ``pixels``, uint8 of any shape; from their histogram: exact, and without a float copy."""
        counts = torch.bincount(pixels.flatten(), minlength=256).double()
        values = torch.arange(256, dtype=torch.float64) / 255
        mean = float((counts * values).sum() / counts.sum())
        return cls(mean, float((counts * (values - mean) ** 2).sum() / counts.sum()) ** 0.5)

    def __call__(self, pixels: Tensor) -> Tensor:
        images = pixels.to(torch.float32).div_(255)
        return images if self == Scaling() else images.sub_(self.mean).div_(self.std)
