"""Anybody's data set as tensors in memory: a map-style ``torch.utils.data.Dataset``, as torchvision's are."""

import contextlib
import inspect
import operator
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor
from torchvision.datasets import MNIST

from fmnist_lit.config import ConfigError
from fmnist_lit.data.fashion_mnist import SECONDS_OF_SILENCE, default_socket_timeout
from fmnist_lit.data.images import DataSet, Images
from fmnist_lit.errors import named_error

Split = Callable[..., Any]  # makes a data set when it is told which split
SIZE = (28, 28)
read_before: dict[tuple[Any, ...], DataSet] = {}  # by what was asked for, so that the jobs of a sweep decode once


def read_dataset(make: Split, root: str) -> DataSet:
    """Both splits of a data set.

    Args:
        make: a class, or a ``functools.partial`` of one, that takes ``train=True`` or ``False``, or
            ``split="train"`` or ``"test"``; and, if it wants them, ``root`` and ``download=True``. What it makes has a
            length, gives ``(image, label)`` by number, and should have ``classes``, the names of the labels, and may
            have a ``title``. An image is 28 × 28: a picture of Pillow, or an array or tensor of uint8 or of floats from
            0 to 1; a label is a whole number from 0.
        root: torchvision's root folder.

    Raises:
        ConfigError: naming what it cannot be used for.
    """
    kind = getattr(make, "func", make)
    name = str(getattr(kind, "__name__", kind))
    asked = kind, repr(getattr(make, "keywords", {})), Path(root).absolute()
    if asked not in read_before:
        (dataset, train), (_, test) = (read_split(make, name, options) for options in splits_of(make, name, root))
        classes = names_of_classes(name, getattr(dataset, "classes", None), train, test)
        read_before.clear()  # one at a time: they may be large
        read_before[asked] = DataSet(str(getattr(dataset, "title", name)), classes, train, test)
    return read_before[asked]


def splits_of(make: Split, name: str, root: str) -> list[dict[str, Any]]:
    """The arguments that make the training split and those that make the test split."""
    given = getattr(make, "keywords", {})
    takes = inspect.signature(getattr(make, "func", make)).parameters
    offered = {key: value for key, value in (("root", root), ("download", True)) if key in takes and key not in given}
    if "train" in takes:
        return [{**offered, "train": is_train} for is_train in (True, False)]
    if "split" in takes:
        return [{**offered, "split": split} for split in ("train", "test")]
    raise ConfigError(f"data.source._target_: {name} takes neither train=True|False nor split='train'|'test'")


def read_split(make: Split, name: str, options: dict[str, Any]) -> tuple[Any, Images]:
    """Make one split and decode all of it: as it is, and as tensors."""
    with one_at_a_time(options.get("root")), default_socket_timeout(SECONDS_OF_SILENCE):
        try:
            dataset = make(**options)
        except ConfigError:
            raise
        except Exception as error:  # anybody's code may raise anything
            where = f" from data.data_dir={options['root']}" if "root" in options else ""
            raise ConfigError(f"data.source._target_: {name} cannot be had{where}: {named_error(error)}") from error
    pixels_are_its_data = isinstance(dataset, MNIST) and type(dataset).__getitem__ is MNIST.__getitem__
    if pixels_are_its_data and dataset.transform is None and dataset.target_transform is None:
        images = Images(dataset.data.unsqueeze(1), dataset.targets.long())
    else:
        images = decode_items(dataset, name)
    if not len(images):
        raise ConfigError(f"data.source._target_: {name} has no image ({options})")
    return dataset, images


@contextlib.contextmanager
def one_at_a_time(root: Any) -> Iterator[None]:
    """Let no other process download into the same folder; one that cannot be written to needs no lock."""
    with contextlib.ExitStack() as lock:
        with contextlib.suppress(OSError, TypeError):
            Path(root).mkdir(parents=True, exist_ok=True)
            lock.enter_context(FileLock(Path(root) / ".data.lock"))
        yield


def decode_items(dataset: Any, name: str) -> Images:
    """All images and labels of a split, each looked at."""
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise ConfigError(f"data.source._target_: {name} must have a length and give (image, label) by number")
    pixels = torch.empty(len(dataset), 1, *SIZE, dtype=torch.uint8)
    labels = torch.empty(len(dataset), dtype=torch.int64)
    for number in range(len(dataset)):
        try:
            item = dataset[number]
        except ConfigError:
            raise
        except Exception as error:  # anybody's code may raise anything
            raise ConfigError(f"data.source._target_: {name}[{number}] fails: {named_error(error)}") from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise ConfigError(
                f"data.source._target_: {name}[{number}] is {type(item).__name__}, must be (image, label); "
                "a data set without labels cannot train a classifier"
            )
        pixels[number, 0] = image_as_pixels(item[0], f"{name}[{number}]")
        labels[number] = label_as_number(item[1], f"{name}[{number}]")
    return Images(pixels, labels)


def image_as_pixels(image: Any, which: str) -> Tensor:
    """An image as (28, 28) uint8."""
    if isinstance(image, Image.Image):
        image = image.convert("L")
    try:
        # a copy, since what others own may not be written to
        found = torch.as_tensor(np.array(image) if isinstance(image, Image.Image | np.ndarray) else image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"data.source._target_: the image of {which} is {type(image).__name__}") from error
    shape = tuple(found.shape)
    if shape not in (SIZE, (1, *SIZE), (*SIZE, 1)):
        raise ConfigError(
            f"data.source._target_: the image of {which} is {shape}, must be (28, 28) or (1, 28, 28); "
            "resize it there, in grey"
        )
    found = found.reshape(SIZE)
    if found.dtype == torch.uint8:
        return found
    if not found.is_floating_point() or not ((found >= 0) & (found <= 1)).all():
        raise ConfigError(
            f"data.source._target_: the image of {which} is {found.dtype} from {found.min()} to {found.max()}, "
            "must be uint8 or floats from 0 to 1"
        )
    return (found * 255).round().to(torch.uint8)


def label_as_number(label: Any, which: str) -> int:
    """A label as a whole number from 0."""
    try:
        value = -1 if isinstance(label, bool) else operator.index(label)
    except TypeError:  # a float, a text, several
        value = -1
    if value < 0:
        raise ConfigError(f"data.source._target_: the label of {which} is {label!r}, must be a whole number from 0")
    return value


def names_of_classes(name: str, classes: Any, *splits: Images) -> tuple[str, ...]:
    """What the labels are called: as the data set says, or else by their numbers."""
    highest = max(int(images.labels.max()) for images in splits)
    if classes is None:
        classes = [str(number) for number in range(highest + 1)]
    named = isinstance(classes, Sequence) and not isinstance(classes, str)
    if not named or len(classes) <= highest or len(classes) < 2:
        raise ConfigError(
            f"data.source._target_: classes of {name} must be a list of at least two names, one for each label; "
            f"labels go up to {highest}"
        )
    return tuple(map(str, classes))
