"""The LightningDataModule: which images train, validate and test."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule

from fmnist_lit.config import ConfigError
from fmnist_lit.config.check import sizes
from fmnist_lit.config.paths import expanded
from fmnist_lit.data.augmentation import Augmentation
from fmnist_lit.data.batches import EvaluationBatches, TrainBatches
from fmnist_lit.data.images import DataSet, Scaling, load_images

SPLIT_SEED = 1  # which images validate; fixed, so that runs of different seeds are measured on the same ones


class FashionMNISTDataModule(LightningDataModule):
    """Fashion-MNIST, its synthetic stand-in, or anybody's data set, all of it in the memory of the training device.

    Batches are (images (N, 1, 28, 28) float32, labels (N,) int64); unless ``normalize`` is set, images are in [0, 1].

    Args:
        source: ``auto``, ``fashion_mnist`` or ``synthetic``; or what makes a data set when it is told which split, as
            ``datasets.read_dataset`` says.
        data_dir: torchvision's root folder.
        batch_size: samples in an optimiser step, per process.
        eval_batch_size: samples evaluated at a time, per process.
        val_size: training images held out for validation, always the same ones; below 1 a share of them; 0 for none.
        train_size, test_size: use only so many images; None for all.
        shuffle: a new order each epoch.
        normalize: standardise all images with mean and standard deviation of the training images used.
        augmentation: keyword arguments of ``augmentation.Augmentation``, for training images only.
        seed: with the epoch, determines the order and the augmentation.
        steps_per_batch: batches in one chunk that the Trainer gets as its batch, at most ``batches.CHUNK_ROWS`` rows.
        break_every: end a chunk after every so many batches of an epoch as well, to save a checkpoint there; or None.
        evaluate_each_epoch: ``val`` and ``test``, one of them, or none; a split without images is left out.
        synthetic_seed: seed of the synthetic images.
    """

    def __init__(
        self,
        source: Literal["auto", "fashion_mnist", "synthetic"] | Callable[..., Any] = "auto",
        data_dir: str | Path = "data",
        batch_size: int = 64,
        eval_batch_size: int = 2000,
        val_size: float = 5000,
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
        self.data_dir = expanded(str(data_dir), f"data.data_dir={data_dir}")
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
        self.dataset = ""  # known once it is set up
        self.classes: tuple[str, ...] = ()

    def prepare_data(self) -> None:
        self.load()

    def load(self) -> DataSet:
        """The whole data set; decoded once a process."""
        if isinstance(self.source, str):
            return load_images(self.source, self.data_dir, self.synthetic_seed)
        from fmnist_lit.data.datasets import read_dataset

        return read_dataset(self.source, self.data_dir)

    def setup(self, stage: str | None = None) -> None:
        if not self.dataset:
            data = self.load()
            train, test = data.train, data.test
            size, self.val_size = sizes(self.train_size, self.val_size, len(train))
            if self.test_size is not None and self.test_size > len(test):
                raise ConfigError(f"data.test_size={self.test_size}: more than the {len(test)} test images")
            self.dataset, self.classes = data.name, data.classes
            permutation = torch.randperm(len(train), generator=torch.Generator().manual_seed(SPLIT_SEED))
            # sorted, so that training without shuffling goes in file order
            used = permutation[: self.val_size + size].sort()
            images = train[:] if len(used.values) == len(train) else train[used.values]  # at once: drawing may cost
            validates = used.indices < self.val_size
            self.train_images = images[(~validates).nonzero().flatten()] if self.val_size else images
            self.val_images = images[validates.nonzero().flatten()]
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

    @cached_property
    def val_fingerprint(self) -> str:
        """The same for the same validation images and labels in the same order, whatever else differs."""
        parts = (self.val_images.pixels, self.val_images.labels)
        return hashlib.sha256(b"".join(part.cpu().numpy().tobytes() for part in parts)).hexdigest()[:16]

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

    def train_dataloader(self) -> TrainBatches:
        return TrainBatches(self)

    def val_dataloader(self) -> list[EvaluationBatches]:
        return [self.evaluation_batches(split) for split in self.watched]

    def test_dataloader(self) -> EvaluationBatches:
        return self.evaluation_batches("test")

    def evaluation_batches(self, split: str) -> EvaluationBatches:
        """All images of ``val`` or ``test``, in order."""
        return EvaluationBatches(self, {"val": self.val_images, "test": self.test_images}[split])
