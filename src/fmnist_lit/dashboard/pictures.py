"""Pictures in TensorBoard by epoch: training images, the first layer's weights, and what validation answered."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from fmnist_lit.classifier import Classifier
from fmnist_lit.dashboard.evaluated import EvaluatedSplit, show_confusion, show_mistakes, show_precision_recall
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.data.batches import AUGMENTATION_STREAM, epoch_generator
from fmnist_lit.loggers.tensorboard import TensorBoardLogger, tensorboards
from fmnist_lit.processes.collectives import gather_rows
from fmnist_lit.report.sheets import image_sheet, weight_sheet

NUM_IMAGES = 40  # of the training images
NUM_FILTERS = 64  # of the first layer
PIXELS = 28


class Pictures(Callback):
    """Pictures by epoch, of which 0 is before training; nothing is evaluated a second time for them.

    Those of answers are of the first split that each epoch evaluates, and only where all its images are.

    Args:
        training_images: the first ones with their labels, as augmentation makes them in each epoch.
        weights: those of the first layer, if that is linear over the pixels, or convolutional.
        confusion_matrix: which class is taken for which.
        mistakes: the wrong predictions of the highest probability.
        precision_recall: a curve a class, of it against the rest.
    """

    copes_with_chunks = True

    def __init__(
        self,
        training_images: bool = True,
        weights: bool = True,
        confusion_matrix: bool = True,
        mistakes: bool = True,
        precision_recall: bool = True,
    ) -> None:
        self.training_images = training_images
        self.weights = weights
        of_answers = {
            show_confusion: confusion_matrix,
            show_mistakes: mistakes,
            show_precision_recall: precision_recall,
        }
        self.of_answers = [show for show, is_wanted in of_answers.items() if is_wanted]
        self.is_awaited = False
        self.logits: list[Tensor] = []
        self.hook: Any = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.global_step == 0:
            self.show_weights(trainer, module, 0)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        data = data_of(trainer)
        if self.training_images and (data.augmentation or trainer.current_epoch == 0):
            for logger in tensorboards(trainer):
                show_training_images(logger, data, trainer.current_epoch + 1)

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Classifier)
        self.logits = []
        if self.of_answers:
            self.hook = module.model.register_forward_hook(self.take_answer)

    def on_validation_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_index: int, dataloader_idx: int = 0
    ) -> None:
        self.is_awaited = dataloader_idx == 0

    def take_answer(self, model: nn.Module, inputs: Any, logits: Tensor) -> None:
        """Keep the first logits of a batch; those of its mirror images may follow."""
        if self.is_awaited:
            self.logits.append(logits.detach())
            self.is_awaited = False

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.hook is not None:
            self.hook.remove()
        if self.logits:
            self.logits = [gather_rows(trainer, torch.cat(self.logits).float())]

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Classifier)
        if not module.epoch_is_finished:
            return
        epoch = trainer.current_epoch + 1
        self.show_weights(trainer, module, epoch)
        if not self.logits or module.evaluated_step != trainer.global_step:
            return
        split, data = module.watched[0], data_of(trainer)
        images = getattr(data, f"{split}_images")
        if len(images) == len(self.logits[0]):
            answers = EvaluatedSplit(split, images, data.classes, self.logits[0].softmax(dim=1).cpu().numpy())
            for logger in tensorboards(trainer):
                for show in self.of_answers:
                    show(logger, answers, epoch)

    def show_weights(self, trainer: Trainer, module: LightningModule, epoch: int) -> None:
        """Show the first layer's weights, if they are wanted."""
        assert isinstance(module, Classifier)
        for logger in tensorboards(trainer) if self.weights else ():
            show_first_layer(logger, module.model, epoch)


def data_of(trainer: Trainer) -> FashionMNISTDataModule:
    """The data that a fit is about."""
    data: FashionMNISTDataModule = trainer.datamodule  # type: ignore[attr-defined]  # set by Trainer.fit
    return data


def show_training_images(logger: TensorBoardLogger, data: FashionMNISTDataModule, epoch: int) -> None:
    """The first training images, as the network sees them in an epoch (from 1)."""
    images = data.train_images[:NUM_IMAGES]
    pixels = images.pixels
    if data.augmentation:
        generator = epoch_generator(data.seed, epoch - 1, AUGMENTATION_STREAM)
        draws = data.augmentation.draw(len(data.train_images), generator, images.labels.device)
        pixels = data.augmentation.apply(pixels, draws[:NUM_IMAGES])
    captions = [data.classes[label] for label in images.labels.tolist()]
    sheet = image_sheet(pixels[:, 0].cpu().numpy(), captions)
    logger.log_image(
        "images/train", sheet, epoch, f"The first {len(images)} training images, as the network sees them."
    )


def show_first_layer(logger: TensorBoardLogger, model: nn.Module, epoch: int) -> None:
    """The weights of the first layer as images, a tile a unit, if it has any that can be seen so."""
    found = first_layer(model)
    if found is None:
        return
    name, weights = found
    scale = max(1, 2 * PIXELS // weights.shape[-1])
    sheet = weight_sheet(weights[:NUM_FILTERS], scale=scale)
    logger.log_image(
        "weights/first_layer",
        sheet,
        epoch,
        f"The first {min(NUM_FILTERS, len(weights))} of {len(weights)} units of {name}, a tile each: "
        "what light on a pixel does to it. Red adds, blue takes away; the darkest is the strongest of the sheet.",
    )


def first_layer(model: nn.Module) -> tuple[str, np.ndarray] | None:
    """The name and the weights (units, rows, columns) of the first layer over the pixels; None for other models."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            if module.in_features != PIXELS**2:
                return None
            return name, module.weight.detach().reshape(-1, PIXELS, PIXELS).float().cpu().numpy()
        if isinstance(module, nn.Conv2d):
            return name, module.weight.detach()[:, 0].float().cpu().numpy()
    return None
