"""Batches sliced from tensors in memory, in an order that depends on (seed, epoch) alone."""

import bisect
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fmnist_lit.data.augmentation import Augmentation
from fmnist_lit.data.images import Images, Scaling

# 13 MB of float pixels; above 32 MB malloc maps fresh pages each time, and scaling takes three times as long
CHUNK_ROWS = 4096
AUGMENTATION_STREAM = 1  # so that augmentation does not draw the numbers that shuffled the epoch


def epoch_generator(seed: int, epoch: int, *stream: int) -> torch.Generator:
    """A generator for one epoch (from 0) of a run with this seed; another ``stream`` number gives other numbers."""
    mixed = int(np.random.SeedSequence([seed, epoch, *stream]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(mixed)


def epoch_order(num_samples: int, seed: int, epoch: int) -> Tensor:
    """The order of the samples in an epoch (from 0): a permutation (num_samples,) int64, the same on every machine."""
    return torch.randperm(num_samples, generator=epoch_generator(seed, epoch))


class BatchSettings(Protocol):
    """What batches ask of the data module, at the time of each epoch."""

    train_images: Images
    scale: Scaling
    augmentation: Augmentation
    batch_size: int
    eval_batch_size: int
    steps_per_batch: int
    break_every: int | None
    shuffle: bool
    seed: int

    @property
    def epoch(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    @property
    def rank(self) -> int: ...


class TrainBatches:
    """The training batches of one epoch, in chunks: the rows of several batches in one tensor.

    ``ChunkedClassifier.training_step`` splits a chunk again; with ``steps_per_batch=1`` a chunk is one batch. Each rank
    gets its share of every batch. What augmentation does to an image depends on (seed, epoch, image) alone: not on its
    batch, its chunk, or where an interrupted epoch resumes.
    """

    def __init__(self, datamodule: BatchSettings) -> None:
        self.datamodule = datamodule
        images, world_size = datamodule.train_images, datamodule.world_size
        batch_rows = datamodule.batch_size * world_size
        num_samples = len(images)
        if num_samples % batch_rows < world_size:  # drop a last batch too small for every rank to get a sample
            num_samples -= num_samples % batch_rows
        self.num_samples = num_samples
        self.batch_rows = batch_rows
        self.num_batches = math.ceil(num_samples / batch_rows)
        chunk = min(datamodule.steps_per_batch, max(1, CHUNK_ROWS // datamodule.batch_size))
        breaks = set(range(0, self.num_batches, chunk))
        if datamodule.break_every is not None:
            breaks.update(range(0, self.num_batches, datamodule.break_every))
        self.breaks = [*sorted(breaks), self.num_batches]
        self.first_batch = 0  # where an interrupted epoch resumes

    def __len__(self) -> int:
        return len(self.breaks) - 1

    def chunks_before(self, batches: int) -> int:
        """Whole chunks in the first ``batches`` batches of an epoch."""
        return bisect.bisect_right(self.breaks, batches) - 1

    def images_within(self, limit: int | float) -> int:
        """How many images of all ranks the Trainer takes in an epoch under ``limit_train_batches``."""
        return min(limited(self.num_batches, limit) * self.batch_rows, self.num_samples)

    def state_dict(self) -> dict[str, int]:
        """A placeholder that Lightning wants: RunCheckpoint saves the position, which only the classifier knows."""
        return {"batches": 0}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the next epoch after ``batches`` batches; Lightning calls this to resume in mid-epoch."""
        self.first_batch = state["batches"]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        data = self.datamodule
        images = data.train_images
        first_batch, self.first_batch = self.first_batch, 0
        order = None  # None is file order, which slices without a copy
        if data.shuffle:
            order = epoch_order(len(images), data.seed, data.epoch).to(images.labels.device)
        elif data.world_size > 1:
            order = torch.arange(len(images), device=images.labels.device)
        augmentation, draws = data.augmentation, None
        if augmentation:
            generator = epoch_generator(data.seed, data.epoch, AUGMENTATION_STREAM)
            draws = augmentation.draw(len(images), generator, images.labels.device)
        for start, stop in pairwise(self.breaks):
            if stop <= first_batch:
                continue
            start = max(start, first_batch)
            span = slice(start * self.batch_rows, min(stop * self.batch_rows, self.num_samples))
            rows = span if order is None else self.rank_rows(order[span])
            batch = images[rows]
            pixels = batch.pixels if draws is None else augmentation.apply(batch.pixels, draws[rows])
            yield data.scale(pixels), batch.labels

    def rank_rows(self, rows: Tensor) -> Tensor:
        """The rank's share of each batch in ``rows``; a short last batch is split as evenly as possible."""
        world_size, rank = self.datamodule.world_size, self.datamodule.rank
        if world_size == 1:
            return rows
        return torch.cat([batch.tensor_split(world_size)[rank] for batch in torch.split(rows, self.batch_rows)])


def limited(num_batches: int, limit: int | float) -> int:
    """How many of so many batches one of lightning.Trainer's ``limit_…_batches`` leaves: a number, or a share."""
    return min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)


class EvaluationBatches:
    """All images once, in order, in large batches; each rank gets its share, and nothing is padded."""

    def __init__(self, datamodule: BatchSettings, images: Images) -> None:
        self.datamodule = datamodule
        self.images = images
        self.num_batches = math.ceil(len(images) / (datamodule.eval_batch_size * datamodule.world_size))

    def __len__(self) -> int:
        return self.num_batches

    def parts(self, rank: int) -> tuple[Tensor, ...]:
        """The image numbers of each batch of a rank."""
        rows = torch.arange(len(self.images)).tensor_split(self.datamodule.world_size)[rank]
        return rows.tensor_split(self.num_batches)

    def images_within(self, limit: int | float) -> int:
        """How many images of all ranks the Trainer takes under ``limit_val_batches`` or ``limit_test_batches``."""
        batches = limited(self.num_batches, limit)
        return sum(len(part) for rank in range(self.datamodule.world_size) for part in self.parts(rank)[:batches])

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        data = self.datamodule
        for part in self.parts(data.rank):
            batch = self.images[int(part[0]) : int(part[-1]) + 1] if len(part) else self.images[:0]
            yield data.scale(batch.pixels), batch.labels
