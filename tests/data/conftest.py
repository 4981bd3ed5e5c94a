"""A datamodule on images in which each sample can be told from all others."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from fmnist_lit.data import FashionMNISTDataModule, datamodule
from fmnist_lit.data.images import CLASSES, DataSet, Images


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FashionMNISTDataModule]:
    """Make a datamodule on given images, as one rank of a Trainer would have it in one epoch."""

    def make(
        train: Images, test: Images, rank: int = 0, world_size: int = 1, epoch: int = 0, **options
    ) -> FashionMNISTDataModule:
        monkeypatch.setattr(datamodule, "load_images", lambda *_: DataSet("synthetic", CLASSES, train, test))
        module = FashionMNISTDataModule(source="synthetic", **options)
        module.trainer = SimpleNamespace(
            world_size=world_size,
            global_rank=rank,
            current_epoch=epoch,
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )
        module.setup()
        return module

    return make


@pytest.fixture
def numbered(serving: Callable[..., FashionMNISTDataModule]) -> Callable[..., FashionMNISTDataModule]:
    """Make a datamodule of 1000 training and 100 test images, whose labels are the samples' numbers."""

    def images(count: int) -> Images:
        return Images(torch.zeros(count, 1, 28, 28, dtype=torch.uint8), torch.arange(count))

    def make(rank: int = 0, world_size: int = 1, epoch: int = 0, num_test: int = 100, **options):
        options = {"val_size": 100, "batch_size": 16, **options}
        return serving(images(1000), images(num_test), rank, world_size, epoch, **options)

    return make
