"""What learning looks like inside, by epoch: weights, gradients, activations, dead units, sizes of steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules import activation

from fmnist_lit.classifier import Classifier
from fmnist_lit.dashboard.pictures import data_of
from fmnist_lit.dashboard.symptoms import Symptoms
from fmnist_lit.dashboard.undisturbed import undisturbed
from fmnist_lit.loggers.tensorboard import TensorBoardLogger, tensorboards

NUM_IMAGES = 1000  # of training for the gradients, of validation for the activations, the same ones each time
NUM_BINS = 64
CAN_DIE = (nn.ReLU, nn.ReLU6)  # a unit that is 0 for every image has no gradient


@dataclass(frozen=True)
class View:
    """A look into a model.

    Attributes:
        images: how many validation images were looked at.
        loss: of the training images that were.
        weights, gradients: of each parameter that learns, by its name; the gradients of ``loss``.
        activations: what each layer with weights, and each activation function, gives for the validation images.
        dead: the share of units that are 0 for every one of these, of each layer of ReLUs.
    """

    images: int
    loss: float
    weights: dict[str, Tensor]
    gradients: dict[str, Tensor]
    activations: dict[str, Tensor]
    dead: dict[str, float]


class Inside(Callback):
    """Looks into the model before training, as epoch 0, and after each epoch, with 1000 images; the first rank does.

    Gradients and activations are those of an evaluation, with dropout off and normalisation by running averages: then
    nothing of the run changes. The ratio of update to weight, ‖Δw‖ / ‖w‖, is of the last optimiser step of an epoch.

    Args:
        histograms: of weights, gradients and activations.
        dead_units: their share in each layer of ReLUs.
        gradients: the norm of the whole gradient, and of that of each weight matrix.
        updates: the ratio of update to weight.
        warnings: a line on the screen where units die, gradients vanish or explode, or the loss stands still.
    """

    copes_with_chunks = True

    def __init__(
        self,
        histograms: bool = True,
        dead_units: bool = True,
        gradients: bool = True,
        updates: bool = True,
        warnings: bool = True,
    ) -> None:
        shows = {show_histograms: histograms, show_dead_units: dead_units, show_gradient_norms: gradients}
        self.shows = [show for show, is_wanted in shows.items() if is_wanted]
        self.updates = updates
        self.symptoms = Symptoms() if warnings else None
        self.before_step: dict[str, Tensor] = {}
        self.ratios: dict[str, Tensor] = {}
        self.hooks: list[Any] = []

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Classifier)
        if trainer.global_step == 0:
            self.look(trainer, module, 0)
        if self.updates and tensorboards(trainer):
            self.watch_steps(trainer, module)

    def watch_steps(self, trainer: Trainer, module: Classifier) -> None:
        """Compare the weights before and after the last step of each epoch."""
        weights = {name: weight for name, weight in learning(module.model).items() if weight.ndim > 1}

        def before(*call: Any) -> None:
            if module.is_last_batch:
                self.before_step = {name: weight.detach().clone() for name, weight in weights.items()}

        def after(*call: Any) -> None:
            for name, weight in self.before_step.items():
                self.ratios[name] = (weights[name].detach() - weight).norm() / weight.norm()
            self.before_step = {}

        optimizer = trainer.optimizers[0]
        self.hooks = [optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Classifier)
        if module.epoch_is_finished:
            self.look(trainer, module, trainer.current_epoch + 1)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        for hook in self.hooks:
            hook.remove()

    def look(self, trainer: Trainer, module: Classifier, epoch: int) -> None:
        """Show what there is inside after ``epoch`` epochs."""
        loggers = tensorboards(trainer)
        if trainer.is_global_zero and (self.symptoms is not None or (self.shows and loggers)):
            data = data_of(trainer)
            training = data.train_images[:NUM_IMAGES]
            validation = data.val_images[:NUM_IMAGES] if len(data.val_images) else training
            dtype = next(module.model.parameters()).dtype
            pixels = (data.scale(images.pixels).to(dtype) for images in (training, validation))
            view = look_inside(module.model, module.loss, training.labels, *pixels)
            for logger in loggers:
                for show in self.shows:
                    show(logger, view, epoch)
            if self.symptoms is not None:
                self.symptoms.notice(epoch, view.images, view.loss, gradient_norms(view.gradients), view.dead)
        for logger in loggers:
            for name, ratio in self.ratios.items():
                logger.experiment.add_scalar(f"update_ratio/{name}", ratio, epoch)


def look_inside(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], labels: Tensor, training: Tensor, validation: Tensor
) -> View:
    """Look into a model; its state, its gradients and torch's generators stay as they are.

    Args:
        model: on the device of the images.
        loss: of logits and labels.
        labels: of the training images.
        training: images (N, 1, 28, 28) whose gradient is looked at.
        validation: images whose activations are looked at.
    """
    weights = learning(model)
    with undisturbed(model, labels.device):
        with torch.enable_grad():
            value = loss(model(training), labels)
            gradients = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
        with torch.no_grad(), collecting(model) as activations:
            model(validation)
    dead = {
        name: float((output.detach() == 0).transpose(0, 1).flatten(1).all(dim=1).float().mean())
        for name, (layer, output) in activations.items()
        if isinstance(layer, CAN_DIE)
    }
    return View(
        len(validation),
        float(value.detach()),
        {name: weight.detach() for name, weight in weights.items()},
        {name: each for name, each in zip(weights, gradients, strict=True) if each is not None},
        {name: output for name, (_, output) in activations.items()},
        dead,
    )


def learning(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that learn, by names that say the layer's kind: ``1_Linear.weight``."""
    return {
        f"{label(name, module)}.{own}": parameter
        for name, module in model.named_modules()
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad
    }


def label(name: str, module: nn.Module) -> str:
    """What a layer is called in tags."""
    return f"{name}_{type(module).__name__}" if name else type(module).__name__


@contextmanager
def collecting(model: nn.Module) -> Iterator[dict[str, tuple[nn.Module, Tensor]]]:
    """What layers with weights and activation functions give in this block, the last time that they run."""
    outputs: dict[str, tuple[nn.Module, Tensor]] = {}
    hooks = []

    def keep(name: str) -> Callable[..., None]:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                outputs[name] = module, output.clone()  # what follows may work in its place

        return note

    for name, module in model.named_modules():
        is_leaf = not any(module.children())
        if is_leaf and (any(True for _ in module.parameters()) or type(module).__name__ in activation.__all__):
            hooks.append(module.register_forward_hook(keep(label(name, module))))
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def show_histograms(logger: TensorBoardLogger, view: View, epoch: int) -> None:
    """Histograms of weights, gradients and activations."""
    for kind in ("weights", "gradients", "activations"):
        for name, values in getattr(view, kind).items():
            add_histogram(logger, f"{kind}/{name}", values, epoch)


def add_histogram(logger: TensorBoardLogger, tag: str, values: Tensor, epoch: int) -> None:
    """A histogram, counted where the values are; those that are not finite are left out."""
    values = values.float().flatten()
    values = values[values.isfinite()]
    if not len(values):
        return
    low, high = values.min().item(), values.max().item()
    high = max(high, low + 1e-6 * max(1.0, abs(low)))
    counts = torch.histc(values, NUM_BINS, low, high).tolist()
    limits = torch.linspace(low, high, NUM_BINS + 1, dtype=torch.float64)[1:].tolist()
    squares = values.square().sum().item()
    logger.experiment.add_histogram_raw(
        tag, low, high, len(values), values.sum().item(), squares, limits, counts, epoch
    )


def show_dead_units(logger: TensorBoardLogger, view: View, epoch: int) -> None:
    """The share of dead units of each layer of ReLUs."""
    for name, share in view.dead.items():
        logger.experiment.add_scalar(f"dead_units/{name}", share, epoch)


def show_gradient_norms(logger: TensorBoardLogger, view: View, epoch: int) -> None:
    """The norm of the whole gradient, and of that of each weight matrix."""
    for name, norm in gradient_norms(view.gradients).items():
        logger.experiment.add_scalar(f"gradient_norm/{name}", norm, epoch)


def gradient_norms(gradients: dict[str, Tensor]) -> dict[str, float]:
    """Of each weight matrix, and of ``all`` together."""
    norms = {name: float(gradient.norm()) for name, gradient in gradients.items()}
    whole = sum(norm**2 for norm in norms.values()) ** 0.5
    return {"all": whole, **{name: norm for name, norm in norms.items() if gradients[name].ndim > 1}}
