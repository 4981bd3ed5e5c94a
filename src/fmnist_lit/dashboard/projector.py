"""TensorBoard's projector: where the last hidden layer puts the test images, before and after training."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn

from fmnist_lit.classifier import Classifier
from fmnist_lit.dashboard.pictures import data_of
from fmnist_lit.dashboard.undisturbed import undisturbed
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.loggers.tensorboard import tensorboards
from fmnist_lit.report.sheets import sheet_to_png
from fmnist_lit.run.files import write_durably

MOMENTS = ("before_training", "after_training")  # the one shown first comes last


class Projector(Callback):
    """Keeps the last hidden layer's activations of test images, with the images and what they were taken for.

    Those after training are of the weights that are tested. They are files in the folder ``projector`` of the run, of
    a few MB, which a run that goes on replaces.

    Args:
        num_images: the first ones of the test set.
    """

    copes_with_chunks = True

    def __init__(self, num_images: int = 1000) -> None:
        self.num_images = num_images

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.global_step == 0:
            self.keep(trainer, module, MOMENTS[0])

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        if "test" in data_of(trainer).watched:  # no test follows
            self.keep(trainer, module, MOMENTS[1])

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.keep(trainer, module, MOMENTS[1])

    def keep(self, trainer: Trainer, module: LightningModule, moment: str) -> None:
        """Write the activations of a moment beside those of others."""
        assert isinstance(module, Classifier)
        for logger in tensorboards(trainer):
            write_projection(Path(logger.log_dir), moment, module.model, data_of(trainer), self.num_images)


def write_projection(
    run_dir: Path, moment: str, model: nn.Module, data: FashionMNISTDataModule, num_images: int
) -> None:
    """Write what TensorBoard's projector shows of a moment; nothing of a model that has no layer with weights."""
    images = data.test_images[:num_images]
    hidden, logits = last_hidden(model, data.scale(images.pixels).to(next(model.parameters()).dtype))
    if hidden is None:
        return
    folder = run_dir / "projector"
    names = [" ".join(name.split()) for name in data.classes]
    rows = [f"{names[true]}\t{names[taken]}\n" for true, taken in zip(images.labels, logits.argmax(1), strict=True)]
    points = io.BytesIO()
    np.savetxt(points, hidden.numpy(), fmt="%.3g", delimiter="\t")
    write(folder / f"{moment}.tsv", points.getvalue())
    write(folder / f"{moment}_labels.tsv", "".join(["class\ttaken for\n", *rows]).encode())
    write(folder / "images.png", sprite(images.pixels[:, 0].cpu().numpy()))
    there = [moment for moment in reversed(MOMENTS) if (folder / f"{moment}.tsv").exists()]
    write(run_dir / "projector_config.pbtxt", "".join(map(entry, there)).encode())


def write(path: Path, content: bytes) -> None:
    """Replace a file."""
    write_durably(path, lambda file: file.write(content))


def entry(moment: str) -> str:
    """What TensorBoard is told of a moment."""
    return (
        f'embeddings {{\n  tensor_name: "{moment}"\n  tensor_path: "projector/{moment}.tsv"\n'
        f'  metadata_path: "projector/{moment}_labels.tsv"\n'
        '  sprite {\n    image_path: "projector/images.png"\n'
        "    single_image_dim: 28\n    single_image_dim: 28\n  }\n}\n"
    )


@torch.no_grad()
def last_hidden(model: nn.Module, images: Tensor) -> tuple[Tensor | None, Tensor]:
    """What the last layer with weights is given, (N, units), and the logits, on the CPU; None where there is none."""
    seen: list[Tensor] = []

    def note(module: nn.Module, inputs: Any) -> None:
        seen[:] = [values for values in inputs if isinstance(values, Tensor)] or seen

    layers = [module for module in model.modules() if [*module.parameters()] and not [*module.children()]]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        with undisturbed(model, images.device):
            logits = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return (seen[0].flatten(1).float().cpu() if seen else None), logits.float().cpu()


def sprite(images: np.ndarray) -> bytes:
    """Images (N, 28, 28) uint8, row by row in a square, as TensorBoard cuts them out again."""
    side = int(np.ceil(np.sqrt(len(images))))
    filled = np.pad(images, ((0, side * side - len(images)), (0, 0), (0, 0)))
    return sheet_to_png(
        Image.fromarray(filled.reshape(side, side, 28, 28).swapaxes(1, 2).reshape(side * 28, side * 28))
    )
