"""A trained classifier: from a checkpoint, which may be a stranger's, to the probabilities of ten classes."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor, nn

from fmnist_lit.config import ConfigError
from fmnist_lit.config.check import check_value
from fmnist_lit.config.rules import DATASETS
from fmnist_lit.config.tree import walk
from fmnist_lit.config.trust import require_trusted
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.data.images import CLASSES, Scaling
from fmnist_lit.model import MLP
from fmnist_lit.run.checkpoint import CheckpointError, load_checkpoint
from fmnist_lit.run.files import read_yaml
from fmnist_lit.trained.find import Trained, find_trained
from fmnist_lit.trained.photos import Background, PictureError, read_picture, to_pixels

BATCH = 1000  # images that predict takes at a time
# Of what a configuration may name, all that is built from a checkpoint's
TRUSTED = {
    "model": re.compile(r"fmnist_lit\.model\.MLP"),
    "loss": re.compile(r"torch\.nn\.[A-Z]\w*Loss|fmnist_lit\.losses\.[A-Z]\w*"),
    "data": re.compile(r"fmnist_lit\.data\.FashionMNISTDataModule"),
}


@dataclass(frozen=True)
class Predictions:
    """What a classifier says about N images.

    Attributes:
        probabilities: (N, 10) float32, the softmax of the logits, whatever loss the run minimised.
    """

    probabilities: Tensor

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def class_indices(self) -> Tensor:
        """The most probable class of each image, (N,) int64."""
        return self.probabilities.argmax(dim=1)

    @property
    def labels(self) -> list[str]:
        """The name of the most probable class of each image."""
        return [CLASSES[index] for index in self.class_indices]


@dataclass(frozen=True)
class TrainedClassifier:
    """The model of a run, in evaluation mode on the CPU, with all that is needed to use it.

    Attributes:
        source: the file it is from, and what is known about its run.
        model: scaled images (N, 1, 28, 28) to logits (N, 10).
        scaling: raw pixels to what ``model`` was trained on.
        configuration: of the run, nested plain values.
        dataset: ``fashion_mnist`` or ``synthetic``.
        metrics: the checkpoint's figures by name, such as ``val_accuracy`` (a fraction); those that are known.
    """

    source: Trained
    model: nn.Module
    scaling: Scaling
    configuration: dict[str, Any]
    dataset: str
    metrics: dict[str, float]

    classes = CLASSES

    @torch.inference_mode()
    def predict(self, images: Any, background: Background = "auto") -> Predictions:
        """Classify images.

        Args:
            images: as Fashion-MNIST has them, light on black: an array or a tensor (28, 28), (N, 28, 28) or
                (N, 1, 28, 28), uint8 in 0..255 or floats in 0..1. Or pictures of any size, which are made so: a path
                or a PIL image, or a sequence of them.
            background: of pictures: ``black``, ``white``, or ``auto`` to tell by their edge.

        Raises:
            ValueError: if the shape or the values are others.
            fmnist_lit.pictures.PictureError: if a picture cannot be used; it is a ValueError too.
        """
        pixels = as_pixels(images, background)
        dtype = next(self.model.parameters()).dtype
        logits = [self.model(self.scaling(part).to(dtype)) for part in pixels.split(BATCH)]
        return Predictions(torch.cat(logits).softmax(dim=1).float())


def as_pixels(images: Any, background: Background = "auto") -> Tensor:
    """What ``predict`` takes, as (N, 1, 28, 28) in 0..255, uint8 or float."""
    if isinstance(images, str | Path | Image.Image):
        images = [images]
    if isinstance(images, Sequence) and all(isinstance(image, str | Path | Image.Image) for image in images):
        if not images:
            return torch.empty(0, 1, 28, 28, dtype=torch.uint8)
        pictures = [
            to_pixels(image, background) if isinstance(image, Image.Image) else picture(image, background)
            for image in images
        ]
        return torch.from_numpy(np.stack(pictures)).unsqueeze(1)
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


def picture(file: str | Path, background: Background) -> np.ndarray:
    """As ``read_picture``, with the file in the message."""
    try:
        return read_picture(file, background)
    except PictureError as error:
        raise PictureError(f"{file}: {error}") from error


def load(path: str | Path) -> TrainedClassifier:
    """As ``fmnist_lit.load_classifier``."""
    source = find_trained(path)
    if source.file.suffix == ".safetensors":
        return load_safetensors(source, source.file.read_bytes())
    content = load_checkpoint(source.file)
    state = {name.removeprefix("model."): t for name, t in content["state_dict"].items() if name.startswith("model.")}
    is_after_epoch = content.get("position") is None and isinstance(content.get("metrics"), dict)
    figures = content["metrics"] if is_after_epoch else {}  # else of other weights
    metrics = {
        f"{split}_{kind}": source.results.get(f"{split}_{kind}", figures.get(f"{kind}/{split}"))
        for split in ("test", "val")
        for kind in ("accuracy", "loss")
    }
    return rebuild(source, content["hyper_parameters"], state, metrics)


def load_safetensors(source: Trained, content: bytes) -> TrainedClassifier:
    """From the content of what ``export --format safetensors`` writes.

    Raises:
        CheckpointError: if it is damaged, or something else.
    """
    try:
        from safetensors.torch import load as load_tensors
    except ImportError:
        raise CheckpointError(f"{source.file}: safetensors is not installed; fmnist_lit[export] brings it") from None
    try:
        state = load_tensors(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = {key: json.loads(value) for key, value in header["__metadata__"].items() if key != "format"}
        hyper_parameters = metadata["configuration"] | {key: metadata[key] for key in ("dataset", "scaling")}
        metrics = metadata["metrics"]
    except Exception as error:  # damaged in any way
        raise CheckpointError(f"{source.file}: not weights that fmnist_lit exported ({first_line(error)})") from error
    return rebuild(source, hyper_parameters, state, metrics)


def rebuild(
    source: Trained, hyper_parameters: Mapping[str, Any], state: dict[str, Tensor], metrics: Mapping[str, Any]
) -> TrainedClassifier:
    """The classifier that a file describes; only what is on the lists is built, nothing in it is executed.

    Raises:
        CheckpointError: naming the file, if it is not such a description or the weights are not of that model.
    """
    try:
        check(hyper_parameters, "model")
        options = {key: value for key, value in hyper_parameters["model"].items() if key != "_target_"}
        with torch.device("meta"):  # no memory for what the weights below may not fit, and no draw from the generator
            model = MLP(**options)
        model.load_state_dict(state, assign=True)
        if not all(weights.isfinite().all() for weights in state.values()):
            raise ValueError("its weights are not finite numbers")
        dataset = hyper_parameters.get("dataset")
        if dataset not in DATASETS:
            raise ValueError(f"dataset={dataset}: must be {' or '.join(DATASETS)}")
        scaling = scaling_of(hyper_parameters)
        known = {name: float(value) for name, value in metrics.items() if value is not None}
    except Exception as error:
        raise CheckpointError(f"{source.file}: not a classifier that can be rebuilt ({first_line(error)})") from error
    if next(model.parameters()).dtype != torch.float64:
        model = model.float()  # of half precision too, which loses nothing
    return TrainedClassifier(
        source, model.eval().requires_grad_(False), scaling, dict(hyper_parameters), dataset, known
    )


def scaling_of(hyper_parameters: Mapping[str, Any]) -> Scaling:
    """What a run did to raw pixels."""
    if "scaling" in hyper_parameters:
        return Scaling(*(float(hyper_parameters["scaling"][key]) for key in ("mean", "std")))
    if hyper_parameters["data"]["normalize"]:  # a checkpoint of before they were saved
        raise ValueError("data.normalize=true, but mean and standard deviation are not in it")
    return Scaling()


def check(hyper_parameters: Mapping[str, Any], *groups: str) -> None:
    """Refuse the part of a configuration that is about to be built, unless it could have been a run's own.

    Raises:
        ConfigError: naming the key.
    """
    part = {group: hyper_parameters[group] for group in groups}
    if "${" in repr(part):  # a run's are resolved; resolving one could tell what is in the environment
        raise ConfigError(f"{', '.join(groups)}: must hold values, not references")
    for path, value in walk(OmegaConf.create(part)):
        require_trusted(path, value)
        check_value(".".join(path), path, value)
        if path[-1] == "_target_" and not TRUSTED[path[0]].fullmatch(value):
            raise ConfigError(f"{'.'.join(path)}={value}: not what a checkpoint may name")
    for group in groups:
        if "_target_" not in part[group]:
            raise ConfigError(f"{group}._target_: missing")


def first_line(error: Exception) -> str:
    """What an error says, in one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def open_data(classifier: TrainedClassifier, data_dir: str | Path | None = None) -> FashionMNISTDataModule:
    """The data set that a classifier's run was trained on, and no other; not loaded yet.

    Args:
        classifier: of any run.
        data_dir: torchvision's root folder; None for ``$FMNIST_DATA_DIR``, or else where the run had it.

    Raises:
        ConfigError: if the checkpoint does not describe it as a run does.
    """
    check(classifier.configuration, "data")
    options = {key: value for key, value in classifier.configuration["data"].items() if key != "_target_"}
    options["source"] = classifier.dataset
    options["data_dir"] = (
        data_dir or os.environ.get("FMNIST_DATA_DIR") or as_the_run_had(options.get("data_dir", "data"), classifier)
    )
    return FashionMNISTDataModule(**options)


def as_the_run_had(data_dir: str, classifier: TrainedClassifier) -> Path:
    """A folder that the run named from where it was started, which need not be here."""
    try:
        hydra = read_yaml(classifier.source.folder / ".hydra" / "hydra.yaml")
        there = Path(hydra["hydra"]["runtime"]["cwd"]) / data_dir
    except (ConfigError, LookupError, TypeError):
        return Path(data_dir)
    return there if there.is_dir() else Path(data_dir)
