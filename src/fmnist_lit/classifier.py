"""The LightningModule as Lightning's own documentation would write it: a model, a loss, an optimiser, a schedule."""

from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fmnist_lit.config import ConfigError
from fmnist_lit.losses import l1_penalty
from fmnist_lit.metrics import EpochProgress, EvaluationMetric
from fmnist_lit.processes.collectives import sample_weight


class Classifier(LightningModule):
    """Trains ``model`` to map images to logits. ``chunked.ChunkedClassifier`` does the same faster.

    Args:
        model: images (N, 1, 28, 28) to logits (N, C).
        loss: (logits (N, C), class indices (N,)) to the mean over the samples, a scalar.
        optimizer: makes an optimiser from named parameters, or from groups of them.
        scheduler: makes a schedule from an optimiser.
        scheduler_interval: ``step`` or ``epoch``: after what the schedule advances.
        monitor: the metric that a schedule follows which waits for a plateau.
        l1: factor on the sum of |weight| in what is minimised.
        decay_biases: whether the optimiser's weight decay also acts on biases and on the scales of norms.
        flip_average: whether evaluations also average the logits of each image and its mirror image, as another figure.
        watched: names of the validation dataloaders, in their order.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        *,
        scheduler_interval: str = "epoch",
        monitor: str = "loss/val",
        l1: float = 0.0,
        decay_biases: bool = True,
        flip_average: bool = False,
        watched: Sequence[str] = ("val",),
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.lr: float | None = getattr(optimizer, "keywords", {}).get("lr")  # where Lightning's tuner looks for it
        self.scheduler_interval = scheduler_interval
        self.monitor = monitor
        self.l1 = l1
        self.decay_biases = decay_biases
        self.flip_average = flip_average
        self.watched = watched
        self.progress = EpochProgress(self.device)
        self.evaluated: dict[str, EvaluationMetric] = {}
        self.figures: dict[str, float] = {}  # of the last epoch, by TensorBoard tag
        self.images: dict[str, int] = {}  # how many of each split the figures are of
        self.evaluated_step = 0
        self.resumed: dict[str, Any] | None = None  # where in an epoch to go on

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits

    def configure_optimizers(self) -> OptimizerLRScheduler:
        assert self.make_optimizer is not None  # an evaluation needs none
        assert self.make_scheduler is not None
        parameters: list[Any] = list(self.model.named_parameters())
        if not self.decay_biases:
            parameters = [
                {"params": [(name, p) for name, p in parameters if p.ndim > 1]},
                {"params": [(name, p) for name, p in parameters if p.ndim < 2], "weight_decay": 0.0},
            ]
        optimizer = self.make_optimizer(parameters, **({} if self.lr is None else {"lr": self.lr}))
        schedule = self.make_scheduler(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": self.scheduler_interval, "monitor": self.monitor},
        }

    def on_train_epoch_start(self) -> None:
        self.figures = {}  # those of another epoch are not of this one
        self.progress = EpochProgress(self.device)
        if self.resumed is not None:
            self.progress.go_on_from(self.resumed)
            self.resumed = None

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        images, labels = batch
        return self.training_loss(self.model(images), labels)

    def training_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What a batch's backward pass begins with; it counts towards the figures of the epoch."""
        loss = self.loss(logits, labels)
        self.progress.add(loss, logits, labels)
        return self.objective(loss, labels)

    def objective(self, loss: Tensor, labels: Tensor) -> Tensor:
        """What is minimised, of a batch with this loss."""
        loss = loss + self.l1 * l1_penalty(self.model.parameters()) if self.l1 else loss
        return loss * sample_weight(self.trainer, len(labels)) if self.is_last_batch else loss

    @property
    def epoch_is_finished(self) -> bool:
        """Whether all batches of the epoch are done, however it ends."""
        return self.is_last_batch

    @property
    def is_last_batch(self) -> bool:
        """Whether this batch is the last of its epoch, the only one that ranks may share unevenly."""
        return self.trainer.is_last_batch

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None or not gradient_clip_val:  # 16-mixed
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        # Lightning refuses a fused optimiser in bf16-mixed too, where no gradient is scaled
        clip = nn.utils.clip_grad_value_ if gradient_clip_algorithm == "value" else nn.utils.clip_grad_norm_
        clip([p for group in optimizer.param_groups for p in group["params"]], gradient_clip_val)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.progress.steps += 1
        self.progress.learning_rate = optimizer.param_groups[0]["lr"]

    def on_train_epoch_end(self) -> None:
        if not self.progress.steps:
            raise ConfigError("optimizer: its step() does not call the closure that it is given; torch's own ones do")
        if self.evaluated_step != self.global_step:  # in mid-epoch, of weights that this epoch has left behind
            self.figures = {}
        self.figures |= self.progress.averages("train")
        self.images["train"] = self.progress.images
        self.figures |= {"lr": self.progress.learning_rate, "seconds": self.progress.seconds}
        if self.l1:
            self.figures["regularization/l1"] = self.l1 * l1_penalty(self.model.parameters()).item()
        self.log_dict(self.figures, logger=False)
        for logger in self.loggers:
            logger.log_metrics(self.figures, step=self.current_epoch + 1)
            logger.save()

    def on_validation_epoch_start(self) -> None:
        self.evaluated = {}
        self.evaluated_step = self.global_step

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int, dataloader_idx: int = 0) -> None:
        self.evaluate(batch, self.watched[dataloader_idx])

    def test_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        self.evaluate(batch, "test")

    def evaluate(self, batch: tuple[Tensor, Tensor], split: str) -> None:
        """Add a batch's loss and correct answers to the figures of ``split``."""
        images, labels = batch
        logits = {split: self.model(images)}
        if self.flip_average:
            logits[f"{split}_flip_average"] = (logits[split] + self.model(images.flip(3))) / 2
        for name, values in logits.items():
            if name not in self.evaluated:
                self.evaluated[name] = EvaluationMetric(self.device)
            if len(labels):  # a rank may have no image
                self.evaluated[name].add(self.loss(values, labels), values, labels)

    def on_validation_epoch_end(self) -> None:
        averages: dict[str, float] = {}
        for split, metric in self.evaluated.items():
            averages |= metric.averages(split)
            self.images[split] = metric.images
        self.figures |= averages
        self.log_dict(averages, logger=False)

    on_test_epoch_end = on_validation_epoch_end
