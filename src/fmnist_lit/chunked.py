"""The classifier, several optimiser steps a hook: the same bits as the textbook's, at the cost of a bare loop."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from fmnist_lit.captured import RECORDERS, CapturedStep, obstacles
from fmnist_lit.classifier import Classifier
from fmnist_lit.config import ConfigError
from fmnist_lit.config.criterion import was_not_logged
from fmnist_lit.processes.signals import stop_request

log = logging.getLogger(__name__)

STEPS_PER_BATCH = 50  # so that the Trainer's hooks cost nothing
# lightning.Trainer's options that count or time batches
COUNT_BATCHES = ("fast_dev_run", "limit_train_batches", "overfit_batches", "val_check_interval", "profiler")
STEP_HOOKS = (
    *("on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_backward", "on_after_backward"),
    "on_before_optimizer_step",
)
WITHIN_A_STEP = STEP_HOOKS[2:]


class ChunkedClassifier(Classifier):
    """The Trainer hands ``training_step`` a chunk, the rows of several batches on end; it takes a step for each batch.

    That spreads the cost of the Trainer's hooks over the chunk. It is why optimisation is manual, and why what happens
    at each optimiser step (clipping, accumulation, schedules, ``max_steps``) is decided here.

    Args:
        batch_size: rows of a batch; ``training_step`` splits its chunk by it.
        gradient_clip_val, gradient_clip_algorithm: of lightning.Trainer; None for no limit, and for the norm.
        accumulate_grad_batches: batches whose mean gradient makes an optimiser step.
        max_steps: stop after so many optimiser steps; -1 for no limit.
        cuda_graph: replay the step from a CUDA graph, where that can be.
        classifier: what ``Classifier`` takes.
    """

    def __init__(
        self,
        *classifier: Any,
        batch_size: int,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
        accumulate_grad_batches: int = 1,
        max_steps: int = -1,
        cuda_graph: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*classifier, **options)
        self.automatic_optimization = False
        self.batch_size = batch_size
        self.gradient_clip_val = gradient_clip_val
        self.gradient_clip_algorithm = gradient_clip_algorithm
        self.accumulate_grad_batches = accumulate_grad_batches
        self.max_steps = max_steps
        self.cuda_graph = cuda_graph
        self.captured: CapturedStep | None = None
        self.in_last_batch = False  # of its epoch, not of a chunk

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning notes its hook twelve times a step; nn.Module takes 2 % of an epoch
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        configured: Any = super().configure_optimizers()
        return [configured["optimizer"]], [configured["lr_scheduler"]["scheduler"]]  # it is stepped by hand

    @property
    def is_last_batch(self) -> bool:
        return self.in_last_batch

    def on_train_start(self) -> None:
        if not self.cuda_graph:
            return
        why = next(self.obstacles(), None)
        if why is not None:
            log.info("trainer.cuda_graph: eager steps, %s", why)
            return
        watched = self.model, self.loss, self.trainer.optimizers
        self.captured = CapturedStep(self.bare_step, self.batch_size, *watched, RECORDERS[self.device.type]())

    def obstacles(self) -> Iterator[str]:
        """Why steps cannot be recorded, as far as that is known before the first."""
        yield from obstacles(self.trainer, self.accumulate_grad_batches)
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]  # set by Trainer.__init__
        for callback in callbacks:
            if any(is_overridden(callback, hook) for hook in WITHIN_A_STEP):
                yield f"{type(callback).__name__} acts within each"

    def on_train_end(self) -> None:
        self.captured = None  # and the memory that its graph holds

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.in_last_batch = False

    def training_step(self, chunk: tuple[Tensor, Tensor], chunk_index: int) -> None:  # type: ignore[override]
        optimizer: Any = self.optimizers()
        captured = self.captured if self.captured and self.captured.is_allowed() else None
        for batch in self.batches_of(chunk):
            if captured:
                self.count_step(optimizer, *captured(*batch), batch[1])
            else:
                self.manual_backward(super().training_step(batch, chunk_index))
                if not self.step_is_due:
                    continue
                optimizer.step()
                optimizer.zero_grad()
            if self.stops_after_step():
                break
        self.progress.flush()

    def batches_of(self, chunk: tuple[Tensor, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of a chunk; while each is worked on, it is known whether it is the last of its epoch."""
        images, labels = chunk
        batches = list(zip(torch.split(images, self.batch_size), torch.split(labels, self.batch_size), strict=True))
        for index, batch in enumerate(batches, start=1):
            self.in_last_batch = index == len(batches) and self.trainer.is_last_batch
            yield batch

    def training_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = super().training_loss(logits, labels)
        return loss / self.accumulate_grad_batches if self.accumulate_grad_batches > 1 else loss

    @property
    def step_is_due(self) -> bool:
        """Whether the gradient of as many batches as make an optimiser step is there."""
        return self.in_last_batch or not self.progress.batches % self.accumulate_grad_batches

    def stops_after_step(self) -> bool:
        """Do what follows an optimiser step; whether it is the last one for now."""
        if self.scheduler_interval == "step":
            scheduler: Any = self.lr_schedulers()
            scheduler.step()
        by_signal = stop_request.signum is not None and self.trainer.world_size == 1
        stops = by_signal or 0 <= self.max_steps == self.global_step
        if stops:
            self.trainer.should_stop = True
        return stops

    def bare_step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A step without Lightning and without what Python counts: all that a graph can hold."""
        logits = self.model(images)
        loss = self.loss(logits, labels)
        self.objective(loss, labels).backward()  # type: ignore[no-untyped-call]  # untyped in torch
        self.bare_update()
        return loss.detach(), logits.detach()

    def bare_update(self) -> None:
        """The part of it after the backward pass."""
        optimizer = self.trainer.optimizers[0]
        self.clip(optimizer)
        optimizer.step()
        optimizer.zero_grad()

    def count_step(self, optimizer: Any, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """What Lightning and the figures have to know of a step that was taken without them."""
        self.progress.add(loss, logits, labels)
        optimizer._on_before_step()
        super().on_before_optimizer_step(optimizer)
        optimizer._on_after_step()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.clip(optimizer)

    def clip(self, optimizer: Optimizer) -> None:
        """Limit the gradient, if there is a limit."""
        if self.gradient_clip_val is not None:
            self.configure_gradient_clipping(optimizer, self.gradient_clip_val, self.gradient_clip_algorithm)

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        if self.scheduler_interval == "epoch":
            scheduler: Any = self.lr_schedulers()
            if isinstance(scheduler, ReduceLROnPlateau):
                logged = self.trainer.callback_metrics
                if self.monitor not in logged:
                    raise ConfigError(was_not_logged(f"scheduler=plateau follows {self.monitor}", logged))
                scheduler.step(logged[self.monitor])
            else:
                scheduler.step()


def what_needs_single_steps(options: Mapping[str, Any], callbacks: Iterable[Callback]) -> str | None:
    """The first of the Trainer's options or callbacks that acts on, counts or times single batches; None if none does.

    Args:
        options: of lightning.Trainer, by name, those that were given.
        callbacks: Lightning's, ours or anybody's.
    """
    named = [f"trainer.{name}" for name in COUNT_BATCHES if options.get(name)]
    acting = [type(callback).__name__ for callback in callbacks if acts_by_step(callback)]
    return next(iter([*named, *acting]), None)


def acts_by_step(callback: Callback) -> bool:
    """Whether a callback acts at single optimiser steps, so that it would miss most of those of a chunk.

    A class that copes with chunks says so by ``copes_with_chunks = True``.
    """
    if getattr(callback, "copes_with_chunks", False):
        return False
    match callback:
        case Timer():  # it looks at the clock
            return False
        case LearningRateMonitor():
            return callback.logging_interval != "epoch"
        case ModelCheckpoint():  # it has no public word for it
            return bool(callback._every_n_train_steps or callback._train_time_interval)
        case (
            BatchSizeFinder()
            | GradientAccumulationScheduler()
            | LearningRateFinder()
            | StochasticWeightAveraging()
            | WeightAveraging()
        ):
            return True
    return any(is_overridden(callback, hook) for hook in STEP_HOOKS)


def is_overridden(callback: Callback, hook: str) -> bool:
    """Whether a callback has a hook of its own, in its class or, as LambdaCallback, in itself."""
    return getattr(getattr(callback, hook), "__func__", None) is not getattr(Callback, hook)
