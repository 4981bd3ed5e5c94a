"""A trained classifier: from images or photos to the probabilities of the classes."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fmnist_lit.data.images import CLASSES, Scaling
from fmnist_lit.data.photos import PhotoError, PhotoWarning, open_photo
from fmnist_lit.data.pixels import Background, convert
from fmnist_lit.run.find import Trained

IMAGES_AT_A_TIME = 1000  # so that predicting any number of them takes bounded memory


@dataclass(frozen=True)
class Predictions:
    """What a classifier predicts for N images.

    Attributes:
        probabilities: (N, C) float32, the softmax of the logits, whatever loss the run minimised.
        classes: what each of the C labels is called.
    """

    probabilities: Tensor
    classes: tuple[str, ...] = CLASSES

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def class_indices(self) -> Tensor:
        """The most probable class of each image, (N,) int64."""
        return self.probabilities.argmax(dim=1)

    @property
    def labels(self) -> list[str]:
        """The name of the most probable class of each image."""
        return [self.classes[index] for index in self.class_indices]


@dataclass(frozen=True)
class TrainedClassifier:
    """The model of a run, in evaluation mode on the CPU, with all that is needed to use it.

    Attributes:
        source: the file that it was loaded from, and what is known about its run.
        model: scaled images (N, 1, 28, 28) to logits (N, C).
        scaling: from raw pixels to what ``model`` was trained on.
        configuration: of the run, nested plain values.
        dataset: ``fashion_mnist``, ``synthetic``, or the name of somebody's own.
        classes: what each of the C labels is called.
        metrics: the checkpoint's known figures by name, such as ``val_accuracy`` (a fraction).
    """

    source: Trained
    model: nn.Module
    scaling: Scaling
    configuration: dict[str, Any]
    dataset: str
    classes: tuple[str, ...]
    metrics: dict[str, float]

    @torch.inference_mode()
    def predict(self, images: Any, background: Background = "auto", trim: bool = False) -> Predictions:
        """Classify images.

        Args:
            images: like Fashion-MNIST's, light on black: an array or a tensor (28, 28), (N, 28, 28) or
                (N, 1, 28, 28), uint8 in 0..255 or floats in 0..1. Or photos of any size, which are converted to that:
                a path or a PIL image, or a sequence of them.
            background: of photos: ``black``, ``white``, or ``auto`` to judge by their border.
            trim: of photos: cut a plain background away first, so that the garment fills the frame.

        Warns:
            PhotoWarning: if it is in doubt how a photo was to be converted.

        Raises:
            ValueError: if shape, type or values are others.
            fmnist_lit.data.photos.PhotoError: if a photo cannot be used; it is a ValueError too.
        """
        pixels = as_pixels(images, background, trim)
        dtype = next(self.model.parameters()).dtype
        logits = [self.model(self.scaling(part).to(dtype)) for part in torch.split(pixels, IMAGES_AT_A_TIME)]
        return Predictions(torch.cat(logits).softmax(dim=1).float(), self.classes)


def as_pixels(images: Any, background: Background = "auto", trim: bool = False) -> Tensor:
    """Whatever ``predict`` takes, as (N, 1, 28, 28) in 0..255, uint8 or float."""
    if isinstance(images, str | Path | Image.Image):
        images = [images]
    if isinstance(images, Sequence) and all(isinstance(image, str | Path | Image.Image) for image in images):
        if not images:
            return torch.empty(0, 1, 28, 28, dtype=torch.uint8)
        return torch.from_numpy(np.stack([photo_pixels(image, background, trim) for image in images])).unsqueeze(1)
    pixels = torch.as_tensor(images, device="cpu")
    if pixels.shape == (28, 28):
        pixels = pixels.unsqueeze(0)
    if pixels.ndim == 3:
        pixels = pixels.unsqueeze(1)
    if pixels.ndim != 4 or pixels.shape[1:] != (1, 28, 28):
        raise ValueError(f"images {tuple(pixels.shape)}: must be (28, 28), (N, 28, 28) or (N, 1, 28, 28)")
    if pixels.dtype == torch.uint8:
        return pixels
    if not pixels.is_floating_point() or not ((pixels >= 0) & (pixels <= 1)).all():
        raise ValueError(f"images of {pixels.dtype}: must be uint8 in 0..255 or floats in 0..1")
    return pixels * 255


def photo_pixels(photo: str | Path | Image.Image, background: Background, trim: bool) -> np.ndarray:
    """A photo as (28, 28) uint8.

    Raises:
        PhotoError: naming the file, if it cannot be used.
    """
    try:
        if isinstance(photo, Image.Image):
            converted = convert(photo, background, trim)
        else:
            converted = open_photo(photo, background, trim)
    except PhotoError as error:
        raise PhotoError(f"{photo}: {error}") from error
    if converted.warning:
        advice = "background='black' or 'white' says it, trim=True cuts a plain one away"
        name = "a picture" if isinstance(photo, Image.Image) else photo
        warnings.warn(f"{name}: {converted.warning}; {advice}", PhotoWarning, stacklevel=2)
    return converted.pixels
