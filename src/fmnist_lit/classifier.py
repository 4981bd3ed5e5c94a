"""The LightningModule: a model, a loss, an optimiser and a schedule, trained several batches at a time."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from fmnist_lit import collectives
from fmnist_lit.losses import l1_penalty
from fmnist_lit.signals import stop_request
from fmnist_lit.status import DivergedError


class Sums:
    """Loss and correct answers summed over samples on the device, so that no batch waits for the host."""

    def __init__(self, device: torch.device) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        self.values = torch.zeros(3, dtype=dtype, device=device)  # loss, correct, samples

    def add(self, losses: Tensor, logits: Tensor, labels: Sequence[Tensor]) -> None:
        """Add batches: the mean loss of each (B,), the logits of all (N, C), the labels of each.

        One after another, so that it does not change the last digit how many are added at a time.
        """
        summed = losses.to(self.values.dtype)
        summed[:-1] *= len(labels[0])
        summed[-1] *= len(labels[-1])
        self.values[0] = torch.cat([self.values[:1], summed]).cumsum(0)[-1]
        rows = torch.cat(labels)
        self.values[1] += (logits.argmax(dim=1) == rows).sum()
        self.values[2] += len(rows)

    def averages(self, split: str, reduce: Callable[..., Any]) -> dict[str, float]:
        """Per-sample accuracy (a fraction) and loss over all ranks."""
        loss, correct, samples = reduce(self.values, reduce_op="sum").tolist()
        return {f"accuracy/{split}": correct / samples, f"loss/{split}": loss / samples}


@dataclass
class EpochProgress:
    """How far an epoch of training is. Apart from the module, whose attributes are slow to set."""

    sums: Sums
    batches: int = 0
    steps: int = 0
    finished: bool = False
    learning_rate: float = math.nan  # of the last step
    loss: Tensor | float = math.nan  # mean over the last chunk, for a progress bar
    l1_penalty: Tensor | float = 0.0  # at the last step
    start: float = field(default_factory=time.perf_counter)

    def position(self) -> dict[str, Any]:
        """All that ``go_on_from`` needs, in plain values and tensors."""
        seconds = time.perf_counter() - self.start
        return {"batches": self.batches, "steps": self.steps, "sums": self.sums.values, "seconds": seconds}

    def go_on_from(self, position: Mapping[str, Any]) -> None:
        """Be where an interrupted epoch was."""
        self.batches, self.steps = position["batches"], position["steps"]
        self.sums.values.copy_(position["sums"])
        self.start -= position["seconds"]


class Classifier(LightningModule):
    """Trains ``model`` to map images to logits.

    The Trainer hands ``training_step`` a chunk, the rows of several batches on end, and it takes an optimiser step for
    each. That spreads the cost of the Trainer's hooks over the chunk. It is why optimisation is manual, and why what
    happens at each optimiser step (clipping, accumulation, per-step schedules, ``max_steps``) is decided here.

    Args:
        model: images (N, 1, 28, 28) to logits (N, C).
        loss: (logits (N, C), class indices (N,)) to the mean over the samples, a scalar.
        optimizer: makes an optimiser from named parameters, or from groups of them.
        scheduler: makes a schedule from an optimiser.
        scheduler_interval: ``step`` or ``epoch``: after what the schedule advances.
        batch_size: rows of a batch; ``training_step`` splits its chunk by it.
        l1: factor on the sum of |weight| in what is minimised.
        decay_biases: whether the optimiser's weight decay also acts on biases and on the scales of norms.
        flip_average: whether evaluations also average the logits of each image and its mirror image, as a figure of
            their own beside the plain one.
        gradient_clip_val: largest norm of the whole gradient; None for no limit.
        accumulate_grad_batches: batches whose mean gradient makes an optimiser step.
        max_steps: stop after so many optimiser steps; -1 for no limit.
        watched: names of the validation dataloaders, in their order.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: Callable[[Iterable[tuple[str, Tensor]]], Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler],
        *,
        scheduler_interval: str = "epoch",
        batch_size: int = 64,
        l1: float = 0.0,
        decay_biases: bool = True,
        flip_average: bool = False,
        gradient_clip_val: float | None = None,
        accumulate_grad_batches: int = 1,
        max_steps: int = -1,
        watched: Sequence[str] = ("val",),
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.batch_size = batch_size
        self.l1 = l1
        self.decay_biases = decay_biases
        self.flip_average = flip_average
        self.gradient_clip_val = gradient_clip_val
        self.accumulate_grad_batches = accumulate_grad_batches
        self.max_steps = max_steps
        self.watched = watched
        self.metrics: dict[str, float] = {}  # of the last epoch, by TensorBoard tag
        self.resumed: dict[str, Any] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning notes its hook twelve times a step; nn.Module takes 2 % of an epoch
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        parameters = list(self.model.named_parameters())
        if not self.decay_biases:
            parameters = [
                {"params": [(name, p) for name, p in parameters if p.ndim > 1]},
                {"params": [(name, p) for name, p in parameters if p.ndim < 2], "weight_decay": 0.0},
            ]
        optimizer = self.make_optimizer(parameters)
        return [optimizer], [self.make_scheduler(optimizer)]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.gradient_clip_val is None:
            return
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:  # 16-mixed
            self.clip_gradients(optimizer, self.gradient_clip_val, "norm")
        else:  # Lightning refuses a fused optimiser here in bf16-mixed too, where no gradient is scaled
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.gradient_clip_val)

    def on_train_epoch_start(self) -> None:
        self.progress = EpochProgress(Sums(self.device))
        if self.resumed is not None:
            self.progress.go_on_from(self.resumed)
            self.resumed = None

    def position(self) -> dict[str, Any] | None:
        """What a checkpoint in mid-epoch needs to go on from here; None between epochs."""
        return None if self.progress.finished else self.progress.position()

    def resume(self, position: dict[str, Any] | None, metrics: dict[str, float]) -> None:
        """Go on from ``position`` in the next epoch that starts; ``metrics`` are of the last that ended."""
        self.resumed = position
        self.metrics = dict(metrics)
        if position is not None:
            self.trainer.datamodule.batches_done = position["batches"]

    def training_step(self, chunk: tuple[Tensor, Tensor], chunk_index: int) -> None:
        images, labels = (rows.split(self.batch_size) for rows in chunk)
        if not len(labels[0]):  # an interrupted epoch goes on further down
            return
        progress, last_chunk = self.progress, self.trainer.is_last_batch
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        step, alone = self.global_step, self.trainer.world_size == 1
        losses, logits = [], []
        for index, (x, y) in enumerate(zip(images, labels, strict=True), start=1):
            outputs = self.model(x)
            loss = self.loss(outputs, y)
            progress.batches += 1
            progress.finished = last_chunk and index == len(labels)
            objective = self.objective(loss)
            if progress.finished and not alone:  # the only batch that ranks may share unevenly
                objective = objective * collectives.weight(self.trainer, len(y))
            self.manual_backward(objective)
            losses.append(loss.detach())
            logits.append(outputs.detach())
            if progress.batches % self.accumulate_grad_batches and not progress.finished:
                continue
            progress.learning_rate = optimizer.param_groups[0]["lr"]
            optimizer.step()
            optimizer.zero_grad()
            if self.scheduler_interval == "step":
                scheduler.step()
            progress.steps += 1
            step += 1
            if step == self.max_steps or (alone and stop_request.signum is not None):
                self.trainer.should_stop = True
                break
        self.record(torch.stack(losses), torch.cat(logits), labels[: len(losses)], step)
        if not alone and collectives.any_rank_is_to_stop(self.trainer):
            self.trainer.should_stop = True

    def record(self, losses: Tensor, logits: Tensor, labels: Sequence[Tensor], step: int) -> None:
        """Add the batches of a chunk to the epoch's sums.

        Raises:
            DivergedError: if a loss of any rank is not finite; the chunk ended at optimiser step ``step``.
        """
        finite = losses.isfinite()
        if self.trainer.world_size > 1:
            finite = self.trainer.strategy.reduce(finite.int(), reduce_op="min").bool()
        if not finite.all():  # the one time in a chunk that the host waits for the device
            batches_since = len(losses) - 1 - int(finite.logical_not().nonzero()[0])
            raise DivergedError(step - batches_since // self.accumulate_grad_batches)
        self.progress.sums.add(losses, logits, labels)
        self.progress.loss = losses.mean()  # self.log would cost 1 % of an epoch

    def objective(self, loss: Tensor) -> Tensor:
        """What is minimised: the loss plus the L1 penalty, over the batches that share a step."""
        if self.l1:
            penalty = self.l1 * l1_penalty(self.model.parameters())
            self.progress.l1_penalty = penalty.detach()
            loss = loss + penalty
        return loss if self.accumulate_grad_batches == 1 else loss / self.accumulate_grad_batches

    def on_train_epoch_end(self) -> None:
        train = self.progress.sums.averages("train", self.trainer.strategy.reduce)
        evaluated = {tag: value for tag, value in self.metrics.items() if "/val" in tag or "/test" in tag}
        self.metrics = {**train, **evaluated, "lr": self.progress.learning_rate}
        if self.l1:
            self.metrics["regularization/l1"] = float(self.progress.l1_penalty)
        self.metrics["seconds"] = time.perf_counter() - self.progress.start
        if self.scheduler_interval == "epoch":
            scheduler = self.lr_schedulers()
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(self.metrics["loss/val"])
            else:
                scheduler.step()
        self.log_dict(self.metrics, logger=False)
        for logger in self.loggers:
            logger.log_metrics(self.metrics, step=self.current_epoch + 1)

    def on_validation_epoch_start(self) -> None:
        self.evaluation_sums = {}

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int, dataloader_idx: int = 0) -> None:
        self.evaluate(batch, self.watched[dataloader_idx])

    def test_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        self.evaluate(batch, "test")

    def evaluate(self, batch: tuple[Tensor, Tensor], split: str) -> None:
        """Add a batch's loss and correct answers to the sums of ``split``."""
        images, labels = batch
        logits = self.model(images)
        self.add(split, logits, labels)
        if self.flip_average:
            self.add(f"{split}_flip_average", (logits + self.model(images.flip(3))) / 2, labels)

    def add(self, name: str, logits: Tensor, labels: Tensor) -> None:
        """Add what the logits (N, C) of a batch come to."""
        sums = self.evaluation_sums.setdefault(name, Sums(self.device))
        if len(labels):
            sums.add(self.loss(logits, labels).unsqueeze(0), logits, [labels])

    def on_validation_epoch_end(self) -> None:
        for split, sums in self.evaluation_sums.items():
            averages = sums.averages(split, self.trainer.strategy.reduce)
            if not math.isfinite(averages[f"loss/{split}"]):
                raise DivergedError(self.global_step)
            self.metrics.update(averages)
            self.log_dict(averages, logger=False)

    on_test_epoch_end = on_validation_epoch_end
