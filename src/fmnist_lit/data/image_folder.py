"""Pictures of one's own, in folders that are named by class."""

import logging
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from fmnist_lit.config import ConfigError
from fmnist_lit.data.photos import PhotoError, find_photos, open_photo
from fmnist_lit.data.pixels import Background

log = logging.getLogger(__name__)

SPLIT_SEED = 1  # which pictures test, where no folder says it
NAMED_AT_MOST = 5  # files that are passed over


class ImageFolder(Dataset[tuple[np.ndarray, int]]):
    """Pictures of any size in ``root/CLASS/…``, or ``root/train/CLASS/…`` and ``root/test/CLASS/…``, made 28 × 28.

    They are converted as ``predict`` converts photos: grey, a light garment on black. A file that is no picture is
    passed over, and named.

    Args:
        root: the folder; its sub-folders name the classes, in alphabetical order.
        train: the training pictures, or the test pictures.
        test_share: share of each class that tests where there is no folder ``test``, always the same pictures.
        background: ``black``, ``white``, or ``auto`` to judge each by its border.
        trim: cut a plain background away, so that the garment fills the frame.

    Raises:
        ConfigError: if there are no such folders, or no picture in one.
    """

    def __init__(
        self, root: str, train: bool, test_share: float = 0.2, background: Background = "auto", trim: bool = False
    ) -> None:
        self.title = Path(root).name
        if not 0 < test_share < 1:
            raise ConfigError(f"data.source.test_share={test_share}: must be a number > 0 and < 1")
        splits = [Path(root) / split for split in ("train", "test")]
        apart = all(split.is_dir() for split in splits)
        folder = splits[0 if train else 1] if apart else Path(root)
        self.classes = names_of_folders(splits[0] if apart else folder)
        if apart and (unknown := set(names_of_folders(splits[1])) - set(self.classes)):
            raise ConfigError(f"data.data_dir={root}: test/{min(unknown)} has no counterpart in train")
        passed_over: list[Path] = []
        self.images: list[np.ndarray] = []
        self.labels: list[int] = []
        for label, name in enumerate(self.classes):
            found = read_folder(folder / name, background, trim, passed_over) if (folder / name).is_dir() else []
            if not found and (train or not apart):
                raise ConfigError(f"data.data_dir={root}: there is no picture in {folder / name}")
            chosen = found if apart else share(found, test_share, train)
            self.images += chosen
            self.labels += [label] * len(chosen)
        if passed_over and train:
            named = ", ".join(map(str, passed_over[:NAMED_AT_MOST]))
            more = f" and {len(passed_over) - NAMED_AT_MOST} more" if len(passed_over) > NAMED_AT_MOST else ""
            log.warning("%d files are no pictures that can be read: %s%s", len(passed_over), named, more)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        return self.images[number], self.labels[number]


def names_of_folders(folder: Path) -> list[str]:
    """The classes that the folders in a folder name.

    Raises:
        ConfigError: if there are fewer than two.
    """
    if not folder.is_dir():
        raise ConfigError(f"data.data_dir={folder}: there is no such folder")
    names = sorted(child.name for child in folder.glob("*") if child.is_dir() and not child.name.startswith("."))
    if len(names) < 2:
        raise ConfigError(
            f"data.data_dir={folder}: has {len(names)} folders, must have one for each class, at least two, "
            "with its pictures in it"
        )
    return names


def read_folder(folder: Path, background: Background, trim: bool, passed_over: list[Path]) -> list[np.ndarray]:
    """The pictures in a folder, (28, 28) uint8 each, in the order of their names; what cannot be read is noted."""
    pictures = []
    for found in find_photos([folder], passed_over):
        try:
            if isinstance(found, tuple):
                raise found[1]
            pictures.append(open_photo(found, background, trim).pixels)
        except PhotoError:
            passed_over.append(found[0] if isinstance(found, tuple) else found)
    return pictures


def share(pictures: list[np.ndarray], test_share: float, train: bool) -> list[np.ndarray]:
    """The training or the test pictures of one class; at least one of each where there are two."""
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    tests = set(order[: min(len(pictures) - 1, max(1, round(test_share * len(pictures))))])
    return [picture for number, picture in enumerate(pictures) if (number not in tests) == train]
